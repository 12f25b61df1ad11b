"""`base: NAME` in a run's YAML."""

import json

import pytest

from foldblend.errors import UserError
from foldblend.settings.loading import load_run, open_job
from foldblend.settings.records import settings_of

RUNS = {
    "parent": "learner: encoder\nseed: 7\nmodel: {pooling: cls, head_dropout: 0.2}\ntraining: {epochs: 3}\n",
    "published/old": "learner: tfidf\nseed: 5\ntfidf: {word_ngrams: [1, 3], min_rows: 4}\n",
}


@pytest.fixture
def load(paths):
    """Writes configs/runs/child.yaml and loads it."""
    for name, text in RUNS.items():
        (paths.configs / "runs" / f"{name}.yaml").write_text(text)

    def write(text, name="child"):
        (paths.configs / "runs" / f"{name}.yaml").write_text(text)
        return load_run(paths, name.split("/")[-1])

    return write


def test_groups_are_merged_key_by_key(load):
    run = load("base: parent\nmodel: {head_dropout: 0.3}\noptimizer: {lr: 2e-5}\n")
    assert (run.learner, run.seed, run.training.epochs) == ("encoder", 7, 3)
    assert (run.model.pooling, run.model.head_dropout, run.optimizer.lr) == ("cls", 0.3, 2e-5)


def test_a_list_is_replaced_as_a_whole_and_published_runs_are_bases(load):
    run = load("base: old\ntfidf: {word_ngrams: [1, 1]}\n")
    assert (run.tfidf.word_ngrams, run.tfidf.min_rows, run.seed) == ((1, 1), 4, 5)


def test_a_published_run_may_have_a_base(load, paths):
    assert load("base: parent\nseed: 1\n", "published/child").seed == 1


def test_the_resolved_settings_are_those_of_a_run_without_base(load):
    inherited = load("base: parent\ntraining: {epochs: 4}\n")
    written = load(RUNS["parent"].replace("epochs: 3", "epochs: 4"), "written")
    assert json.dumps(settings_of(inherited)) == json.dumps(settings_of(written))


def test_flags_win_over_both_and_the_seed_of_the_base_is_the_runs_own(load):
    load("base: parent\n")
    job = open_job("train.py", ["--run", "child", "--model.head_dropout", "0"], lambda parser: None, with_run=True)
    assert (job.run_name, job.run.seed, job.run.model.head_dropout, job.run.model.pooling) == ("child", 7, 0.0, "cls")
    job = open_job("train.py", ["--run", "child", "--seed", "42"], lambda parser: None, with_run=True)
    assert job.run_name == "child-seed42"


@pytest.mark.parametrize(
    "text, message",
    [
        ("base: parnt\n", r"child.yaml: base is 'parnt': .*did you mean 'parent'\?"),
        ("base: child\n", "which is this file itself"),
        ("base:\n", "base is ''; expected the name of a file"),
        ("base: [parent]\n", r"base is \['parent'\]; expected the name of a file"),
        ("base: {parent: 1}\n", "expected the name of a file"),
        ("base: ../runs/parent\n", "expected letters, digits"),
        ("base: parent.yaml\n", r"did you mean 'parent'\?"),
        ("bsae: parent\n", r"unknown setting 'bsae'; did you mean 'base'\?"),
        ("base: parent\nmodle: {pooling: cls}\n", r"unknown setting 'modle.pooling'; did you mean 'model.pooling'\?"),
        ("base: parent\nlearner: tfidf\n", "learner tfidf does not read model, training, which base parent sets"),
        ("base: parent\ntfidf: {min_rows: 2}\n", "learner encoder does not read tfidf; remove it"),
        ("base: parent\nmodel: cls\n", "model is a group of settings"),
        ("base: middle\n", "base middle has a base itself, parent; only one level is allowed. Set base: parent"),
    ],
)
def test_a_base_that_cannot_be_is_refused_by_name(load, paths, text, message):
    load("base: parent\n", "middle")
    with pytest.raises(UserError, match=message):
        load(text)


def test_two_files_that_name_each_other_are_refused(load, paths):
    (paths.configs / "runs" / "other.yaml").write_text("base: child\n")
    with pytest.raises(UserError, match="base other has a base itself, child; only one level"):
        load("base: other\n")


def test_only_runs_have_a_base(paths, load):
    path = paths.configs / "competitions" / "sample.yaml"
    path.write_text("base: goemotions\n" + path.read_text())
    with pytest.raises(UserError, match="unknown setting 'base'"):
        open_job("train.py", [], lambda parser: None, with_run=True)
