"""The command as a user runs it: a made-up competition in a root of its own, runs in oof/, a CSV at the end."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from small_competition import N_ROWS, N_TEST, write_competition, write_runs

from foldblend.commands import guard
from foldblend.ledger.records import write_record
from foldblend.ledger.submissions import write_submission

PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture
def small(paths):
    write_runs(paths, write_competition(paths))
    return paths


def run_blend(*flags) -> str:
    from foldblend.commands import blend

    return guard(lambda: blend.main(["--competition", "small", *flags]))


def only_csv(paths) -> Path:
    (path,) = paths.submissions("small").glob("*.csv")
    return path


def test_a_submission_its_record_and_what_is_printed(small, capsys):
    assert run_blend() == 0
    shown, path = capsys.readouterr().out, only_csv(small)
    for word in (
        "in-sample",
        "cross-fitted",
        "Chosen: ",
        "Expected on the test set, 5-fold average",
        "best single run",
    ):
        assert word in shown
    assert shown.strip().endswith(f'-c small -f submissions/small/{path.name} -m "{path.stem}"')
    lines = shown.splitlines()
    assert max(map(len, lines[: lines.index(f"submissions/small/{path.name}")])) <= 80
    lines = path.read_text().splitlines()
    assert lines[0] == "id,joy,fear,anger"
    assert [line.split(",")[0] for line in lines[1:]] == [f"t{row}" for row in reversed(range(N_TEST))]
    record = json.loads(path.with_suffix(".json").read_text())
    assert record["runs"] == ["run0", "run1"]
    report = record["report"]
    assert report["expected_one_fold"]["low"] < report["cross_fitted"] < report["expected_one_fold"]["high"]
    assert sum("fold" in name for name in record["inputs"]) == 1 + 2 * 2 * 5  # folds.csv; .npz and .json of each fold


def test_from_a_record_comes_the_identical_csv_and_a_second_start_makes_the_same(small, capsys):
    assert run_blend("--reestimate_priors") == 0
    path = only_csv(small)
    data = path.read_bytes()
    path.unlink()
    from foldblend.commands import blend

    assert guard(lambda: blend.main(["--from", str(path.with_suffix(".json"))])) == 0  # no --competition needed
    assert path.read_bytes() == data
    assert run_blend("--reestimate_priors") == 0
    assert only_csv(small).read_bytes() == data


def test_from_a_record_whose_inputs_changed_is_refused(small, capsys):
    assert run_blend() == 0
    path = only_csv(small)
    write_runs(small, np.random.default_rng(5).normal(size=(N_ROWS + N_TEST, 3)))
    assert run_blend("--from", str(path.with_suffix(".json"))) == 2
    assert "10 of its inputs changed" in capsys.readouterr().err.replace("20 of", "10 of")


def test_a_forced_strategy_and_an_unknown_one(small, capsys):
    assert run_blend("--strategy", "mean_logits") == 0
    assert "Chosen: mean_logits, robust thresholds" in capsys.readouterr().out
    assert run_blend("--strategy", "magic") == 2
    assert "unknown --strategy magic. There are: run0 + robust" in capsys.readouterr().err


def test_the_spread_over_seeds_is_shown_where_runs_are_compared(paths, capsys):
    write_runs(paths, write_competition(paths), (0.5, 0.6, 0.7), settings_of_seeds)
    assert run_blend() == 0
    lines = capsys.readouterr().out.splitlines()
    table = [line.lstrip("> ").split() for line in lines]
    for tuning in {line.split(" seeds of run0, ")[1].split(":")[0] for line in lines if " seeds of " in line}:
        scores = [
            float(words[3]) for words in table if words[:1] in (["run0"], ["run1"], ["run2"]) and words[1] == tuning
        ]
        line = next(line for line in lines if f"3 seeds of run0, {tuning}: " in line)
        mean, sd = (float(word.rstrip(",")) for word in (line.split()[-3], line.split()[-1]))
        assert mean == pytest.approx(np.mean(scores), abs=1e-4) and sd == pytest.approx(
            np.std(scores, ddof=1), abs=2e-4
        )
    assert sum(" seeds of " in line for line in lines) >= 1


def settings_of_seeds(number):
    return {"settings": {"learner": "encoder", "seed": number, "training": {"epochs": 2}}}


def three_seeds_and_another(number):
    return settings_of_seeds(number) if number < 3 else {"settings": {"learner": "tfidf", "seed": 1}}


def test_the_mean_of_seeds_is_blended_as_one_run(paths, capsys):
    write_runs(paths, write_competition(paths), (0.9, 1.2, 0.9, 0.5), three_seeds_and_another)
    assert run_blend("--group_seeds") == 0
    shown, path = capsys.readouterr().out, only_csv(paths)
    assert "run0 (3 seeds): the mean of run0, run1, run2" in shown and " seeds of run0" not in shown
    table = [line.lstrip("> ") for line in shown.splitlines()]
    assert any(line.startswith("run0 (3 seeds)") for line in table) and any(line.startswith("run3 ") for line in table)
    assert not any(line.startswith("run1 ") for line in table)
    record = json.loads(path.with_suffix(".json").read_text())
    assert record["runs"] == ["run0", "run1", "run2", "run3"] and record["recipe"]["groups"] == [[0, 1, 2], [3]]
    data = path.read_bytes()
    path.unlink()
    assert run_blend("--from", str(path.with_suffix(".json"))) == 0
    assert path.read_bytes() == data


def test_the_mean_of_seeds_alone_is_the_mean_of_their_scores(paths, capsys):
    write_runs(paths, write_competition(paths), (0.9, 1.2, 0.9, 0.5), three_seeds_and_another)
    assert run_blend("--group_seeds", "--runs", "run0", "run1", "run2", "--strategy", "run0 (3 seeds) + robust") == 0
    grouped = only_csv(paths).read_bytes()
    only_csv(paths).unlink()
    assert run_blend("--runs", "run0", "run1", "run2", "--strategy", "mean_logits + robust") == 0
    equal = [path for path in paths.submissions("small").glob("*.csv") if path.read_bytes() == grouped]
    assert equal


def test_group_seeds_without_siblings_says_so(small, capsys):
    assert run_blend("--group_seeds") == 0
    assert "--group_seeds changes nothing" in "".join(capsys.readouterr())


def test_runs_that_differ_in_more_than_their_seed_are_no_seeds_of_one_another(paths, capsys):
    record = lambda number: {"settings": {"learner": "encoder", "seed": number, "epochs": number}}  # noqa: E731
    write_runs(paths, write_competition(paths), record=record)
    assert run_blend() == 0
    assert " seeds of " not in capsys.readouterr().out


def test_chosen_runs_and_one_that_chose_on_its_held_out_rows(paths, capsys):
    write_runs(paths, write_competition(paths), record={"selected_on_heldout": True})
    assert run_blend("--runs", "run1") == 0
    shown = capsys.readouterr().out
    assert "selected on its held-out rows" in shown
    assert "run0" not in shown


@pytest.mark.parametrize(
    "metric, form, task",
    [("macro_auc", "probabilities", "multilabel"), ("log_loss", "probabilities", "multiclass"),
     ("accuracy", "columns", "multiclass"), ("samples_f1", "columns", "multilabel"),
     ("quadratic_weighted_kappa", "columns", "ordinal"), ("macro_f2", "columns", "multilabel")],
)  # fmt: skip
def test_other_answers(paths, capsys, metric, form, task):
    hidden = write_competition(paths, metric, form, task)
    write_runs(paths, hidden)
    assert run_blend() == 0, capsys.readouterr().err
    values = np.array([line.split(",")[1:] for line in only_csv(paths).read_text().splitlines()[1:]], float)
    if form == "columns":
        assert set(values.ravel()) <= {0.0, 1.0}
    if task != "multilabel":
        assert values.sum(axis=1) == pytest.approx(np.ones(N_TEST), abs=1e-3)


def test_an_unfinished_run_is_left_out_with_the_command_that_trains_it_unless_it_is_named(small, capsys):
    (small.oof("small") / "run0" / "fold3.json").unlink()
    assert run_blend("--runs", "run1,run0") == 2
    assert "fold 3 of 5 missing" in capsys.readouterr().err
    assert run_blend() == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "left out, not all folds are trained: oof/small/run0: fold 3 of 5 missing. Run: accelerate" in shown
    assert json.loads(only_csv(small).with_suffix(".json").read_text())["runs"] == ["run1"]


@pytest.mark.parametrize(
    "asked, said", [("shrunk_stck", "did you mean shrunk_stack?"), ("run1 + robst", "There are: ")]
)
def test_a_mistyped_strategy_is_refused_before_anything_is_fitted(small, capsys, monkeypatch, asked, said):
    monkeypatch.setattr("foldblend.commands.blend.make_blend", lambda *_: pytest.fail("fitted"))
    assert run_blend("--strategy", asked) == 2
    assert f"unknown --strategy {asked}" in (shown := capsys.readouterr().err) and said in shown


def test_a_code_competitions_three_rows_are_answered_and_nothing_is_said_of_the_hidden_test(paths, capsys, monkeypatch):
    """Each of three rows deserves no label, as the sample submission says: that is an answer like any other."""
    monkeypatch.setattr("small_competition.N_TEST", 3)
    hidden = write_competition(paths)
    hidden[N_ROWS:] = -9.0
    write_runs(paths, hidden, (0.1, 0.2))
    assert run_blend() == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert only_csv(paths).read_text().splitlines()[1:] == ["t2,0,0,0", "t1,0,0,0", "t0,0,0,0"]
    assert "every answer is the sample submission's, which 3 test rows may well deserve" in shown
    assert "the test file here has 3 rows, too few to say anything about the test set" in shown
    assert "Expected scores are for 120 test rows, as many as the training file has" in shown
    assert "label rates differ" not in shown and "positive rate" not in shown and "of another kind" not in shown
    report = json.loads(only_csv(paths).with_suffix(".json").read_text())["report"]
    assert report["expected_one_fold"] == report["expected_fold_mean"] and report["label_shift"] == {}
    assert (report["expected_for_rows"], report["test_rows_here"]) == (120, 3)
    assert 0 <= report["expected_one_fold"]["low"] < report["expected_one_fold"]["high"] <= 1
    assert run_blend("--files.hidden_test_rows", "5000", "--reestimate_priors") == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "Expected scores are for the 5,000 test rows of files.hidden_test_rows" in shown
    assert "--reestimate_priors changes nothing: too few test rows" in shown


def test_test_rows_that_repeat_training_texts_are_counted_beside_the_interval(paths, capsys):
    hidden = write_competition(paths)
    path = paths.data("small") / "test.csv"
    path.write_text(path.read_text().replace("new 0\n", "Text 0!\n").replace("new 1\n", "text 1\n"))
    write_runs(paths, hidden)
    assert run_blend() == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "warning: 2 of 40 test rows (5.0%) repeat a training text" in shown
    report = json.loads(only_csv(paths).with_suffix(".json").read_text())["report"]
    assert report["test_texts"]["repeats"] == 2 and report["test_texts"]["rows"] == 40


def test_the_same_rows_give_the_same_alarm_whatever_strategy_is_chosen(paths, capsys):
    hidden = write_competition(paths)
    hidden[N_ROWS:, 2] += 2.5
    write_runs(paths, hidden, (0.5, 3.0))
    said = {}
    for strategy in ("run1", "shrunk_stack", "mean_logits"):
        assert run_blend("--strategy", strategy) == 0
        lines = capsys.readouterr().out.splitlines()
        said[strategy] = [line for line in lines if line.startswith("  anger") and "->" in line]
    assert len(set(map(tuple, said.values()))) == 1 and len(said["run1"]) == 1


def test_a_correction_is_offered_only_if_the_texts_are_the_same(paths, capsys):
    """Texts that all differ between the files: the rates may have followed them."""
    hidden = write_competition(paths)
    hidden[N_ROWS:, 2] += 2.5
    path = paths.data("small") / "test.csv"
    path.write_text(path.read_text().replace(",new ", ",quite another kind of text "))
    path = paths.data("small") / "train.csv"
    path.write_text(path.read_text().replace(",text ", ",a text as people write it "))
    write_runs(paths, hidden)
    assert run_blend("--reestimate_priors") == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "The texts changed" in shown and "So it is not offered" in shown
    assert "warning: --reestimate_priors is applied as asked, against the evidence above" in shown
    assert "warning: the test texts are of another kind" in shown


def test_a_record_of_before_new_settings_gives_the_identical_csv_under_the_same_name(small, capsys):
    assert run_blend() == 0
    path = only_csv(small)
    data, record = path.read_bytes(), json.loads(path.with_suffix(".json").read_text())
    settings = record["settings"]["competition"]
    del settings["groups"], settings["folds"], settings["files"]["hidden_test_rows"]
    path.with_suffix(".json").unlink()
    path.unlink()
    write_submission(small, "small", path.stem, data, {k: v for k, v in record.items() if not k.endswith("_sha256")})
    path.unlink()
    assert run_blend("--from", str(path.with_suffix(".json"))) == 0
    assert path.read_bytes() == data
    from foldblend.commands.blend import name_submission

    old = json.loads(path.with_suffix(".json").read_text())
    assert name_submission(old) == name_submission(record) == path.stem


def test_blend_never_loads_torch_or_a_learner(small):
    code = (
        "import sys; sys.path.insert(0, 'src'); from foldblend.commands import blend\n"
        "blend.main(['--competition', 'small'])\n"
        "bad = [name for name in sys.modules if name.split('.')[0] in ('torch', 'transformers')]\n"
        "bad += [name for name in sys.modules if name.startswith('foldblend.learners')]\n"
        "assert not bad, bad"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", ["mean_probs", "wide"])
def test_a_run_named_like_a_strategy_is_refused(small, capsys, name):
    (small.oof("small") / "run1").rename(small.oof("small") / name)
    assert run_blend() == 2
    assert f"run {name} is named like a strategy" in capsys.readouterr().err
    assert not list(small.submissions("small").glob("*"))


def test_an_old_strategy_name_is_a_warning(small, capsys):
    assert run_blend("--strategy", "wide") == 0
    shown = capsys.readouterr().out
    assert shown.count("warning: --strategy wide is now called cross_label_stack") == 1
    assert "Chosen: cross_label_stack, robust thresholds" in shown
    record = json.loads(only_csv(small).with_suffix(".json").read_text())
    assert record["settings"]["strategy"] == "cross_label_stack"


@pytest.mark.parametrize("strategy", ["cross_label_stack", "shrunk_stack", "label_weights"])
def test_a_record_with_the_old_names_gives_the_identical_csv(small, capsys, strategy):
    """Version 0.1 called the forms `stack` and `wide`, and its report an account."""
    assert run_blend("--strategy", strategy) == 0
    path = only_csv(small)
    text = path.with_suffix(".json").read_text()
    old = text.replace('"cross_label_stack"', '"wide"').replace('"label_stack"', '"stack"')
    old = old.replace('"report"', '"account"').replace('"chosen"', '"handed_in"')
    assert old != text
    data = path.read_bytes()
    record = json.loads(old)
    del record["schema_version"]
    path.unlink()
    write_record(path.with_suffix(".json"), record)
    assert run_blend("--from", str(path.with_suffix(".json"))) == 0, capsys.readouterr().err
    assert path.read_bytes() == data
