"""Parts of the check that say how fast folds are trained and predicted, and what share of the card that uses."""

import math
import os
import re
import subprocess
import time

import psutil
from inputs import (
    N_LABELS,
    Check,
    build,
    fold_of,
    free_memory,
    make_corpus,
    make_real,
    peak_gb,
    scratch,
    seconds_per_call,
    settings,
    wait,
)

WARM_STEPS = 8
SIZES = {"minilm": "bert-6x384", "roberta-base": "roberta-base", "deberta-v3-large": "deberta-v3-large"}
"""Name -> name in train_speed_models.MODELS; a BERT of 6 x 384 is MiniLM's shape."""

# 1. Encoders, and Hugging Face's Trainer


def part_encoders(check: Check) -> None:
    """Ours and Trainer with its best settings, on the same model, rows, batch and optimizer."""
    check.attempt("start-up", start_up, check)
    check.attempt("bf16 products", lambda: {"TFLOP/s": round(product_rate(check) / 1e12, 2)})
    corpus = make_corpus(check.choose(12000, 600))
    for name, model in SIZES.items():
        for batch in (16,) if name == "deberta-v3-large" else (16, 32, 128):
            for side in (encoder_speed, trainer_speed):
                label = "ours" if side is encoder_speed else "Trainer"
                check.attempt(f"{name}, batch {batch}, {label}", side, check, model, batch, corpus)


def encoder_speed(check: Check, model: str, batch: int, corpus) -> dict[str, object]:
    """Steps as the loop takes them, one save, and a prediction of a thousand rows."""
    from foldblend.learners.training.loop import build_fold

    folder = make_real(check, model, corpus.texts)
    learner = build(settings("encoder", folder, training__global_batch_size=batch, training__epochs=1), corpus)
    n_heldout, n_steps = check.choose(1000, 100), check.choose(80 if batch == 128 else 150, 4)
    with scratch() as where:
        started = time.perf_counter()
        fold, state = build_fold(learner, fold_of(corpus, where, n_heldout))
        wait()
        found = {"ready s": round(time.perf_counter() - started, 1)}
        found |= time_steps(check, learner, fold, state, n_steps)
        return found | time_the_rest(learner, fold, state, n_heldout)


def start_up(check: Check) -> dict[str, float]:
    """Seconds from the start of this process until the libraries are there and the device has done something."""
    import peft  # noqa: F401
    import torch
    import transformers  # noqa: F401

    torch.ones(8, 8, device=check.device).mm(torch.ones(8, 8, device=check.device))
    wait()
    return {"seconds": round(time.time() - psutil.Process().create_time(), 1)}


def time_steps(check: Check, learner, fold, state, n_steps: int) -> dict[str, object]:
    """Rows, real tokens and milliseconds of a step; its share of the measured rate of products; peak memory."""
    from foldblend.learners.training.loop import plan_steps, take_step

    steps = plan_steps(learner, fold.rows, 0)
    steps = [steps[i % len(steps)] for i in range(WARM_STEPS + n_steps)]
    for rows in steps[:WARM_STEPS]:
        take_step(learner, fold, state, rows)
        state.step += 1
    wait()
    started = time.perf_counter()
    for rows in steps[WARM_STEPS:]:
        take_step(learner, fold, state, rows)
        state.step += 1
    queued = time.perf_counter() - started
    wait()
    seconds, lengths = time.perf_counter() - started, learner.tokens.lengths
    n_rows, tokens = (sum(each) for each in zip(*((len(r), int(lengths[r].sum())) for r in steps[WARM_STEPS:])))
    rate = tokens * model_flops(fold.model, tokens / n_rows) / seconds
    return {
        "rows/s": round(n_rows / seconds),
        "tokens/s": round(tokens / seconds),
        "ms a step": round(seconds / n_steps * 1e3, 2),
        "of it queued by the host": round(queued / n_steps * 1e3, 2),
        "tokens a row": round(tokens / n_rows, 1),
        "TFLOP/s": round(rate / 1e12, 2),
        "of bf16 products": f"{rate / product_rate(check):.1%}",
        "peak GB": peak_gb(),
    }


