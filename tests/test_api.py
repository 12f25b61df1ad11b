"""The Python API: the same numbers as the commands, tables in any form, and clear refusals."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import foldblend
from foldblend.errors import UserError

PROJECT = Path(__file__).resolve().parents[1]
NAMES = ["joy", "sadness", "anger"]


def make_runs(n, rng, labels=None, n_names=3):
    """Labels (n, L), and two runs' probabilities that know something of them."""
    labels = rng.random((n, n_names)) < 0.3 if labels is None else labels
    runs = {}
    for name, noise in (("tfidf", 2.0), ("minilm", 1.2)):
        logits = 3 * labels - 2 + noise * rng.normal(size=labels.shape)
        runs[name] = (1 / (1 + np.exp(-logits))).astype(np.float32)
    return labels.astype(int), runs


@pytest.fixture(scope="module")
def made():
    """Labels, folds, OOF tables, and test tables."""
    rng = np.random.default_rng(0)
    labels, oof = make_runs(400, rng)
    _, test = make_runs(120, rng)
    return labels, np.arange(400) % 4, oof, test


@pytest.fixture(scope="module")
def result(made):
    labels, folds, oof, test = made
    return foldblend.blend(oof, labels, folds, test)


def test_neither_torch_nor_kaggle_is_imported(tmp_path):
    code = (
        "import sys, numpy as np, foldblend\n"
        "assert 'numpy' in sys.modules and 'scipy' not in sys.modules\n"
        "rng = np.random.default_rng(0); labels = rng.random((90, 2)) < 0.4\n"
        "folds = foldblend.make_folds([f'text number {i}' for i in range(90)], labels, n_folds=3)\n"
        "foldblend.blend({'a': rng.random((90, 2)), 'b': rng.random((90, 2))}, labels, folds)\n"
        "print([name for name in ('torch', 'kaggle', 'transformers', 'jsonargparse') if name in sys.modules])\n"
    )
    env = {"PYTHONPATH": str(PROJECT / "src")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=env)
    assert done.stdout == "[]\n", done.stderr


def test_every_name_is_exported_and_no_other():
    assert set(foldblend.__all__) <= set(dir(foldblend))
    assert all(callable(getattr(foldblend, name)) for name in foldblend.__all__)
    with pytest.raises(AttributeError, match="no attribute 'blnd'"):
        foldblend.blnd  # noqa: B018


def test_folds_are_those_of_the_command(paths, toy_competition):
    from foldblend.commands import make_folds

    make_folds.main(["--competition", "toy"])
    train = pd.read_csv(paths.data("toy") / "train.csv", keep_default_na=False)
    drawn = foldblend.make_folds(train["text"], train[NAMES], n_folds=3, near_duplicates=1.0)
    assert drawn.tolist() == pd.read_csv(paths.folds("toy"))["fold"].tolist()


def test_a_blend_is_that_of_the_commands_arithmetic(made, result):
    """Decisions are the chosen formula's, the scores those of the report."""
    labels, folds, oof, test = made
    assert result.decisions.shape == (120, 3) and result.decisions.dtype == bool
    assert result.decisions.tolist() == (result.probs >= result.thresholds).tolist() == result.apply(test).tolist()
    assert 0.5 < result.score <= result.in_sample + 0.02 and result.interval[0] < result.expected < result.interval[1]
    assert list(result.weights.columns) == ["tfidf", "minilm"] and len(result.weights) == 3
    assert list(result.table.index[:1]) == [result.name] or result.table["chosen"].eq(">").sum() == 1


def test_it_beats_or_equals_every_single_run(made, result):
    table = result.table
    singles = [name for name in table.index if name.split(" + ")[0] in ("tfidf", "minilm")]
    assert result.score >= table.loc[singles, "cross_fitted"].max() - 0.01


