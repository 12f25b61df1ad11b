"""Every gate is shown the fault it is for."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from toy_corpus import fold_rows, make_corpus

from foldblend.learners.decoder import DecoderLearner
from foldblend.learners.encoder import EncoderLearner
from foldblend.learners.generator import GeneratorLearner
from foldblend.learners.losses.named import BinaryCrossEntropy, build_loss
from foldblend.learners.tokens.batches import Augmentation
from foldblend.learners.training import loop
from foldblend.learners.training.checks import (
    FrozenWatch,
    MovementWatch,
    check_class_weights,
    choose_rows,
    compare_logits,
)
from foldblend.learners.training.loop import build_fold, take_step
from foldblend.settings.nets import (
    AdapterSettings,
    LossSettings,
    ModelSettings,
    OptimizerSettings,
    PromptSettings,
    TrainingSettings,
)
from foldblend.settings.run import RunSettings

pytestmark = pytest.mark.usefixtures("fresh_accelerate")
LABELS = np.random.default_rng(0).random((200, 4)) < [0.05, 0.2, 0.5, 0.8]
TRAINING = TrainingSettings(epochs=1, global_batch_size=16, micro_batch_size=16, precision="fp32")
OPTIMIZER = OptimizerSettings(lr=5e-3, head_lr=5e-3)


@pytest.fixture
def run(tiny_bert):
    return RunSettings("encoder", model=ModelSettings(name=str(tiny_bert)), training=TRAINING, optimizer=OPTIMIZER)


@pytest.fixture
def decoder_run(tiny_decoder):
    model, adapter = ModelSettings(name=str(tiny_decoder("llama")), pooling="last"), AdapterSettings(rank=4)
    return RunSettings("decoder", model=model, training=TRAINING, optimizer=OPTIMIZER, adapter=adapter)


def train(learner, tmp_path, n=100):
    return learner(make_corpus(n)).train_fold(fold_rows(make_corpus(n), tmp_path, 40))


@pytest.mark.parametrize("name", ["bce", "focal", "asymmetric", "distribution_balanced", "soft_macro_f1", "zlpr"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_our_own_losses_pass(name, smoothing):
    takes_weights = name in ("bce", "focal")
    power = {"pos_weight_power": 0.7, "label_smoothing": smoothing} if takes_weights else {}
    settings = LossSettings(name=name, **power)
    check_class_weights(build_loss(settings, LABELS, "multilabel"), LABELS, settings, "multilabel")


@pytest.mark.parametrize("name", ["cross_entropy", "focal"])
def test_our_own_losses_of_one_label_pass(name):
    labels, settings = np.eye(4, dtype=bool)[np.arange(50) % 7 % 4], LossSettings(name=name, pos_weight_power=0.5)
    check_class_weights(build_loss(settings, labels, "multiclass"), labels, settings, "multiclass")


class WeightOnColumns(BinaryCrossEntropy):
    """BCE's `weight`, which moves nothing between a label's positives and negatives."""

    def of_rows(self, logits, targets):
        weight = self.pos_weight.to(logits.dtype)
        return F.binary_cross_entropy_with_logits(logits, targets, weight=weight, reduction="none").mean(1)


class WeightOnNegatives(BinaryCrossEntropy):
    def of_rows(self, logits, targets):
        return super().of_rows(-logits, 1 - targets)


class NoWeight(BinaryCrossEntropy):
    def of_rows(self, logits, targets):
        return F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(1)


@pytest.mark.parametrize("wrong", [WeightOnColumns, WeightOnNegatives, NoWeight])
def test_class_weights_in_the_wrong_place_are_found_before_the_first_step(run, tmp_path, monkeypatch, wrong):
    run = replace(run, loss=LossSettings(pos_weight_power=1.0))
    build = lambda self, rows: wrong(build_loss(run.loss, self.corpus.labels[rows.train], "multilabel").pos_weight)  # noqa: E731
    monkeypatch.setattr(EncoderLearner, "build_fold_loss", build)
    monkeypatch.setattr(loop, "take_step", lambda *_: pytest.fail("a step was taken"))
    with pytest.raises(ValueError, match=r"a row with label \d alone, logit \d has gradient .* expected .*pos_weight"):
        train(lambda corpus: EncoderLearner(run, corpus), tmp_path)


def test_a_head_left_out_of_the_optimiser_is_found_in_two_steps(run, tmp_path, monkeypatch):
    from foldblend.learners.training import optimizer as optimizers

    build, steps = optimizers.build_optimizer, []

    def without_head(model, *more):
        model.head.requires_grad_(False)
        optimizer = build(model, *more)
        model.head.requires_grad_(True)
        return optimizer

    take = loop.take_step
    monkeypatch.setattr(loop, "take_step", lambda *given: steps.append(1) or take(*given))
    monkeypatch.setattr(optimizers, "build_optimizer", without_head)
    with pytest.raises(ValueError, match=r"have not moved .*: 2 of 2 watched .*first head.weight"):
        train(lambda corpus: EncoderLearner(run, corpus), tmp_path)
    assert len(steps) == 2


def test_an_adapter_that_no_gradient_reaches_is_named(decoder_run, tmp_path, monkeypatch):
    build = DecoderLearner.build_fold_model

    def cut_off(self, *given):
        model = build(self, *given)
        layer = model.encoder.base_model.model.layers[1].mlp.down_proj
        layer.lora_B["default"].forward = lambda x: x.detach().sum(-1, keepdim=True) * 0
        return model

    monkeypatch.setattr(DecoderLearner, "build_fold_model", cut_off)
    with pytest.raises(ValueError, match=r"not moved .*: 2 of \d+ watched .*layers.1.mlp.down_proj.lora_A"):
        train(lambda corpus: DecoderLearner(decoder_run, corpus), tmp_path)


@pytest.mark.parametrize("left_out", ["nothing", "all", "one layer"])
def test_a_generator_without_adapters_is_watched_too(decoder_run, tmp_path, monkeypatch, left_out):
    """It has neither a head nor anything frozen."""
    from foldblend.learners.training import optimizer as optimizers

    build = optimizers.build_optimizer

    def without_some(model, settings, *more):
        optimizer = build(model, replace(settings, weight_decay=0.0), *more)
        for name, parameter in model.named_parameters():
            if left_out == "all" or (left_out == "one layer" and "layers.1." in name):
                parameter.register_hook(lambda gradient: gradient * 0)
        return optimizer

    monkeypatch.setattr(optimizers, "build_optimizer", without_some)
    run = RunSettings(
        "generator",
        model=replace(decoder_run.model, pooling="mean"),
        training=TRAINING,
        optimizer=OptimizerSettings(lr=5e-3),
        prompt=PromptSettings(template="Text: {text}\nLabels:"),
        adapter=AdapterSettings(kind="none"),
    )
    learner, corpus = GeneratorLearner(run, make_corpus(80)), make_corpus(80)
    fold, state = build_fold(learner, fold_rows(corpus, tmp_path, 40))
    assert 4 < len(fold.movement.still) <= 16
    take_step(learner, fold, state, fold.rows.train[:4])
    if left_out == "nothing":
        take_step(learner, fold, state, fold.rows.train[4:8])
        return
    with pytest.raises(ValueError, match=r"not moved .*: \d+ of \d+ watched"):
        take_step(learner, fold, state, fold.rows.train[4:8])


def test_a_long_warm_up_is_waited_for(run, tmp_path):
    """Its first steps are too small to show in some weights; the gate neither fires then nor goes away."""
    model = torch.nn.Module()
    model.head = torch.nn.Linear(2, 2)
    torch.nn.init.constant_(model.head.weight, 6.0)
    torch.nn.init.constant_(model.head.bias, 6.0)
    watch, optimizer = MovementWatch(model), torch.optim.SGD(model.parameters(), lr=1e-8)
    for lr, left in ((1e-8, 2), (5e-7, 2), (2e-6, 1)):
        optimizer.param_groups[0]["lr"] = lr
        watch.after_step(model, optimizer, False)
        assert watch.steps_left == left
    with pytest.raises(ValueError, match="have not moved"):
        watch.after_step(model, optimizer, False)
    watch = MovementWatch(model)
    optimizer.step_was_skipped = True  # as fp16's loss scaler does while it looks for its scale
    for _ in range(5):
        watch.after_step(model, optimizer, True)
    assert watch.steps_left == 2


def test_steps_that_a_fused_optimiser_skips_itself_do_not_count():
    """As on a T4: nothing moved and Accelerate says nothing, but fp16's scale was lowered."""
    model = torch.nn.Module()
    model.head = torch.nn.Linear(2, 2)
    optimizer, scaler = torch.optim.SGD(model.parameters(), lr=1e-3), torch.amp.GradScaler("cpu")
    watch = MovementWatch(model, scaler)
    for _ in range(5):
        scaler.load_state_dict({**scaler.state_dict(), "scale": scaler.get_scale() / 2})
        watch.after_step(model, optimizer, True)
    assert watch.steps_left == 2
    watch.after_step(model, optimizer, True)
    with pytest.raises(ValueError, match="have not moved"):
        watch.after_step(model, optimizer, True)


