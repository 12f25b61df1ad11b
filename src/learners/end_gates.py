"""What a trained fold must show before it predicts: its file holds all of it, and padding does not reach its logits."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch

from learners.checkpoints import restore_model
from learners.gates import choose_rows, compare_logits
from learners.sharding import is_sharded, own_part, publish


def check_end(learner, fold) -> None:
    """Predict a handful of held-out rows as they are, after reloading, and each alone; the base must be untouched.

    In float32 where the weights are, whatever the training computed in: rounding would hide a fault.

    Raises: ValueError: what differs, by how much, and where to look.
    """
    model = fold.accelerator.unwrap_model(fold.model)
    fold.frozen.check(model)
    device, n_processes = fold.accelerator.device.type, fold.accelerator.num_processes
    rows = choose_rows(learner.tokens.lengths, fold.rows.heldout, n_processes, device)
    exact = is_held_in_float32(model)
    precision = "no" if exact else learner.precision
    with without_autocast(fold.accelerator, model) if exact else nullcontext():
        together = learner.predict(fold.model, rows)
        reloaded = learner.predict(reload(learner, fold, model), rows)
        compare_logits(reloaded, together, precision, "after saving and reloading,", UNSAVED)
        alone = learner.predict(fold.model, rows, tokens_in_batch=1)
        compare_logits(alone, together, precision, "each alone instead of in a padded batch,", PADDED)


def reload(learner, fold, model: torch.nn.Module) -> torch.nn.Module:
    """The model as another process would load it: into one built anew, or, where the base is shared by all folds or
    spread over processes, into this one after its trained weights are wiped out."""
    tensors = fold.store.load_weights()
    if learner.builds_anew and not is_sharded(model):
        model = learner.build_fold_model(fold.rows, fold.seed + 1).to(fold.accelerator.device)
        restore_model(model, tensors)
        return model
    wipe(model)
    restore_model(model, tensors)
    return fold.model


def is_held_in_float32(model: torch.nn.Module) -> bool:
    """Whether every weight is float32 and whole; a shard is gathered in what the training computes in."""
    return not is_sharded(model) and all(weight.dtype == torch.float32 for weight in model.parameters())


@contextmanager
def without_autocast(accelerator, model: torch.nn.Module) -> Iterator[None]:
    """Inside, `model` computes in what its weights are held in; Accelerate has put an autocast around its forward."""
    prepared = {name: vars(model)[name] for name in ("forward", "_original_forward") if name in vars(model)}
    accelerator.unwrap_model(model, keep_fp32_wrapper=False)
    try:
        yield
    finally:
        vars(model).update(prepared)


@torch.no_grad()
def wipe(model: torch.nn.Module) -> None:
    """Zero everything that was trained."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in trained:
        own_part(parameter).zero_()
    publish(trained)


UNSAVED = (
    "A part that was trained is not in weights.safetensors: a parameter that is no parameter of the model, or marked "
    "frozen after training. The fold cannot be loaded again, so it is not written"
)
PADDED = (
    "Padding reaches the prediction: a wrong pad token or padding side, an attention mask not used, or a pooling "
    "that counts places from the end. See model.pad_token and model.pooling"
)
