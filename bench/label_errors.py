"""Planted label errors in GoEmotions, and how many the top of a list of probable errors holds.

    python bench/label_errors.py              # pip install cleanlab, to see its list beside ours

In 5 % of the training rows a label is replaced by another one (half of them), added, or dropped. A tf-idf model is
trained on these labels with the folds of $FOLDBLEND_SHARED/bench, so that it has learned from the errors, as a user's
has. The second pair of figures is of three real runs of that folder, which were trained on the labels as they were. A
list is as long as errors were planted; GoEmotions has real errors, too, so no list can be all planted ones.
"""

import argparse
import os

import numpy as np
from blend_data import load_bench, shared_folder
from scipy.sparse import csr_array
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from foldblend.scoring.inputs import sigmoid
from foldblend.scoring.validation.decided import find_suspects

SHARE = 0.05
ENSEMBLE = ("minilm_ft", "nbsvm", "word_lr")


def plant(labels: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Labels bool (N, L) with errors, and the rows that have one, bool (N,)."""
    wrong, planted = labels.copy(), np.zeros(len(labels), bool)
    for row in rng.permutation(len(labels))[: int(SHARE * len(labels))]:
        given, others = np.flatnonzero(labels[row]), np.flatnonzero(~labels[row])
        kind = rng.random()
        if kind < 0.75:
            wrong[row, rng.choice(others)] = True
        if kind < 0.5 or kind >= 0.75:
            wrong[row, rng.choice(given)] = False
        planted[row] = True
    return wrong, planted


def train(texts: list[str], labels: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """Out-of-fold probabilities float32 (N, L) of a logistic regression per label on words and pairs of words."""
    probs = np.zeros(labels.shape, np.float32)
    for k in range(int(fold.max()) + 1):
        seen, held = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
        vectorizer = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True)
        features = csr_array(vectorizer.fit_transform([texts[row] for row in seen]))
        new = vectorizer.transform([texts[row] for row in held])
        for label in range(labels.shape[1]):
            model = LogisticRegression(C=2, solver="liblinear", max_iter=50).fit(features, labels[seen, label])
            probs[held, label] = model.predict_proba(new)[:, 1]
    return probs


def lists(labels: np.ndarray, probs: np.ndarray) -> dict[str, np.ndarray]:
    """Name of a method -> rows, the most doubtful first."""
    found = {"report.py": find_suspects(labels, probs, "multilabel").order}
    given = np.where(labels, -np.log(np.maximum(probs, 1e-7)), -np.log(np.maximum(1 - probs, 1e-7)))
    found["log loss of the row"] = np.argsort(-given.sum(axis=1), kind="stable")
    try:
        from cleanlab.multilabel_classification import get_label_quality_scores
    except ImportError:
        print("cleanlab is not installed: pip install cleanlab")
        return found
    listed = [np.flatnonzero(row).tolist() for row in labels]
    found["cleanlab, default"] = np.argsort(get_label_quality_scores(listed, probs.astype(np.float64)), kind="stable")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    bench = load_bench()
    lines = (shared_folder() / "data" / "goemotions" / "train.tsv").read_text(encoding="utf-8").splitlines()
    texts = [line.split("\t")[0] for line in lines]
    labels, planted = plant(bench.labels, np.random.default_rng(given.seed))
    together = np.mean([bench.oof[bench.runs.index(name)] for name in ENSEMBLE], axis=0)
    sources = {
        "tf-idf, trained on the errors": train(texts, labels, bench.fold),
        f"{', '.join(ENSEMBLE)}, trained without them": sigmoid(together.astype(np.float32)),
    }
    n = int(planted.sum())
    print(f"{n:,} of {len(planted):,} rows have a planted error")
    for source, probs in sources.items():
        print(f"{source}:")
        for name, order in lists(labels, probs).items():
            hits = planted[order]
            found = f"first 500: {hits[:500].mean():.3f} planted; first {n:,}: {hits[:n].sum() / n:.3f} of all planted"
            print(f"  {name:20}  {found}")


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