def time_the_rest(learner, fold, state, n_heldout: int) -> dict[str, float]:
    """Seconds of a save and of predictions; how far a text alone is from itself in a padded batch."""
    started = time.perf_counter()
    fold.store.save_checkpoint(state)
    saved = time.perf_counter() - started
    started = time.perf_counter()
    learner.predict(fold.model, fold.rows.heldout)
    wait()
    predicted = time.perf_counter() - started
    few = fold.rows.heldout[:8]
    together, alone = learner.predict(fold.model, few), learner.predict(fold.model, few, tokens_in_batch=1)
    return {
        "save s": round(saved, 2),
        "predicted rows/s": round(n_heldout / predicted),
        "alone against padded": f"{float(abs(together - alone).max()):.1e} of {float(abs(together).max()):.1f}",
    }


RATES: list[float] = []


def product_rate(check: Check) -> float:
    """FLOP/s of large bf16 products, measured once per process."""
    import torch

    if not RATES:
        side, n = (8192, 20) if check.device == "cuda" else (256, 2)
        left, right = (torch.randn(side, side, device=check.device).bfloat16() for _ in range(2))
        RATES.append(2 * side**3 / min(seconds_per_call(lambda: left @ right, n) for _ in range(3)))
    return RATES[0]


def model_flops(model, length: float) -> float:
    """FLOPs of a token's forward and backward pass, as bench/scaling.py counts them."""
    from scaling import flops_a_token

    return flops_a_token(model, round(length))


def trainer_speed(check: Check, model: str, batch: int, corpus) -> dict[str, object]:
    """Trainer with rows grouped by length, 16 bits, fused AdamW, workers, nothing saved."""
    from transformers import DataCollatorWithPadding, Trainer, TrainingArguments

    n_steps = check.choose(80 if batch == 128 else 150, 4)
    network, tokenizer, optimizer = build_for_trainer(check, model, batch, corpus)
    encoded = tokenizer(list(corpus.texts), truncation=True, max_length=128)["input_ids"]
    labels = corpus.labels.astype("float32")
    rows = [{"input_ids": encoded[row], "labels": labels[row]} for row in range(len(labels))]
    clock = make_clock(WARM_STEPS, WARM_STEPS + n_steps)
    with scratch() as where:
        arguments = TrainingArguments(
            output_dir=str(where),
            max_steps=WARM_STEPS + n_steps,
            per_device_train_batch_size=batch,
            bf16=check.device == "cuda",
            train_sampling_strategy="group_by_length",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            logging_steps=10000,
            use_cpu=check.device == "cpu",
            dataloader_num_workers=check.choose(4, 0),
        )
        collator, optimizers = DataCollatorWithPadding(tokenizer), (optimizer, None)
        trainer = Trainer(
            network, arguments, train_dataset=rows, data_collator=collator, callbacks=[clock], optimizers=optimizers
        )
        trainer.train()
    seconds = clock.times[1] - clock.times[0]
    found = {"rows/s": round(batch * n_steps / seconds), "ms a step": round(seconds / n_steps * 1e3, 2)}
    return found | {"peak GB": peak_gb()}


def build_for_trainer(check: Check, model: str, batch: int, corpus):
    """The model that ours starts from as Trainer calls it, its tokenizer, and the same AdamW."""
    import torch
    from accelerate.state import AcceleratorState

    from foldblend.learners.nets.classifier import build_model
    from foldblend.learners.training.optimizer import build_optimizer

    class WithLoss(torch.nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, input_ids, attention_mask, labels=None):
            logits = self.inner(input_ids=input_ids, attention_mask=attention_mask)
            return {"loss": torch.nn.functional.binary_cross_entropy_with_logits(logits, labels), "logits": logits}

    run = settings("encoder", make_real(check, model, corpus.texts), training__global_batch_size=batch)
    learner = build(run, corpus)
    network = build_model(learner.folder, run.model, None, N_LABELS, 0).to(check.device)
    AcceleratorState._reset_state(True)  # Trainer brings its own
    return WithLoss(network), learner.tokenizer, build_optimizer(network, run.optimizer)


