"""Parts of the check that say whether a GPU computes what a CPU does, and whether folds survive what happens there."""

import dataclasses
import importlib.metadata
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from inputs import ROOT, Check, build, fold_of, make_corpus, make_real, scratch, seconds_per_call, settings, wait

from foldblend.learners.table import FoldRows
from foldblend.settings.run import RunSettings

ENCODERS = ("bert", "distilbert", "electra", "roberta", "xlm-roberta", "camembert", "deberta-v2", "modernbert")
DECODERS = ("qwen2", "qwen3", "llama", "mistral", "gemma2", "gemma3_text", "gemma3")
NF4 = {"adapter__quantization": "nf4"}
STILL = {"adapter__dropout": 0.0}
EVERY_STEP = 1e-9
"""Minutes between checkpoints: one after every step."""

# 1. The machine

PACKAGES = ("torch", "transformers", "accelerate", "peft", "bitsandbytes", "tokenizers", "sentencepiece", "numpy")


def part_machine(check: Check) -> None:
    """Versions; the card; how fast it multiplies and copies; whether nf4 computes."""
    check.attempt("versions", lambda: {"python": sys.version.split()[0], **{name: version(name) for name in PACKAGES}})
    check.attempt("commands import", lambda: __import__("foldblend.commands.train") and None)
    if check.device == "cuda":
        check.attempt("card", describe_card)
        check.attempt("copies", time_copies)
        check.attempt("nf4", check_nf4)


def version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def describe_card() -> dict:
    import torch

    card = torch.cuda.get_device_properties(0)
    found = {"name": card.name, "GiB": round(card.total_memory / 2**30), "sm": f"{card.major}{card.minor}"}
    found |= {"bf16": torch.cuda.is_bf16_supported(including_emulation=False), "cores": len(os.sched_getaffinity(0))}
    for kind in (torch.bfloat16, torch.float16, torch.float32):
        left, right = (torch.randn(8192, 8192, device="cuda").to(kind) for _ in range(2))
        seconds = seconds_per_call(lambda left=left, right=right: left @ right, 10)
        found[f"{str(kind).removeprefix('torch.')} TFLOP/s"] = round(2 * 8192**3 / seconds / 1e12, 1)
    return found


def time_copies() -> dict[str, float]:
    """GB/s on the card, and from the card to ordinary and to pinned memory."""
    import torch

    here, there = (torch.empty(2**30, dtype=torch.uint8, device="cuda") for _ in range(2))
    part, pinned = here[: 2**28], torch.empty(2**28, dtype=torch.uint8).pin_memory()
    seconds = {
        "on the card": seconds_per_call(lambda: there.copy_(here), 10) / 8,
        "to ordinary memory": seconds_per_call(lambda: part.cpu(), 3),
        "to pinned memory": seconds_per_call(lambda: pinned.copy_(part), 3),
    }
    return {f"{name} GB/s": round(2**28 / each / 1e9, 1) for name, each in seconds.items()}


def check_nf4() -> dict[str, object]:
    """A 4-bit layer against the float32 one that it was made from: forward, and the gradient of its input."""
    import torch
    from bitsandbytes.nn import Linear4bit

    torch.manual_seed(0)
    whole = torch.nn.Linear(512, 512, bias=False)
    four = Linear4bit(512, 512, bias=False, compute_dtype=torch.bfloat16, quant_type="nf4")
    four.load_state_dict(whole.state_dict())
    four = four.cuda()
    texts = torch.randn(64, 512)
    found = {}
    for name, layer, given in (("whole", whole, texts), ("four", four, texts.cuda().bfloat16())):
        given = given.clone().requires_grad_()
        out = layer(given)
        out.float().square().sum().backward()
        found[name] = (out.detach().float().cpu(), given.grad.float().cpu())
    far = [float((a - b).norm() / b.norm()) for a, b in zip(found["four"], found["whole"])]
    return {"forward": round(far[0], 4), "gradient": round(far[1], 4), "verdict": verdict(max(far) < 0.25)}


def verdict(is_good: bool) -> str:
    return "ok" if is_good else "DIFFERS"


# 2. GPU = CPU