def test_frames_are_aligned_by_columns_and_index(made, result):
    labels, folds, oof, test = made
    ids = [f"r{i}" for i in range(len(labels))]
    rng = np.random.default_rng(1)

    def shuffled(values, index):
        frame = pd.DataFrame(values, columns=NAMES, index=index)
        return frame[["anger", "joy", "sadness"]].sample(frac=1, random_state=int(rng.integers(99)))

    tests = [f"t{i}" for i in range(120)]
    frames = {name: shuffled(table, ids) for name, table in oof.items()}
    test_frames = {name: shuffled(table, tests) for name, table in test.items()}
    truth = pd.DataFrame(labels, columns=NAMES, index=ids)
    other = foldblend.blend(frames, truth, pd.Series(folds, index=ids).sample(frac=1, random_state=3), test_frames)
    assert list(other.decisions.columns) == NAMES and sorted(other.decisions.index) == sorted(tests)
    assert other.decisions.loc[tests].to_numpy().tolist() == result.decisions.tolist()
    assert other.score == result.score and other.table.equals(result.table)


def test_fold_models_of_the_test_rows_say_what_averaging_gains(made, quick_blends):
    labels, folds, oof, test = made
    rng = np.random.default_rng(2)
    each = {name: np.clip(table + 0.1 * rng.normal(size=(4, 120, 3)), 0, 1) for name, table in test.items()}
    result = foldblend.blend(oof, labels, folds, each)
    assert "Expected on the test set, 4-fold average:" in repr(result)
    assert result.decisions.shape == (120, 3)
    one = foldblend.blend(oof, labels, folds, {name: table.mean(axis=0) for name, table in each.items()})
    assert "4-fold average" not in repr(one)


def test_logits_are_the_probabilities_they_stand_for(made, result):
    labels, folds, oof, test = made
    to_logits = lambda table: np.log(table / (1 - table))  # noqa: E731
    oof, test = ({name: to_logits(table) for name, table in tables.items()} for tables in (oof, test))
    other = foldblend.blend(oof, labels, folds, test, kind="logits")
    assert other.name == result.name and (other.decisions == result.decisions).mean() > 0.99


def test_a_metric_of_probabilities_answers_with_them(made):
    labels, folds, oof, test = made
    result = foldblend.blend(oof, labels, folds, test, metric="macro_auc")
    assert result.thresholds is None and result.decisions.dtype == np.float32
    assert result.decisions.tolist() == result.probs.tolist()


def test_a_loss_is_shown_on_its_own_scale(made):
    labels, folds, oof, test = made
    result = foldblend.blend(oof, labels, folds, test, metric="log_loss")
    assert 0 < result.score < 1 and result.interval[0] < result.expected < result.interval[1]
    assert result.table["cross_fitted"].is_monotonic_increasing


def test_one_label_per_row(quick_blends):
    rng = np.random.default_rng(4)
    labels = np.eye(3, dtype=int)[rng.integers(0, 3, 300)]
    _, oof = make_runs(300, rng, labels.astype(bool))
    oof = {name: table / table.sum(axis=1, keepdims=True) for name, table in oof.items()}
    result = foldblend.blend(oof, labels, np.arange(300) % 3, oof, metric="accuracy", task="multiclass")
    assert (result.decisions.sum(axis=1) == 1).all() and result.thresholds is None
    with pytest.raises(UserError, match="labels of row 0 hold 0 ones; task multiclass expects one per row"):
        foldblend.blend(oof, 0 * labels, np.arange(300) % 3, metric="accuracy", task="multiclass")


def test_groups_are_never_separated(made, quick_blends):
    """Copies of a row, in one fold: repeated splits separate them unless they are named as a group."""
    labels, folds, oof, _ = made
    twice = {name: np.concatenate([table, table]) for name, table in oof.items()}
    both, group = np.concatenate([labels, labels]), np.concatenate([np.arange(400)] * 2)
    result = foldblend.blend(twice, both, np.concatenate([folds, folds]), groups=group, strategy="mean_probs")
    alone = foldblend.blend(twice, both, np.concatenate([folds, folds]), strategy="mean_probs")
    assert result.in_sample == alone.in_sample and not result.table.equals(alone.table)
    with pytest.raises(UserError, match=r"groups are \(3,\); expected \(800,\)"):
        foldblend.blend(twice, both, np.concatenate([folds, folds]), groups=[0, 1, 2])