def make_clock(*steps: int):
    """A callback of Trainer that keeps when these steps had ended on the GPU."""
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        def __init__(self):
            self.times = []

        def on_step_end(self, args, state, control, **_):
            if state.global_step in steps:
                wait()
                self.times.append(time.perf_counter())

    return Clock()


# 2. LoRA


def part_lora(check: Check) -> None:
    """Qwen2.5-1.5B: as a run has it, larger steps, layers computed twice, nf4."""
    corpus = make_corpus(check.choose(3000, 300))
    folder, n = make_real(check, "qwen2.5-1.5b", corpus.texts), check.choose(40, 2)
    for case, n_steps, changes in (
        ("batch 16", n, {}),
        ("batch 64", n, {"training__global_batch_size": 64}),
        ("nf4, batch 16", n // 2, {"adapter__quantization": "nf4"}),
        ("batch 16, layers computed twice", n, {"training__gradient_checkpointing": True}),
        ("batch 16, no dropout in adapters", n, {"adapter__dropout": 0.0}),
    ):
        check.attempt(f"1.5B, {case}", lora_speed, check, settings("decoder", folder, **changes), corpus, n_steps)


def part_lora14(check: Check) -> None:
    """Qwen2.5-14B, made on the card and never on disk."""
    corpus = make_corpus(check.choose(2500, 300))
    folder, n = make_real(check, "qwen2.5-1.5b", corpus.texts), check.choose(15, 2)
    nf4 = {"adapter__quantization": "nf4"}
    for case, changes in (
        ("bf16, batch 16", {}),
        ("nf4, batch 16, layers computed twice (as shipped)", {**nf4, "training__gradient_checkpointing": True}),
        ("bf16, batch 32", {"training__global_batch_size": 32}),
        ("nf4, batch 32", {**nf4, "training__global_batch_size": 32}),
    ):
        run = settings("decoder", folder, **changes)
        check.attempt(f"14B, {case}", lora_speed, check, run, corpus, n, lambda run=run: make_14b(check, run))


def lora_speed(check: Check, run, corpus, n_steps: int, make_base=None) -> dict[str, object]:
    """Steps, a save and a prediction. Args: make_base: what takes the place of the base in the run's folder."""
    from foldblend.learners.training.loop import build_fold

    learner, n_heldout = build(run, corpus), check.choose(400, 80)
    if make_base is not None:
        learner.shared_base._load = make_base
    with scratch() as where:
        started = time.perf_counter()
        fold, state = build_fold(learner, fold_of(corpus, where, n_heldout))
        wait()
        found = {"ready s": round(time.perf_counter() - started, 1)}
        found |= time_steps(check, learner, fold, state, n_steps)
        found["steps of 7,000 rows x 3, s"] = round(21000 / max(1, found["rows/s"]))
        return found | time_the_rest(learner, fold, state, n_heldout)


def make_14b(check: Check, run):
    """Random weights of the 14B; in nf4 each linear layer is quantised after it is made."""
    import torch
    from inputs import shrink
    from train_speed_models import MODELS
    from transformers import AutoModel

    config = MODELS["qwen2.5-14b"][1]()
    config = shrink(config) if check.tiny else config
    with torch.device(check.device):
        model = AutoModel.from_config(config, dtype=torch.bfloat16).eval()
    if run.adapter.quantization == "nf4":
        quantise(model, check.device)
    return model


def quantise(model, device: str) -> None:
    """Put 4-bit layers in the place of a decoder's linear layers, as loading in 4 bits does."""
    import torch
    from bitsandbytes.nn import Linear4bit, Params4bit

    for layer in model.layers:
        for name, whole in list(layer.named_modules()):
            if not isinstance(whole, torch.nn.Linear):
                continue
            shape, has_bias = (whole.in_features, whole.out_features), whole.bias is not None
            how = {"compute_dtype": torch.bfloat16, "quant_type": "nf4", "device": "meta"}
            four = Linear4bit(*shape, bias=has_bias, **how)
            four.weight = Params4bit(whole.weight.data, requires_grad=False, quant_type="nf4", module=four)
            if has_bias:
                four.bias = torch.nn.Parameter(whole.bias.data, requires_grad=False)
            four.support_avx512bf16_for_cpu = False
            above, _, last = name.rpartition(".")
            setattr(layer.get_submodule(above), last, four.to(device))
    model.is_loaded_in_4bit = True  # peft reads it


# 3. Several folds, generators, the goal


def part_beside(check: Check) -> None:
    """Folds of roberta-base in processes side by side: rows/s in sum."""
    corpus = make_corpus(check.choose(12000, 300))
    if check.role:
        print("RATE", train_for(check, corpus, float(check.role)), flush=True)
        return
    make_real(check, "roberta-base", corpus.texts)
    for n in check.choose((1, 3, 5), (1, 2)):
        check.attempt(f"{n} side by side", run_beside, check, n)


def run_beside(check: Check, n: int) -> dict[str, int]:
    command = [*check.command, "--role", str(check.choose(8, 2))]
    env = {**os.environ, "OMP_NUM_THREADS": "2"}
    children = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) for _ in range(n)]
    said = [re.search(r"RATE (\S+)", child.communicate()[0]) for child in children]
    if not all(said):
        raise RuntimeError(f"{sum(each is None for each in said)} of {n} processes failed")
    return {"rows/s in sum": round(sum(float(each[1]) for each in said))}


