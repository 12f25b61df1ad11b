"""The toy competition trained and blended, once a session, for several test files."""

import shutil

import numpy as np

from foldblend.commands import blend, train
from foldblend.ledger.oof import run_folder

RUNS = {
    "words": "learner: tfidf\n",
    "ratios": "learner: nbsvm\ncleaning: {{urls: true}}\n",
    "frozen": "learner: embeddings\nembeddings: {{name: {bert}}}\n",
    "tiny": (
        "learner: encoder\nmodel: {{name: {bert}}}\noptimizer: {{lr: 5e-3, head_lr: 5e-3}}\n"
        "training: {{epochs: 2, global_batch_size: 6, precision: fp32}}\n"
    ),
    "adapted": (
        "learner: decoder\nmodel: {{name: {decoder}, pooling: last}}\noptimizer: {{lr: 1e-3, head_lr: 5e-3}}\n"
        "training: {{epochs: 1, global_batch_size: 6, precision: fp32}}\n"
    ),
}


def blend_once(paths, kept, names, **models):
    """Train these runs and blend them by a stack, which looks at all of them, or copy what was made so before.

    Args:   kept: a folder that outlives the test.   models: the folders that the patterns in RUNS name.
    Returns: the submission's .json.
    """
    made = kept / "-".join(names)
    if not made.exists():
        for name in names:
            (paths.configs / "runs" / f"{name}.yaml").write_text(RUNS[name].format(**models))
            train.main(["--competition", "toy", "--run", name, "--fold", "all"])
        blend.main(["--competition", "toy", "--runs", *names, "--strategy", "cross_label_stack"])
        shutil.copytree(paths.root, made)
    shutil.copytree(made, paths.root, dirs_exist_ok=True)
    return next(paths.submissions("toy").glob("*.json"))


def stored_test(paths, run, fold):
    """The test predictions of a fold, as they lie in oof/."""
    with np.load(run_folder(paths, "toy", run) / f"fold{fold}.npz", allow_pickle=False) as file:
        return file["test"]