def test_without_test_rows_new_rows_are_answered_later(made, result):
    labels, folds, oof, test = made
    later = foldblend.blend(oof, labels, folds)
    assert later.decisions is None and later.probs is None and later.score == result.score
    assert later.apply(test).tolist() == result.decisions.tolist()
    assert later.apply({name: table[:1] for name, table in test.items()}).tolist() == result.decisions[:1].tolist()


def test_a_strategy_can_be_named(made):
    labels, folds, oof, test = made
    result = foldblend.blend(oof, labels, folds, test, strategy="mean_probs")
    assert result.name.startswith("mean_probs") and np.allclose(result.weights, 0.5)
    with pytest.raises(UserError, match="mean_prob"):
        foldblend.blend(oof, labels, folds, test, strategy="mean_prob")


def test_a_notebook_shows_the_table(result):
    text, html = repr(result), result._repr_html_()
    assert max(map(len, text.splitlines())) <= 80
    assert "Honest CV score, choice included: " in text and f"{result.score:.4f}" in text
    assert html.count("<table") == 1 and "Honest CV score" in html and "mean_probs" in html
    assert "<script" not in html and "&gt;" in html


def test_what_is_shown_is_escaped(made):
    labels, folds, oof, _ = made
    html = foldblend.blend({"<b>run</b>": oof["tfidf"]}, labels, folds)._repr_html_()
    assert "<b>run" not in html and "&lt;b&gt;run" in html


def test_thresholds(made):
    labels, _, oof, _ = made
    exact = foldblend.tune_thresholds(oof["tfidf"], labels, tuning="exact")
    robust = foldblend.tune_thresholds(pd.DataFrame(oof["tfidf"]), pd.DataFrame(labels))
    assert exact.shape == robust.shape == (3,) and exact.dtype == np.float32
    best = foldblend.score(labels, oof["tfidf"] >= exact)
    assert best >= foldblend.score(labels, oof["tfidf"] >= robust) > foldblend.score(labels, oof["tfidf"] >= 0.9)
    example = foldblend.tune_thresholds([[0.2], [0.6], [0.9]], [[0], [1], [1]], tuning="exact")
    assert example.tolist() == pytest.approx([0.4])


def test_scores_are_sklearns(made):
    from sklearn.metrics import f1_score, roc_auc_score

    labels, _, oof, _ = made
    decided = oof["minilm"] >= 0.5
    assert foldblend.score(labels, decided) == pytest.approx(f1_score(labels, decided, average="macro"))
    assert foldblend.score(labels, decided.astype(float), "micro_f1") == pytest.approx(
        f1_score(labels, decided, average="micro")
    )
    assert foldblend.score(labels, oof["minilm"], "macro_auc") == pytest.approx(
        roc_auc_score(labels, oof["minilm"], average="macro")
    )


LABELS, PROBS, FOLDS = np.eye(4, dtype=int)[np.arange(24) % 4], np.full((24, 4), 0.5), np.arange(24) % 3
FRAME = pd.DataFrame(LABELS, columns=list("abcd"))
REFUSED = [
    (({}, LABELS, FOLDS), "no runs: oof is empty"),
    (({"a": PROBS[:20]}, LABELS, FOLDS), r"oof of run a: shape \(20, 4\); expected \(24, 4\)"),
    (({"a": PROBS + 3}, LABELS, FOLDS), "probabilities outside .*Are these logits?"),
    (({"a": PROBS * np.nan}, LABELS, FOLDS), "96 values are not finite"),
    (({"a": PROBS}, LABELS * 0.5, FOLDS), "labels hold other values than 0 and 1"),
    (({"a": PROBS}, LABELS.argmax(axis=1), FOLDS), r"labels have shape \(24,\); expected \(rows, labels\)"),
    (({"a": PROBS}, LABELS, FOLDS[:-1]), r"folds are \(23,\); expected \(24,\) of whole numbers 0 to K-1"),
    (({"a": PROBS}, LABELS, FOLDS + 1), "of whole numbers 0 to K-1, each in use"),
    (({"a": PROBS}, LABELS, FOLDS, {"b": PROBS}), "test predictions missing of run a"),
    (({"a": PROBS}, LABELS, FOLDS, {"a": PROBS[:, :3]}), r"test of run a: shape \(24, 3\); expected \(n, 4\)"),
    (({"a": PROBS}, LABELS, FOLDS, None, "macro_f9"), "metric 'macro_f9' is unknown; did you mean 'macro_f"),
    (({"mean_probs": PROBS}, LABELS, FOLDS), "run mean_probs is named like a strategy"),
    (({"a": FRAME.rename(columns={"d": "e"})}, FRAME, FOLDS), r"missing \['d'\], not a label \['e'\]"),
    (({"a": FRAME.set_index(FRAME.index + 1)}, FRAME, FOLDS), "oof of run a: another index than"),
]