def train_for(check: Check, corpus, seconds: float) -> float:
    """Rows/s of one process; all processes begin their clocks at the same full ten seconds."""
    from foldblend.learners.training.loop import build_fold, plan_steps, take_step

    folder = make_real(check, "roberta-base", corpus.texts)
    learner = build(settings("encoder", folder, training__global_batch_size=16), corpus)
    with scratch() as where:
        fold, state = build_fold(learner, fold_of(corpus, where, check.choose(1000, 50)))
        steps = plan_steps(learner, fold.rows, 0)
        for rows in steps[:5]:
            take_step(learner, fold, state, rows)
        wait()
        time.sleep(math.ceil(time.time() / 5 + 0.5) * 5 - time.time())
        started, n = time.perf_counter(), 0
        while time.perf_counter() - started < seconds:
            take_step(learner, fold, state, steps[n % len(steps)])
            n += 1
        wait()
        return n * 16 / (time.perf_counter() - started)


def part_generator(check: Check) -> None:
    """Qwen2.5-1.5B answers 28 labels, in lists and by yes or no."""
    corpus = make_corpus(check.choose(400, 120))
    folder = make_real(check, "qwen2.5-1.5b", corpus.texts)
    for form in ("list", "yes_no"):
        check.attempt(form, generator_speed, check, settings("generator", folder, answer__form=form), corpus)


def generator_speed(check: Check, run, corpus) -> dict[str, object]:
    from foldblend.learners.training.loop import build_fold, take_step

    learner = build(run, corpus)
    with scratch() as where:
        fold, state = build_fold(learner, fold_of(corpus, where, check.choose(128, 20)))
        rows = fold.rows.train[:16]
        seconds = seconds_per_call(lambda: take_step(learner, fold, state, rows), check.choose(10, 1))
        answered = fold.rows.heldout[: check.choose(128, 4)]
        started = time.perf_counter()
        learner.predict(fold.model, answered)
        wait()
        predicted = len(answered) / (time.perf_counter() - started)
    return {"rows/s": round(16 / seconds, 1), "predicted rows/s": round(predicted, 1), "peak GB": peak_gb()}


def part_goal(check: Check) -> None:
    """One of five folds, three epochs, roberta-base, by the learner itself: saves and predictions included."""
    for batch in check.choose((32, 128), (32,)):
        check.attempt(f"one fold, batch {batch}", train_goal, check, batch)
        free_memory()


def train_goal(check: Check, batch: int) -> dict[str, float]:
    corpus = make_corpus(check.choose(43000, 300), 100)
    folder = make_real(check, "roberta-base", corpus.texts)
    how = {"training__global_batch_size": batch, "training__epochs": check.choose(3, 1), "optimizer__lr": 2e-5}
    learner = build(settings("encoder", folder, **how), corpus)
    with scratch() as where:
        started = time.perf_counter()
        learner.train_fold(fold_of(corpus, where, len(corpus.labels) // 5))
        return {"seconds": round(time.perf_counter() - started, 1), "peak GB": peak_gb()}