def test_a_frozen_parameter_that_changes_is_named(decoder_run, tmp_path, monkeypatch):
    take = loop.take_step

    def leak(learner, fold, *more):
        take(learner, fold, *more)
        with torch.no_grad():
            fold.model.encoder.base_model.model.layers[0].mlp.up_proj.base_layer.weight.mul_(1.001)

    monkeypatch.setattr(loop, "take_step", leak)
    with pytest.raises(ValueError, match=r"Frozen parameters changed .*: 1 of \d+, first .*layers.0.mlp.up_proj"):
        train(lambda corpus: DecoderLearner(decoder_run, corpus), tmp_path)


def test_a_sample_sees_every_kind_of_change():
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Linear(2000, 9)).requires_grad_(False)
    model[0].bias = torch.nn.Parameter(torch.zeros(2, dtype=torch.bfloat16), requires_grad=False)
    model.register_parameter("four_bits", torch.nn.Parameter(torch.zeros(7, 1, dtype=torch.uint8), requires_grad=False))
    FrozenWatch(model).check(model)
    for name, parameter in model.named_parameters():
        watch = FrozenWatch(model)
        parameter.data.add_(1)
        with pytest.raises(ValueError, match=name.replace(".", r"\.")):
            watch.check(model)


def test_the_rows_differ_in_length_and_fill_every_process():
    lengths = np.arange(10, 1010)
    rows = choose_rows(lengths, np.arange(100, 900), 1, "cpu")
    assert len(rows) == 4 and lengths[rows].max() * 4 <= 4096 and len(set(lengths[rows])) == 4
    assert len(choose_rows(lengths, np.arange(100, 900), 8, "cuda")) == 16
    assert choose_rows(lengths, np.array([7]), 1, "cpu").tolist() == [7]
    assert len(choose_rows(np.full(9, 8000), np.arange(9), 1, "cpu")) == 1  # no two of them fit beside each other


