"""Which training options pay for MiniLM on GoEmotions, judged on held-out training rows over several seeds.

    python bench/minilm_options.py --rows 8000 --heldout 4000 --epochs 2 --seeds 1 2 3 --options base ema fgm

Only training rows are read: `--rows` of those outside fold 0 teach, `--heldout` of it judge. Macro-F1 uses thresholds
tuned on one half of the judging rows and used on the other, both ways round; macro average precision has none. Every
training is kept in bench/figures/minilm_options.json and not repeated.
"""

import argparse
import json
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT / "src"))

from foldblend.data.tables import load_tables  # noqa: E402
from foldblend.data.texts import clean_texts  # noqa: E402
from foldblend.files import write_atomically  # noqa: E402
from foldblend.learners.encoder import EncoderLearner  # noqa: E402
from foldblend.learners.table import Corpus, FoldRows  # noqa: E402
from foldblend.ledger.folds import load_folds  # noqa: E402
from foldblend.scoring.inputs import sigmoid  # noqa: E402
from foldblend.scoring.metrics.formulas import macro_ap, macro_f1  # noqa: E402
from foldblend.scoring.thresholds.robust import tune_robust_thresholds  # noqa: E402
from foldblend.settings.loading import load_competition, load_run  # noqa: E402
from foldblend.settings.paths import find_paths  # noqa: E402

RESULTS = PROJECT / "bench" / "figures" / "minilm_options.json"
ATTENTION, THREE_EPOCHS = {"model": {"pooling": "attention"}}, {"training": {"epochs": 3}}
EMOJI = {"cleaning": {"emoji_language": "en"}}
LABELS = {"model": {"pooling": "label_attention", "head_init": "label_names"}}
RARE = {"augmentation": {"oversample_factor": 1.0, "oversample_k_rarest": 8}}
NAMED = "label attention from names, fgm 0.5"
RARER = {"augmentation": {"oversample_factor": 1.0, "oversample_rarer_than": 0.015}}
LAST_4 = {"model": {"pooling": "concat_last", "concat_states": "mean"}}


def fgm(epsilon: float) -> dict:
    return {"adversarial": {"name": "fgm", "epsilon": epsilon}}


def head_lr(rate: float) -> dict:
    return {"optimizer": {"head_lr": rate}}


