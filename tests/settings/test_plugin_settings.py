"""A learner, a loss and a metric from outside the package, as the settings see them."""

from dataclasses import dataclass

import pytest

from foldblend.errors import UserError
from foldblend.scoring.metrics.table import METRICS
from foldblend.settings.competition import CompetitionSettings
from foldblend.settings.fields import setting
from foldblend.settings.loading import load_run, open_job, run_from_settings
from foldblend.settings.nets import LossSettings
from foldblend.settings.records import describe_differences, settings_of, with_defaults
from foldblend.settings.run import RunSettings, learner_entry
from foldblend.settings.tables import LEARNERS, LOSSES, LossEntry


@dataclass(frozen=True)
class KnnSettings:
    """Nearest neighbours."""

    neighbours: int = setting(5, at_least=1)
    """Rows that vote."""
    power: float = 1.0
    """Exponent of the similarity."""


@pytest.fixture
def knn(monkeypatch):
    """A registered learner with settings of its own."""
    monkeypatch.setitem(LEARNERS, "knn", learner_entry("knn", object, ("seed", "cleaning"), KnnSettings))


@pytest.fixture
def knn_run(knn, paths):
    """configs/runs/near.yaml."""
    (paths.configs / "runs" / "near.yaml").write_text("learner: knn\nknn: {neighbours: 7}\n")
    return "near"


def job_of(*flags):
    return open_job("train.py", ["--run", "near", *flags], lambda parser: None, with_run=True)


def test_its_settings_are_a_group_of_its_name(knn_run, paths):
    assert load_run(paths, knn_run).plugin == KnnSettings(neighbours=7)
    assert job_of("--knn.power", "2").run.plugin == KnnSettings(7, 2.0)
    assert RunSettings("knn").plugin == KnnSettings(), "its defaults, if nothing is given"


def test_records_have_its_settings_and_build_the_same_run(knn_run, paths):
    run = load_run(paths, knn_run)
    stored = settings_of(run)
    assert stored.keys() == {"learner", "seed", "cleaning", "knn"} and stored["knn"] == {"neighbours": 7, "power": 1.0}
    assert run_from_settings(stored, "fold0.json") == run
    del stored["knn"]["power"]
    assert with_defaults(stored)["knn"] == {"neighbours": 7, "power": 1.0}
    assert describe_differences(stored, settings_of(job_of("--knn.neighbours", "3").run)) == [
        "knn.neighbours was 7, is now 3",
        "knn.power was missing, is now 1.0",
    ]


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--knn.neighbours", "0"], "knn.neighbours is 0; expected 1 or more"),
        (["--knn.neighbours", "many"], "knn.neighbours"),
        (["--knn.neighbors", "3"], r"unknown flag --knn.neighbors; did you mean --knn.neighbours\?"),
        (["--training.epochs", "3"], "learner knn does not read training"),
    ],
)
def test_its_flags_are_checked_as_all_others(knn_run, flags, message):
    with pytest.raises(UserError, match=message):
        job_of(*flags)


@pytest.mark.parametrize(
    "text, message",
    [
        ("learner: knn\nknn: {neighbors: 3}\n", r"unknown setting 'knn.neighbors'; did you mean 'knn.neighbours'\?"),
        ("learner: knn\nknn: 3\n", "knn is a group of settings"),
        ("learner: tfidf\nknn: {neighbours: 3}\n", "learner tfidf does not read knn"),
        ("learner: knm\nknn: {neighbours: 3}\n", r"learner is 'knm', which is not known; did you mean 'knn'\? If"),
    ],
)
def test_its_yaml_is_checked_as_all_others(knn, paths, text, message):
    (paths.configs / "runs" / "near.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        load_run(paths, "near")


def test_a_record_of_a_learner_that_is_not_there_says_what_to_do():
    with pytest.raises(UserError, match="fold0.json: learner is 'knn', which is not known.*`plugins` in configs/def"):
        run_from_settings({"learner": "knn", "knn": {"neighbours": 7}}, "fold0.json")
    assert with_defaults({"learner": "knn", "knn": {}}) == {"learner": "knn", "knn": {}}


def bare():
    @dataclass(frozen=True)
    class Bare:
        alpha: float

    return Bare


@pytest.mark.parametrize(
    "name, values, message",
    [
        ("model", {}, "'model' cannot be registered"),
        ("plugin", {}, "'plugin' cannot be registered"),
        ("my-learner", {}, "'my-learner' cannot be registered"),
        ("mine", {"reads": ("sed",)}, "learner mine reads sed; expected some of adapter"),
        ("mine", {"settings": {"alpha": 1}}, "expected a frozen dataclass"),
        ("mine", {"settings": bare()}, "alpha have no default"),
    ],
)
def test_what_cannot_be_registered(name, values, message):
    with pytest.raises(UserError, match=message):
        learner_entry(name, object, **values)


def test_a_loss_and_a_metric_are_known_by_their_tables(monkeypatch):
    with pytest.raises(UserError, match="loss.name is 'hinge', which is not known"):
        RunSettings("encoder", loss=LossSettings("hinge"))
    monkeypatch.setitem(LOSSES, "hinge", LossEntry(print, reads=frozenset({"focal_gamma"})))
    RunSettings("encoder", loss=LossSettings("hinge", focal_gamma=1.0))
    with pytest.raises(UserError, match="balanced_mu is set, but loss.name is hinge; only distribution_balanced reads"):
        RunSettings("encoder", loss=LossSettings("hinge", balanced_mu=0.1))
    with pytest.raises(UserError, match=r"metric is 'macro_f3', which is not known; did you mean 'macro_f"):
        CompetitionSettings("id", metric="macro_f3")
    monkeypatch.setitem(METRICS, "macro_f3", METRICS["macro_f1"])
    assert CompetitionSettings("id", metric="macro_f3").metric == "macro_f3"
