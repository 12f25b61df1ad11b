"""Every competition in configs/competitions/ goes from its files to a linted CSV, on made-up rows of its form."""

import json
from pathlib import Path

import numpy as np
import pytest
from shipped import N_TEST, write_tiny
from tiny_competition import settings

from foldblend.commands import blend, train
from foldblend.data.fetch import ensure_data
from foldblend.data.labels import LabelForm, read_labels
from foldblend.data.reading import FileForm, Problems, parse_table
from foldblend.data.tables import load_tables, submission_form
from foldblend.errors import UserError
from foldblend.scoring.metrics.formulas import macro_auc, macro_f1
from foldblend.settings.loading import load_competition, load_run
from foldblend.settings.paths import Paths
from foldblend.submission.answers import lint_submission_file, read_answers

PROJECT = Path(__file__).resolve().parents[2]
SHIPPED = sorted(path.stem for path in (PROJECT / "configs" / "competitions").glob("*.yaml"))
NAMED = [name for name in SHIPPED if load_competition(Paths(PROJECT), name).labels.names]
EKMAN = {"anger", "disgust", "fear", "joy", "sadness", "surprise", "neutral"}
FEW = ["--n_folds", "2"]


def test_every_yaml_of_the_project_loads_strictly():
    runs = sorted(path.stem for path in (PROJECT / "configs" / "runs").rglob("*.yaml"))
    assert len(SHIPPED) >= 8 and len(runs) >= 4
    assert all(load_competition(Paths(PROJECT), name).id_column for name in SHIPPED)
    assert all(load_run(Paths(PROJECT), name).learner for name in runs)


@pytest.mark.parametrize("name", NAMED)
def test_from_its_files_to_a_linted_csv(paths, name, capsys):
    competition = load_competition(paths, name)
    truth = write_tiny(competition, paths.data(name))
    if competition.files.source == "goemotions":
        (paths.data(name) / "truth.csv").write_text("kept aside, read by no command of the pipeline\n")
    train.main(["--competition", name, "--run", "tfidf", "--fold", "all", *FEW])
    blend.main(["--competition", name, *FEW])
    shown = capsys.readouterr().out
    if competition.files.kaggle:
        assert f"kaggle competitions submit -c {competition.files.kaggle} -f" in shown
    else:  # a line that would submit to another competition of that name
        assert "kaggle competitions submit" not in shown and "submit.py" not in shown
    tables = load_tables(competition, paths.data(name))
    (path,) = paths.submissions(name).glob("*.csv")
    lint_submission_file(path, competition, tables)
    table = parse_table(path.read_bytes(), submission_form(competition, "utf-8"), Problems(path))
    answers = read_answers(table, competition, tables.label_names, Problems(path))
    assert answers.shape == (N_TEST, len(competition.labels.submitted))
    assert table.column(competition.id_column) == tables.test_ids.tolist()
    score = macro_auc if competition.submission.form == "probabilities" else macro_f1
    assert score(grouped(truth, competition), answers) > 0.9


@pytest.mark.parametrize("run", ["tfidf", "nbsvm"])
def test_both_ngram_runs_learn_a_toy_competition(paths, toy_competition, run):
    """Out of fold, on 90 texts that say their labels."""
    train.main(["--competition", "toy", "--run", run])
    records = [json.loads(path.read_text()) for path in (paths.oof("toy") / run).glob("fold*.json")]
    assert len(records) == 3 and np.mean([record["score"]["macro_f1"] for record in records]) > 0.9


def grouped(labels, competition):
    """Labels (n, L) of `names` as those of the groups, where there are any."""
    names, groups = list(competition.labels.names), competition.labels.groups
    columns = [[names.index(name) for name in group] for group in groups.values()] or [[k] for k in range(len(names))]
    return np.stack([labels[:, column].any(1) for column in columns], 1)


@pytest.mark.parametrize("name", [name for name in SHIPPED if name not in ("sample", "goemotions", "goemotions-ekman")])
def test_absent_files_are_asked_for(paths, name, monkeypatch):
    competition = load_competition(paths, name)
    if competition.files.source == "kaggle":
        monkeypatch.setattr("foldblend.data.fetch.download_files", refuse)
        expected = f"kaggle competitions download -c {competition.files.kaggle} -p data/{name}"
    else:
        expected = f"configs/competitions/{name}.yaml.* \\(into data/{name}/\\)"
    with pytest.raises(ValueError, match=expected):
        ensure_data(name, competition, paths)