BEST = {**ATTENTION, **fgm(0.5), **head_lr(3e-3)}
TWICE = {**BEST, **RARER}
OPTIONS = {
    "base": {},
    "lr 1e-4": {"optimizer": {"lr": 1e-4}},
    "lr 2.5e-4": {"optimizer": {"lr": 2.5e-4}},
    "head lr 3e-3": head_lr(3e-3),
    "head lr 1e-2": head_lr(1e-2),
    "3 epochs": THREE_EPOCHS,
    "4 epochs": {"training": {"epochs": 4}},
    "batch 16": {"training": {"global_batch_size": 16}},
    "cosine": {"optimizer": {"schedule": "cosine"}},
    "layer decay 0.9": {"optimizer": {"layer_decay": 0.9}},
    "ema 0.99": {"training": {"ema_decay": 0.99}},
    "pos_weight 0.3": {"loss": {"pos_weight_power": 0.3}},
    "pos_weight 0.5": {"loss": {"pos_weight_power": 0.5}},
    "focal": {"loss": {"name": "focal"}},
    "asymmetric": {"loss": {"name": "asymmetric", "asymmetric_gamma_negative": 2.0}},
    "zlpr": {"loss": {"name": "zlpr"}},
    "smoothing 0.02": {"loss": {"label_smoothing": 0.02}},
    "head dropout 0.3": {"model": {"head_dropout": 0.3}},
    "5 dropout samples": {"model": {"dropout_samples": 5}},
    "attention pooling": ATTENTION,
    "first token": {"model": {"pooling": "cls"}},
    "max pooling": {"model": {"pooling": "max"}},
    "last 4 layers": LAST_4,
    "mlp head": {"model": {"head": "mlp"}},
    "distribution balanced": {"loss": {"name": "distribution_balanced"}},
    "soft macro-F1": {"loss": {"name": "soft_macro_f1"}},
    "token dropout 0.1": {"augmentation": {"token_dropout": 0.1}},
    "mixing 0.2": {"augmentation": {"mix_probability": 0.2}},
    "oversample rare": RARE,
    "fgm 0.5": fgm(0.5),
    "awp 0.001": {"adversarial": {"name": "awp", "epsilon": 0.001, "awp_lr": 0.1}},
    "r-drop 0.5": {"loss": {"r_drop_alpha": 0.5}},
    "emoji in words": EMOJI,
    "attention, 3 epochs": {**ATTENTION, **THREE_EPOCHS},
    "attention, 3 epochs, pos_weight 0.3": {**ATTENTION, **THREE_EPOCHS, "loss": {"pos_weight_power": 0.3}},
    "attention, 3 epochs, batch 16": {**ATTENTION, "training": {"epochs": 3, "global_batch_size": 16}},
    "attention, fgm 0.5, head lr 1e-3": {**ATTENTION, **fgm(0.5)},
    "attention, fgm 0.5, head lr 3e-3": BEST,
    "attention, fgm 0.5, head lr 1e-2": {**BEST, **head_lr(1e-2)},
    "attention, fgm 2, head lr 3e-3": {**BEST, **fgm(2.0)},
    "attention, fgm 0.5, head lr 3e-3, 3 epochs": {**BEST, **THREE_EPOCHS},
    "attention, fgm 0.5, head lr 3e-3, emoji": {**BEST, **EMOJI},
    "attention, fgm 0.5, head lr 3e-3, oversample rare": {**BEST, **RARE},
    "attention, fgm 0.5, head lr 3e-3, pos_weight 0.3": {**BEST, "loss": {"pos_weight_power": 0.3}},
    "attention, fgm 0.5, head lr 3e-3, smoothing 0.02": {**BEST, "loss": {"label_smoothing": 0.02}},
    "attention, fgm 0.5, head lr 3e-3, rare, smoothing": {**BEST, **RARE, "loss": {"label_smoothing": 0.02}},
    "attention, fgm 0.5, head lr 3e-3, mlp head": {**BEST, "model": {"pooling": "attention", "head": "mlp"}},
    "last 4 layers, fgm 0.5, head lr 3e-3": {**LAST_4, **fgm(0.5), **head_lr(3e-3)},
    "last 4 layers, fgm 0.5, head lr 1e-3": {**LAST_4, **fgm(0.5)},
    "last 4 layers, fgm 0.5, head lr 3e-3, rare, smoothing": {
        **LAST_4,
        **fgm(0.5),
        **head_lr(3e-3),
        **RARE,
        "loss": {"label_smoothing": 0.02},
    },
    "last 4 layers, fgm 0.5, head lr 3e-3, oversample rare": {**LAST_4, **fgm(0.5), **head_lr(3e-3), **RARE},
    "attention, fgm 0.5, head lr 3e-3, rarer than 1.5 %": TWICE,
    "attention from names, fgm 0.5, head lr 3e-3, rarer than 1.5 %": {
        **TWICE,
        "model": {"pooling": "attention", "head_init": "label_names"},
    },
    "label attention, fgm 0.5, head lr 3e-3, rarer than 1.5 %": {**TWICE, "model": {"pooling": "label_attention"}},
    f"{NAMED}, head lr 3e-3": {**BEST, **LABELS},
    f"{NAMED}, head lr 3e-3, rarer than 1.5 %": {**TWICE, **LABELS},
    f"{NAMED}, lr 2e-4, head lr 3e-3, rarer than 1.5 %": {
        **TWICE,
        **LABELS,
        "optimizer": {"lr": 2e-4, "head_lr": 3e-3},
    },
    f"{NAMED}, head lr 3e-3, rarer than 1.5 % thrice": {
        **TWICE,
        **LABELS,
        "augmentation": {"oversample_factor": 2.0, "oversample_rarer_than": 0.015},
    },
    "attention, fgm 0.5, head lr 3e-3, batch 16": {**BEST, "training": {"global_batch_size": 16}},
}
"""Changes by name to the plain run: mean pooling, lr 1.5e-4, head lr 1e-3, no adversary, and --epochs."""


