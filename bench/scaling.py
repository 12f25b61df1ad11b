"""Rows a second, memory and use of the hardware against model size, text length and batch.

    python bench/scaling.py                                       # small encoders and LoRA on a small decoder, CPU
    python bench/scaling.py --device cuda --models roberta-base deberta-v3-large qwen2.5-1.5b qwen2.5-14b

Random weights of real configurations, texts of exactly so many tokens, optimiser steps of the training loop itself.
Each line runs in a process of its own, so that memory is its own. Model FLOPs a token are 6 a trained weight outside
the embeddings (Kaplan et al. 2020, arXiv:2001.08361, section 2.1), 4 a frozen one, whose own gradient is not computed,
and 12 x layers x width x length for attention; they are held against the rate of a large matrix product in the same
precision, measured in the same process.
"""

import argparse
import contextlib
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

LABELS = 28
WARM_STEPS, TIMED_STEPS = 2, 5
WORDS = ["the", "of", "and", "to", "in", "was", "he", "for", "it", "with", "as", "his", "on", "be", "at", "by", "had"]
CPU_MODELS = ["bert-3x384", "bert-6x384", "bert-12x768", "qwen-8x512"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--models", nargs="+", default=CPU_MODELS)
    parser.add_argument("--lengths", nargs="+", type=int, default=[16, 64, 256])
    parser.add_argument("--batches", nargs="+", type=int, default=[8, 32, 128])
    parser.add_argument("--most_tokens", type=int, default=8192, help="larger steps than this are left out")
    parser.add_argument("--moments", choices=["float32", "8bit"], default="float32", help="AdamW's")
    parser.add_argument("--child", nargs=5, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        measure(Path(args.child[0]), *args.child[1:])
        return
    print(
        "| model | trained / all M | tokens a text | rows a step | rows/s | tokens/s | TFLOP/s | of a product's | GB |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    hidden = {"CUDA_VISIBLE_DEVICES": ""} if args.device == "cpu" else {}
    for model in args.models:
        with tempfile.TemporaryDirectory() as folder:
            from train_speed_models import save_model

            save_model(model, Path(folder), WORDS)
            for length in args.lengths:
                for batch in args.batches:
                    if length * batch <= args.most_tokens:
                        command = [sys.executable, __file__, "--child", folder, model, str(length), str(batch)]
                        command += [args.moments]
                        subprocess.run(command, env={**os.environ, **hidden, "HF_HUB_OFFLINE": "1"}, check=True)


def measure(folder: Path, model: str, length: str, batch: str, moments: str) -> None:
    """One line of the table."""
    import torch
    from train_speed_models import MODELS

    from foldblend.learners.table import FoldRows, build_learner
    from foldblend.learners.training.loop import build_fold, take_step
    from foldblend.settings.run import ModelSettings, OptimizerSettings, RunSettings, TrainingSettings

    length, batch = int(length), int(batch)
    kind = MODELS[model][0]
    training = TrainingSettings(epochs=1, global_batch_size=batch, collapse_check_after_steps=0)
    settings = ModelSettings(
        name=str(folder), max_length_tokens=length, **({"pooling": "last"} if kind == "decoder" else {})
    )
    run = RunSettings(kind, model=settings, training=training, optimizer=OptimizerSettings(state_precision=moments))
    n_rows = batch * (WARM_STEPS + TIMED_STEPS)
    with contextlib.redirect_stdout(sys.stderr):  # where its weights come from is no line of the table
        learner = build_learner(run, make_corpus(n_rows, length))
    with tempfile.TemporaryDirectory() as scratch:
        fold, state = build_fold(learner, FoldRows(0, np.arange(n_rows), np.arange(1), Path(scratch)))
        wait = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None
        for step in range(WARM_STEPS + TIMED_STEPS):
            if step == WARM_STEPS:
                wait()
                started = time.perf_counter()
            take_step(learner, fold, state, np.arange(step * batch, (step + 1) * batch))
        wait()
        rate = batch * TIMED_STEPS / (time.perf_counter() - started)
    tokens = int(learner.tokens.lengths[0])
    flops = rate * tokens * flops_a_token(fold.model, tokens)
    peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else _resident()
    share = flops / product_rate(learner.accelerator.device, learner.precision)
    sizes = [sum(w.numel() for w in fold.model.parameters() if w.requires_grad or whole) / 1e6 for whole in (0, 1)]
    cells = [model, f"{sizes[0]:.1f} / {sizes[1]:.1f}", tokens, batch, f"{rate:.1f}", f"{rate * tokens:.0f}"]
    print(
        f"| {' | '.join(map(str, [*cells, f'{flops / 1e12:.3f}', f'{share:.0%}', f'{peak / 1e9:.2f}']))} |", flush=True
    )


def make_corpus(n_rows: int, length: int):
    """Texts of `length` tokens or more, which the learner cuts to that; a word is a token, or one and a space."""
    from foldblend.learners.table import Corpus

    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(WORDS, length - 2)) for _ in range(n_rows)]
    labels = rng.random((n_rows, LABELS)) < 0.1
    return Corpus((*texts, "the"), labels, tuple(f"label{i}" for i in range(LABELS)), "multilabel")


def flops_a_token(model, length: int) -> float:
    """Model FLOPs of one token's forward and backward pass."""
    config = next(m.config for m in model.modules() if hasattr(m, "config"))
    matrices = {id(m.weight): m.weight for m in model.modules() if hasattr(m, "in_features")}.values()
    products = sum((6 if weight.requires_grad else 4) * weight.numel() for weight in matrices)
    return products + 12 * config.num_hidden_layers * config.hidden_size * length


def product_rate(device, precision: str) -> float:
    """FLOP/s of 20 products of 8,192 x 8,192 matrices (a CPU: 2 of 2,048) in the precision of the training; the best
    of 5 times."""
    import torch

    side, n_products = (8192, 20) if device.type == "cuda" else (2048, 2)
    kind = {"bf16": torch.bfloat16, "fp16": torch.float16, "no": torch.float32}[precision]
    left = right = torch.randn(side, side, device=device).to(kind)
    seconds = []
    for _ in range(6):
        started = time.perf_counter()
        for _ in range(n_products):
            left @ right
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return n_products * 2 * side**3 / min(seconds[1:])


def _resident() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