def test_tolerance_grows_with_the_logits_and_the_precision():
    logits = np.random.default_rng(0).normal(size=(4, 20)).astype(np.float32) * 3
    compare_logits(logits + 0.05, logits, "bf16", "x", "y")
    with pytest.raises(ValueError, match="differ when predicted x: by 0.05 .*at most 0.0039"):
        compare_logits(logits + np.float32(0.05), logits, "no", "x", "y")
    logits[0, 0] = np.nan
    with pytest.raises(ValueError, match="by nan in the root"):
        compare_logits(logits, logits, "bf16", "x", "y")


def note_rows(monkeypatch):
    """The rows of every training batch, as they come."""
    seen, batch = [], Augmentation.batch
    monkeypatch.setattr(Augmentation, "batch", lambda self, rows, rng: seen.append(rows) or batch(self, rows, rng))
    return seen


def test_the_first_bad_step_names_its_rows(run, tmp_path, monkeypatch):
    take, of_bad, seen = EncoderLearner.batch_loss, [], note_rows(monkeypatch)

    def batch_loss(self, *given):
        loss, rows = take(self, *given), seen[-1]
        if 77 in rows:
            of_bad.extend(rows.tolist())
            return loss * float("inf")
        return loss

    monkeypatch.setattr(EncoderLearner, "batch_loss", batch_loss)
    with pytest.raises(
        ValueError, match=r"The training loss is (inf|nan) at step \d+, first on rows .* of the training file.*bf16"
    ) as error:
        train(lambda corpus: EncoderLearner(replace(run, training=replace(TRAINING, epochs=4)), corpus), tmp_path)
    named = str(error.value).split("first on rows ")[1].split(" of the training file (counted")[0]
    assert [int(row) for row in named.split(", ")] == of_bad[:16] and "77" in named


class BadGradient(torch.autograd.Function):
    """The identity, whose gradient is no number."""

    @staticmethod
    def forward(context, loss):
        return loss.clone()

    @staticmethod
    def backward(context, gradient):
        return gradient * float("nan")


@pytest.mark.parametrize("max_grad_norm", [1.0, 0.0])
@pytest.mark.parametrize("rows_of", ["lazy", "every_step"])
def test_a_gradient_that_is_no_number_names_its_rows_though_their_loss_is_finite(
    run, tmp_path, monkeypatch, max_grad_norm, rows_of
):
    take, of_bad, seen = EncoderLearner.batch_loss, [], note_rows(monkeypatch)

    def batch_loss(self, *given):
        loss, rows = take(self, *given), seen[-1]
        if 77 in rows:
            of_bad.append(rows.tolist())
            return BadGradient.apply(loss)
        return loss

    monkeypatch.setattr(EncoderLearner, "batch_loss", batch_loss)
    optimizer = replace(OPTIMIZER, max_grad_norm=max_grad_norm, embedding_updates=rows_of)
    run = replace(run, optimizer=optimizer, training=replace(TRAINING, epochs=4))
    with pytest.raises(ValueError, match="first on rows") as error:
        train(lambda corpus: EncoderLearner(run, corpus), tmp_path)
    named = str(error.value).split("first on rows ")[1].split(" of the training file (counted")[0]
    assert [int(row) for row in named.split(", ")] == of_bad[0]


def test_weights_that_a_bad_gradient_has_spoilt_are_not_saved(run, tmp_path, monkeypatch):
    take = EncoderLearner.batch_loss
    spoilt = lambda self, *given: BadGradient.apply(take(self, *given))  # noqa: E731
    monkeypatch.setattr(EncoderLearner, "batch_loss", spoilt)
    run = replace(run, training=replace(TRAINING, checkpoint_every_minutes=1e-9))
    with pytest.raises(ValueError, match="The gradient is not finite at step 1, first on rows .*optimizer.lr"):
        train(lambda corpus: EncoderLearner(run, corpus), tmp_path)
    assert not list(tmp_path.rglob("*.safetensors"))