def refuse(*_):
    raise UserError("no account")


def test_the_groups_are_ekmans():
    """The mapping that the data's authors published; every emotion once, neutral by itself."""
    labels = load_competition(Paths(PROJECT), "goemotions-ekman").labels
    assert set(labels.groups) == EKMAN and labels.groups["neutral"] == ("neutral",)
    assert labels.names == load_competition(Paths(PROJECT), "goemotions").labels.names
    assert sorted(name for group in labels.groups.values() for name in group) == sorted(labels.names)
    assert {name: len(group) for name, group in labels.groups.items()} == {
        "anger": 3, "disgust": 1, "fear": 2, "joy": 12, "sadness": 5, "surprise": 4, "neutral": 1,
    }  # fmt: skip


def test_a_row_has_a_group_when_it_has_one_of_its_labels():
    form = LabelForm("delimited", ("rage", "ire", "joy"), "y", groups=(("joy",), ("rage", "ire")))
    table = parse_table(b'id,y\na,"rage,ire"\nb,ire\nc,joy\nd,"ire,joy"\ne,\n', FileForm(), Problems("x"))
    assert read_labels(table, form, Problems("x")).astype(int).tolist() == [[0, 1], [0, 1], [1, 0], [1, 1], [0, 0]]


def test_two_labels_of_one_group_are_still_two_where_one_is_asked_for():
    form = LabelForm("columns", ("rage", "ire", "joy"), one_a_row=True, groups=(("joy",), ("rage", "ire")))
    table, problems = parse_table(b"id,rage,ire,joy\na,1,1,0\nb,0,1,0\n", FileForm(), Problems("x")), Problems("x")
    problems.row_numbers = problems.line_numbers = [1, 2]
    read_labels(table, form, problems)
    assert "2 labels; task multiclass expects one" in str(problems) and problems.count == 1


@pytest.mark.parametrize(
    "groups, message",
    [
        ({"a": ("rage", "ire"), "b": ("joy", "ire")}, "has 'ire' twice"),
        ({"a": ("rage", "ire"), "b": ("joy", "fun")}, "'fun', which is not in labels.names"),
        ({"a": ("rage",), "b": ("joy",)}, "label 'ire' of labels.names is in no group"),
        ({"a": ("rage", "ire", "joy"), "b": ()}, "group 'b' is empty"),
        ({"a": ("rage", "ire", "joy")}, "has one group"),
        ({"id": ("rage", "ire"), "b": ("joy",)}, "has the id column"),
    ],
)
def test_groups_that_cannot_be_are_refused(groups, message):
    with pytest.raises(ValueError, match=message):
        settings(labels={"names": ("rage", "ire", "joy"), "groups": groups})


def test_a_mistyped_key_beside_groups_is_still_named(paths):
    path = paths.configs / "competitions" / "mine.yaml"
    path.write_text("id_column: id\nlabels: {names: [a, b], groups: {x: [a], y: [b]}, colum: y}\n")
    with pytest.raises(ValueError, match=r"unknown setting 'labels.colum'; did you mean 'labels.column'\?"):
        load_competition(paths, "mine")


def test_instructions_are_of_files_had_by_hand():
    with pytest.raises(ValueError, match="files.instructions is set, but files.source is"):
        settings(files={"source": "kaggle", "instructions": "take them"})


def test_the_real_goemotions_grouped(paths, shared_dir, monkeypatch):
    if not (shared_dir / "data" / "goemotions").is_dir():
        pytest.skip("data/goemotions is not in the shared folder")
    monkeypatch.setenv("FOLDBLEND_SHARED", str(shared_dir))
    competition = load_competition(paths, "goemotions-ekman")
    ensure_data("goemotions-ekman", competition, paths)
    tables = load_tables(competition, paths.data("goemotions-ekman"))
    lines = (shared_dir / "data/goemotions/train.tsv").read_text().splitlines()
    angry = [bool({"2", "3", "10"} & set(line.split("\t")[1].split(","))) for line in lines]
    assert tables.labels.shape == (43_410, 7) and tables.labels[:, 0].tolist() == angry
    assert tables.labels[:, 6].sum() == 14_219 and tables.sample_columns == ("id", *competition.labels.groups)