def train(run, corpus: Corpus, rows: FoldRows) -> dict:
    """Train once, judge on the held-out rows."""
    started = time.monotonic()
    corpus = replace(corpus, texts=tuple(clean_texts(corpus.texts, run.cleaning)))
    logits = EncoderLearner(run, corpus).train_fold(rows).oof
    probs, labels = sigmoid(logits), corpus.labels[rows.heldout]
    decisions, half = np.empty(labels.shape, bool), np.arange(len(labels)) % 2 == 0
    for judged in (half, ~half):
        decisions[judged] = probs[judged] >= tune_robust_thresholds(probs[~judged], labels[~judged])
    scores = {"macro_f1": macro_f1(labels, decisions), "macro_ap": macro_ap(labels, probs)}
    return {**scores, "seconds": time.monotonic() - started}


def with_changes(run, changes: dict):
    """The run with some settings of some groups changed."""
    return replace(run, **{group: replace(getattr(run, group), **values) for group, values in changes.items()})


def choose_rows(n_rows: int, n_heldout: int) -> tuple[Corpus, np.ndarray, np.ndarray]:
    """The corpus and the rows that teach and that judge, drawn once; test rows are left out of the corpus."""
    paths = find_paths()
    competition = load_competition(paths, "goemotions")
    tables = load_tables(competition, paths.data("goemotions"))
    fold = load_folds(paths, "goemotions", tables, competition).fold
    rng = np.random.default_rng(0)
    taught, judged = (rng.permutation(np.flatnonzero(part)) for part in (fold != 0, fold == 0))
    corpus = Corpus((*tables.train_texts, "no test row"), tables.labels, tables.label_names, competition.task)
    return corpus, np.sort(taught[:n_rows]), np.sort(judged[:n_heldout])


def read_results() -> dict[str, dict]:
    return json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}


def report(results: dict, prefix: str) -> None:
    """Mean and standard deviation over seeds of each option, best first."""
    table = {}
    for key, value in results.items():
        if key.startswith(prefix):
            table.setdefault(key.removeprefix(prefix).rpartition(", seed ")[0], []).append(value)
    order = sorted(table, key=lambda name: -np.mean([value["macro_f1"] for value in table[name]]))
    print(f"{prefix}\n{'':36} {'macro-F1':>8} {'sd':>6} {'macro-AP':>9} {'sd':>6} {'seeds':>5} {'seconds':>8}")
    for name in order:
        f1, ap, seconds = (
            np.array([value[key] for value in table[name]]) for key in ("macro_f1", "macro_ap", "seconds")
        )
        spread = [f"{part.std(ddof=1):.4f}" if len(part) > 1 else "" for part in (f1, ap)]
        print(
            f"{name:36} {f1.mean():8.4f} {spread[0]:>6} {ap.mean():9.4f} {spread[1]:>6}"
            f" {len(f1):5} {seconds.mean():8.0f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=8000)
    parser.add_argument("--heldout", type=int, default=4000)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--options", nargs="+", default=list(OPTIONS), choices=list(OPTIONS))
    asked = parser.parse_args()
    corpus, taught, judged = choose_rows(asked.rows, asked.heldout)
    prefix = f"{len(taught)} rows, {len(judged)} held out, {asked.epochs} epochs: "
    plain = {
        "model": {"pooling": "mean", "head_init": "random"},
        "training": {"epochs": asked.epochs},
        "optimizer": {"lr": 1.5e-4, "head_lr": 1e-3},
        "adversarial": {"name": "none", "epsilon": 0.0},
        "augmentation": {"oversample_factor": 0.0, "oversample_rarer_than": 0.0},
    }
    base = with_changes(load_run(find_paths(), "minilm"), plain)
    for seed in asked.seeds:
        for option in asked.options:
            key = f"{prefix}{option}, seed {seed}"
            if key in read_results():
                continue
            with tempfile.TemporaryDirectory() as folder:
                run = with_changes(replace(base, seed=seed), OPTIONS[option])
                result = train(run, corpus, FoldRows(0, taught, judged, Path(folder)))
            # read again: a second process may have added its own
            write_atomically(RESULTS, json.dumps(read_results() | {key: result}, indent=0).encode())
            print(key, {name: round(value, 4) for name, value in result.items()}, flush=True)
    report(read_results(), prefix)


if __name__ == "__main__":
    main()