def part_parity(check: Check) -> None:
    """The same three steps on both, without dropout: a CPU's in float32 are the reference."""
    if check.role:
        np.savez(check.out / f"parity_{check.role}.npz", **take_steps(check))
        return
    sides = {"reference": {"CUDA_VISIBLE_DEVICES": ""}, "device": {}}
    children = [subprocess.Popen([*check.command, "--role", s], env={**os.environ, **e}) for s, e in sides.items()]
    statuses = [child.wait() for child in children]
    if any(statuses):
        raise SystemExit(f"parity: processes ended with {statuses}, see log.txt")
    files = [check.out / f"parity_{side}.npz" for side in sides]
    reference, found = (dict(np.load(file)) for file in files)
    for file in files:
        file.unlink()  # megabytes that nobody reads again
    for case in dict.fromkeys(key.split("|")[0] for key in [*reference, *found]):
        check.note(case, compare_sides(case, reference, found))


def take_steps(check: Check) -> dict[str, np.ndarray]:
    """Arrays by `case|what`: logits before, losses and norms, a sample of the first gradient, logits after."""
    kept = {}
    precision = "fp32" if check.role == "reference" or check.device == "cpu" else "bf16"
    for case, run in parity_cases(precision):
        if check.wants(case):
            try:
                found = three_steps(run)
            except Exception as error:  # one learner's failure is a finding; the others go on
                found = {"failed": np.array(f"{type(error).__name__}: {str(error)[:300]}")}
            kept |= {f"{case}|{what}": value for what, value in found.items()}
    return kept


def parity_cases(precision: str) -> Iterator[tuple[str, RunSettings]]:
    """Cases that end with `16 bits` compute in `precision`, all others in float32."""
    exact, rough = {"training__precision": "fp32"}, {"training__precision": precision}
    half = {"training__precision": "fp16" if precision == "bf16" else precision}
    yield "encoder roberta", settings("encoder", "roberta", **exact)
    yield "decoder qwen3", settings("decoder", "qwen3", **STILL, **exact)
    for form in ("list", "yes_no"):
        yield f"generator {form}", settings("generator", "qwen2", answer__form=form, **STILL, **exact)
    for kind in ENCODERS:
        if kind != "roberta":
            yield f"encoder {kind}", settings("encoder", kind, **exact)
    for kind in DECODERS:
        if kind != "qwen3":
            yield f"decoder {kind}", settings("decoder", kind, **STILL, **exact)
    for kind in ("roberta", "deberta-v2", "modernbert"):
        yield f"encoder {kind}, bf16, 16 bits", settings("encoder", kind, **rough)
    yield "decoder qwen3, bf16, 16 bits", settings("decoder", "qwen3", **STILL, **rough)
    yield "encoder roberta, fp16, 16 bits", settings("encoder", "roberta", **half)
    yield "decoder llama, nf4, 16 bits", settings("decoder", "llama", **STILL, **NF4, **exact)
    for name, changes in PARITY_OPTIONS.items():
        yield f"encoder roberta, {name}", settings("encoder", "roberta", **exact, **changes)


PARITY_OPTIONS = {
    "label attention from names": {"model__pooling": "label_attention", "model__head_init": "label_names"},
    "fgm": {"adversarial__name": "fgm", "adversarial__epsilon": 0.5},
    "awp": {"adversarial__name": "awp", "adversarial__epsilon": 0.01, "adversarial__awp_lr": 0.1},
    "balanced loss": {"loss__name": "distribution_balanced"},
    "zlpr, micro-batches": {"loss__name": "zlpr", "training__micro_batch_size": 4},
}


def three_steps(run: RunSettings) -> dict[str, np.ndarray]:
    """Three steps of the training loop's own gradients, without dropout."""
    from foldblend.learners.training.loop import build_fold, gather_gradients

    with scratch() as folder:
        learner, rows = learner_and_rows(run, 120, folder)
        fold, _ = build_fold(learner, rows)
        still(fold.model)
        found = {"before": learner.predict(fold.model, rows.heldout)}
        numbers = []
        for step in range(3):
            still(fold.model)
            numbers.append(float(gather_gradients(learner, fold, rows.train[16 * step : 16 * step + 16], [1, step], 0)))
            numbers.append(float(learner.accelerator.clip_grad_norm_(fold.model.parameters(), 1.0)))
            if step == 0:
                found["gradients"] = sample_gradients(fold.model)
            fold.optimizer.step()
            fold.optimizer.zero_grad()
        still(fold.model)
        return {**found, "losses": np.array(numbers), "after": learner.predict(fold.model, rows.heldout)}


