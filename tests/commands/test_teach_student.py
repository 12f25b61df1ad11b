"""From a blend to its student: what only models that saw a fold know does not raise the student's score on it."""

from dataclasses import replace

import numpy as np
from test_more_rows import K, N, accuracy, folds_of, riddles, run_yaml, text_of, train_all

from foldblend.commands import blend, teach
from foldblend.data.taught import read_taught, write_taught

__all__ = ["riddles"]  # the fixture


def test_a_student_learns_nothing_of_the_rows_it_is_scored_on(paths, riddles):
    """Each unlabelled text has the word of one training row, whose labels nothing else says.

    The teacher's models that saw the row know the answer. The student's score must stay that of guessing; with the
    sets exchanged, so that a fold learns from models that saw it, it rises far above that.
    """
    rng = np.random.default_rng(5)
    rows = [f"u{row},{text_of(row, rng, 12)}" for row in range(N)]
    (paths.data("riddles") / "new.csv").write_text("\n".join(["id,text", *rows, ""]))
    run_yaml(paths)
    train_all("words", "--fold", "all")
    blend.main(["--competition", "riddles", "--strategy", "words"])
    teach.main(["--competition", "riddles", "--from-blend", "--rows", "new.csv", "--name", "pseudo"])

    folds, tables = folds_of(paths)
    path = paths.data("riddles") / "pseudo.npz"
    taught = read_taught(path, "riddles", tables.label_names, folds.sha256, K)
    order = np.arange(K)[:, None] == folds.fold[None]  # (K, N): the row with the text's word is held out
    right = (taught.probs > 0.5) == riddles[None]
    assert right[~order].mean() > 0.8 and right[order].mean() < 0.7  # what the teacher knows, set by set

    run_yaml(paths, "extra_rows: [{file: pseudo.npz}]", "student")
    train_all("student", "--fold", "all")
    guessed = max(accuracy(paths, riddles, "student"))
    assert guessed < 0.65
    write_taught(path, "riddles", replace(taught, probs=np.roll(taught.probs, 1, axis=0)))
    run_yaml(paths, "extra_rows: [{file: pseudo.npz}]", "cheat")
    train_all("cheat", "--fold", "all")
    assert min(accuracy(paths, riddles, "cheat")) > guessed + 0.1