@pytest.mark.parametrize("given, message", REFUSED, ids=range(len(REFUSED)))
def test_what_does_not_fit_is_refused(given, message):
    with pytest.raises(UserError, match=message):
        foldblend.blend(*given)


def test_other_refusals():
    with pytest.raises(UserError, match="texts and labels differ in length: 3 texts, 24 rows of labels"):
        foldblend.make_folds(["a", "b", "c"], LABELS)
    with pytest.raises(UserError, match="metric macro_f1 scores decisions: answer holds other values than 0 and 1"):
        foldblend.score(LABELS, PROBS)
    with pytest.raises(UserError, match="metric macro_auc scores probabilities: it has no thresholds to tune"):
        foldblend.tune_thresholds(PROBS, LABELS, "macro_auc")
    with pytest.raises(UserError, match="tuning is 'best'; expected robust or exact"):
        foldblend.tune_thresholds(PROBS, LABELS, tuning="best")


def test_ranked_lists_and_groups_of_rows(quick_blends):
    """MAP@k of one label per row, with labels that a row cannot have; AUC averaged over groups."""
    rng = np.random.default_rng(3)
    truth = np.eye(6, dtype=int)[rng.integers(0, 6, 300)]
    _, runs = make_runs(300, rng, truth, n_names=6)
    possible = (rng.random(truth.shape) < 0.5) | (truth == 1)
    options = {"metric": "map_at_3", "task": "multiclass"}
    plain = foldblend.blend(runs, truth, np.arange(300) % 5, runs, **options)
    limited = foldblend.blend(
        runs, truth, np.arange(300) % 5, runs, candidates=possible, test_candidates=possible, **options
    )
    assert limited.score > plain.score + 0.02 and "map_at_3" in repr(limited)
    assert (limited.decisions[~possible] == 0).all() and (limited.decisions[possible] > 0).all()
    assert foldblend.score(truth, limited.decisions, "map_at_3", "multiclass") > limited.score - 0.05
    assert np.array_equal(limited.apply(runs, possible), limited.decisions)
    groups = np.array(["a", "b", "c"])[rng.integers(0, 3, 300)]
    shifted = runs["minilm"] / (1 + (groups == "b"))[:, None]  # the order within a group stays
    ours, theirs = (foldblend.score(truth, probs, "group_auc", metric_by=groups) for probs in (runs["minilm"], shifted))
    assert ours == pytest.approx(theirs) and ours > foldblend.score(truth, shifted, "macro_auc")
    result = foldblend.blend(runs, truth, np.arange(300) % 5, metric="group_auc", metric_by=groups)
    assert result.score >= foldblend.score(truth, runs["minilm"], "group_auc", metric_by=groups) - 0.01
    with pytest.raises(UserError, match="metric map_at_k has no number: write how many labels a list has, as map_at_3"):
        foldblend.score(truth, runs["tfidf"], "map_at_k")
    with pytest.raises(UserError, match=r"metric_by is nothing; metric group_auc needs the group of each row, \(300,"):
        foldblend.blend(runs, truth, np.arange(300) % 5, metric="group_auc")
    with pytest.raises(UserError, match="candidates: 1 rows have none; expected at least one label per row"):
        foldblend.blend(runs, truth, np.arange(300) % 5, candidates=possible & (np.arange(300) > 0)[:, None], **options)