def sample_gradients(model) -> np.ndarray:
    """float32, up to 256 elements of each trained tensor, in the order of the model."""
    kept = [weight.grad.detach().float().cpu().reshape(-1) for weight in model.parameters() if weight.grad is not None]
    return np.concatenate([flat[:: max(1, len(flat) // 256)].numpy() for flat in kept])


def still(model) -> None:
    """No dropout: masks are drawn by each device in its own way."""
    import torch

    model.eval()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        for name in ("dropout_prob", "attention_dropout"):  # of modules that call dropout as a function
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)


def compare_sides(case: str, reference: dict, found: dict) -> dict[str, object]:
    """Root mean square of each difference, in proportion to the reference."""
    failed = {side: str(each[f"{case}|failed"]) for side, each in (("CPU", reference), ("GPU", found))
              if f"{case}|failed" in each}  # fmt: skip
    if failed:
        return {"FAILED": failed}
    # The steps amplify what the roundings differ in, as AdamW divides by the gradient's size.
    limits = {"before": 5e-2, "gradients": 2e-1, "losses": 5e-2, "after": 2e-1}
    if not case.endswith("16 bits"):
        limits = {"before": 1e-4, "gradients": 2e-3, "losses": 1e-3, "after": 2e-2}
    far = {}
    for what in limits:
        here, there = (each[f"{case}|{what}"].astype(np.float64) for each in (reference, found))
        far[what] = float(np.sqrt(np.mean((here - there) ** 2)) / (1e-6 + np.sqrt(np.mean(here**2))))
    is_good = all(far[what] <= limit for what, limit in limits.items())
    return {"verdict": verdict(is_good), **{what: f"{value:.1e}" for what, value in far.items()}}


def learner_and_rows(run: RunSettings, n: int, folder: Path, task: str = "multilabel") -> tuple[object, FoldRows]:
    """A learner of texts that say their labels, and a fold of it."""
    import toy_corpus

    learner = build(run, toy_corpus.make_corpus(n, task=task))
    return learner, toy_corpus.fold_rows(learner.corpus, folder, 40)


# 3. Whole folds


def part_folds(check: Check) -> None:
    """Every learner trains, is killed, goes on, saves, is loaded again."""
    for case, run in fold_cases():
        check.attempt(case, whole_fold, run)
    check.attempt("encoder, one label per row", whole_fold, settings("encoder", "roberta"), "multiclass")


def fold_cases() -> Iterator[tuple[str, RunSettings]]:
    yield "encoder", settings("encoder", "roberta")
    yield "decoder, LoRA", settings("decoder", "qwen3")
    yield "generator, list", settings("generator", "qwen2")
    yield (
        "decoder, nf4, layers computed twice",
        settings("decoder", "qwen3", training__gradient_checkpointing=True, **NF4),
    )
    yield "generator, yes or no", settings("generator", "gemma2", answer__form="yes_no")
    yield "encoder, many options", settings("encoder", "roberta", **MANY_OPTIONS)
    yield "encoder, 8-bit optimizer", settings("encoder", "roberta", optimizer__state_precision="8bit")
    yield "encoder, deberta", settings("encoder", "deberta-v2")
    yield "decoder, DoRA", settings("decoder", "qwen3", adapter__dora=True)
    yield "decoder, PiSSA, biases", settings("decoder", "qwen2", adapter__init="pissa", adapter__bias="all")
    yield "decoder, prefix", settings("decoder", "qwen3", adapter__kind="prefix_tuning")
    yield "decoder, reads images too", settings("decoder", "gemma3")
    yield "decoder, trained whole", settings("decoder", "qwen3", adapter__kind="none")
    yield "generator, list, nf4", settings("generator", "llama", **NF4)


MANY_OPTIONS = {
    "adversarial__name": "fgm",
    "adversarial__epsilon": 0.5,
    "model__pooling": "label_attention",
    "model__head_init": "label_names",
    "training__ema_decay": 0.9,
    "loss__r_drop_alpha": 1.0,
    "training__gradient_checkpointing": True,
    "training__micro_batch_size": 8,
    "training__evaluations_per_epoch": 2,
    "training__selection": "loss_and_score",
}


def whole_fold(run: RunSettings, task: str = "multilabel") -> dict[str, object]:
    """Train; kill a second training at its seventh step and go on; predict with the saved fold."""
    run = dataclasses.replace(run, training=dataclasses.replace(run.training, checkpoint_every_minutes=EVERY_STEP))
    with scratch() as folder:
        learner, rows = learner_and_rows(run, 160, folder / "whole", task)
        whole = learner.train_fold(rows)
        loaded = learner.predict_fold(rows.checkpoint_dir)
        learner, rows = learner_and_rows(run, 160, folder / "killed", task)
        train_until(learner, rows, 7)
        resumed = learner_and_rows(run, 160, folder / "killed", task)[0].train_fold(rows)
    apart, again = (float(np.abs(a - b).max()) for a, b in ((whole.oof, resumed.oof), (loaded, whole.test)))
    # Kernels that add in another order each time make a resumed fold differ a little.
    allowed = 2e-2 * (1 + float(np.abs(whole.oof).max()))
    found = {"resumed": f"{apart:.1e}", "loaded": f"{again:.1e}", "score": round(next(iter(whole.score.values())), 3)}
    return {"verdict": verdict(apart <= 5 * allowed and again <= allowed), **found, "on": whole.device}


class Killed(BaseException):
    """Raised where a process would be killed."""


def train_until(learner, rows: FoldRows, step: int) -> None:
    """Train a fold that is killed before it takes this step, counted from 1; the steps before are saved."""
    from foldblend.learners.training import loop

    plain, taken = loop.take_step, []

    def take(*args):
        taken.append(None)
        if len(taken) == step:
            raise Killed
        plain(*args)

    loop.take_step = take
    try:
        learner.train_fold(rows)
        raise AssertionError(f"the fold ended before step {step}")
    except Killed:
        pass
    finally:
        loop.take_step = plain


def part_fp16(check: Check) -> None:
    """As on a T4, whose cores do not compute in bf16: fp16 with a loss scaler."""
    import torch

    torch.cuda.is_bf16_supported = lambda including_emulation=True: including_emulation
    for case, run in fp16_cases():
        check.attempt(case, whole_fold, run)
    if check.device == "cuda":
        check.attempt("a bf16 checkpoint goes on in fp16", go_on_in_fp16)


def fp16_cases() -> Iterator[tuple[str, RunSettings]]:
    yield "encoder", settings("encoder", "roberta")
    yield "decoder, LoRA", settings("decoder", "qwen3")
    yield "decoder, nf4", settings("decoder", "qwen3", **NF4)
    yield "encoder, deberta (float32)", settings("encoder", "deberta-v2")
    yield "decoder, gemma3", settings("decoder", "gemma3_text")
    yield "generator, nf4", settings("generator", "qwen2", **NF4)
    yield "encoder, awp", settings("encoder", "roberta", **PARITY_OPTIONS["awp"])


def go_on_in_fp16() -> str:
    """A fold that began on a card with bf16 goes on where there is none."""
    import torch

    run = settings("encoder", "roberta", training__checkpoint_every_minutes=EVERY_STEP)
    with scratch() as folder:
        without = torch.cuda.is_bf16_supported
        torch.cuda.is_bf16_supported = lambda including_emulation=True: True
        learner, rows = learner_and_rows(run, 160, folder)
        train_until(learner, rows, 4)
        torch.cuda.is_bf16_supported = without
        return learner_and_rows(run, 160, folder)[0].train_fold(rows).device


# 4. Memory, processes, the project's tests


def part_memory(check: Check) -> None:
    """Memory runs out: the step is taken in parts, then layers are computed twice."""
    check.attempt("roberta-base, 1,024 rows per step", run_out, check)


def run_out(check: Check) -> dict[str, object]:
    import torch

    from foldblend.learners.training.loop import build_fold, take_step

    n_rows = check.choose(1024, 64)
    corpus = make_corpus(check.choose(1500, 200))
    folder = make_real(check, "roberta-base", corpus.texts)
    learner = build(settings("encoder", folder, training__global_batch_size=n_rows, training__epochs=1), corpus)
    with scratch() as where:
        fold, state = build_fold(learner, fold_of(corpus, where, check.choose(300, 50)))
        rows = fold.rows.train[:n_rows]
        take_step(learner, fold, state, rows)
        if check.device == "cuda":
            wait()
            torch.cuda.empty_cache()
            held = torch.cuda.memory_allocated() / torch.cuda.get_device_properties(0).total_memory
            torch.cuda.set_per_process_memory_fraction(held + 0.02)  # a few GB more than weights and moments
        for _ in range(2):
            take_step(learner, fold, state, rows)
        logits = learner.predict(fold.model, fold.rows.heldout)
    most = fold.micro_batches.most_tokens
    is_good = bool(np.isfinite(logits).all()) and (most is not None or check.device == "cpu")
    return {"verdict": verdict(is_good), "most tokens at once": most, "twice": not fold.micro_batches.may_recompute}


def part_processes(check: Check) -> None:
    """Several processes train one fold, with the one card there is."""
    if check.role:
        train_together(check)
        return
    cases: dict[str, Callable[[], RunSettings]] = together_cases()
    for name in cases:
        for n in (1, 2):
            check.attempt(f"{name}, {n} processes", launch, check, name, n)


def together_cases() -> dict[str, Callable[[], RunSettings]]:
    return {"encoder": lambda: settings("encoder", "roberta"), "nf4": lambda: settings("decoder", "qwen3", **NF4)}


def launch(check: Check, name: str, n: int) -> dict[str, str]:
    """Returns what the first process says. Raises RuntimeError: a process failed."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(n)]
    # Without the first variable Accelerate refuses a quantised model in several processes.
    env = {**os.environ, "ACCELERATE_BYPASS_DEVICE_MAP": "true", "OMP_NUM_THREADS": "1"}
    with scratch() as folder:  # one for all: the first process writes what the others read
        command = [*torchrun, *check.command[1:], "--role", f"{name}={folder}"]
        limit = check.choose(40, 300)
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=limit, check=False)
    said = re.findall(r"TOGETHER (.*)", done.stdout)
    if done.returncode or not said:
        errors = re.findall(r"^(?:\[rank\d\]: *)?(\w[\w.]*Error: .*)", done.stderr, re.MULTILINE)
        raise RuntimeError(f"{n} processes: {errors[0] if errors else done.stderr[-300:]}")
    return {"on": said[0]}


def train_together(check: Check) -> None:
    """One of the processes."""
    from accelerate import PartialState

    from foldblend.learners.training import neural

    if os.environ["WORLD_SIZE"] != "1" and check.device == "cuda":
        neural.join_processes = lambda: PartialState(backend="gloo")  # NCCL refuses two processes on one card
    name, _, folder = check.role.partition("=")
    learner, rows = learner_and_rows(together_cases()[name](), 160, Path(folder))
    found = learner.train_fold(rows)
    if os.environ["RANK"] == "0":
        print("TOGETHER", found.device, found.score, flush=True)


def part_tests(check: Check) -> None:
    """The project's own tests with a GPU in sight."""
    files = check.choose(["tests/learners", "tests/queueing"], ["tests/learners/losses/test_losses.py"])
    options = ["-q", "-p", "no:cacheprovider", "--maxfail", "100", "-n", str(check.choose(12, 0))]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *files], cwd=ROOT, capture_output=True, text=True, check=False
    )
    lines = done.stdout.splitlines()
    check.note("summary", lines[-1] if lines else done.stderr[-300:])
    for line in [line for line in lines if line.startswith(("FAILED", "ERROR"))][:60]:
        check.note("test", line[:200])
