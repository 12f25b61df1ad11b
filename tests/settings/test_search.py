"""configs/search/*.yaml: strict reading, and no combination that a run refuses."""

import pytest

from foldblend.errors import UserError
from foldblend.settings.loading import load_competition, load_run
from foldblend.settings.search import draw_combinations, load_search
from foldblend.settings.yaml_files import list_configs

HEAD = "run: minilm\nspace:\n"


@pytest.fixture
def load(paths):
    def write(text):
        (paths.configs / "search" / "mine.yaml").write_text(text)
        return load_search(paths, "mine")

    return write


def test_every_shipped_search_loads_and_names_a_competition_with_folds_left(paths):
    found = list_configs(paths, "search")
    assert len(found) >= 4
    for path in found:
        search = load_search(paths, str(path))
        words = path.read_text().splitlines()[0].split()
        competition = words[words.index("--competition") + 1] if "--competition" in words else "sample"
        assert search.settings.check_folds(load_competition(paths, competition).n_folds)


def test_kinds_follow_the_setting(load):
    search = load(
        HEAD + "  optimizer.lr: {low: 1e-5, high: 1e-4, log: true}\n  training.epochs: {low: 2, high: 4}\n"
        "  loss.name: [bce, focal]\n  loss.focal_gamma: {low: 1, high: 3, only_with: {loss.name: focal}}\n"
    )
    by_name = {parameter.name: parameter for parameter in search.space}
    assert (by_name["optimizer.lr"].low, by_name["optimizer.lr"].is_whole) == (1e-5, False)
    assert by_name["training.epochs"].is_whole and by_name["loss.name"].choices == ("bce", "focal")
    assert by_name["loss.focal_gamma"].only_with == {"loss.name": ("focal",)}
    run = search.run_with({"optimizer.lr": 2e-5, "loss.name": "focal", "loss.focal_gamma": 1.5}, seed=9)
    assert (run.optimizer.lr, run.loss.focal_gamma, run.seed) == (2e-5, 1.5, 9)
    assert run.optimizer.head_lr == search.base.optimizer.head_lr
    assert search.values_of(search.base) == {"optimizer.lr": 1.5e-4, "training.epochs": 2, "loss.name": "auto"}


def test_a_condition_may_stand_before_what_it_names(load):
    search = load(
        HEAD + "  loss.focal_gamma: {low: 1, high: 3, only_with: {loss.name: focal}}\n  loss.name: [bce, focal]\n"
    )
    for values in draw_combinations(search.space):
        assert ("loss.focal_gamma" in values) == (values["loss.name"] == "focal")


def test_lists_and_texts_are_choices(load):
    search = load(
        "run: tfidf\nspace:\n  tfidf.word_ngrams: {choices: [[1, 1], [1, 2]]}\n  logistic.balanced: [true, false]\n"
    )
    assert search.space[0].choices == ((1, 1), (1, 2)) and search.space[1].choices == (True, False)


@pytest.mark.parametrize(
    "text, message",
    [
        ("run: minlm\nspace: {optimizer.lr: {low: 1, high: 2}}\n", r"did you mean 'minilm'\?"),
        ("trails: 3\nspace: {optimizer.lr: {low: 1, high: 2}}\n", r"unknown setting 'trails'; did you mean 'trials'\?"),
        ("trials: many\nspace: {optimizer.lr: {low: 1, high: 2}}\n", "trials is 'many'; expected a whole number"),
        ("trials: 0\nspace: {optimizer.lr: {low: 1, high: 2}}\n", "trials is 0; expected 1 or more"),
        ("trials:\nspace: {optimizer.lr: {low: 1, high: 2}}\n", "trials is empty"),
        ("fidelity: 2\nspace: {optimizer.lr: {low: 1, high: 2}}\n", "fidelity is 2.0; expected more than 0, at most 1"),
        ("folds: [0, 0]\nspace: {optimizer.lr: {low: 1, high: 2}}\n", "expected different numbers"),
        ("folds: [0]\nconfirm_folds: [0]\nspace: {optimizer.lr: {low: 1, high: 2}}\n", "which the search uses"),
        ("run: minilm\n", "space is empty"),
        (HEAD + "  optimiser.lr: {low: 1, high: 2}\n", r"'optimiser.lr'; did you mean 'optimizer.lr'\?"),
        (HEAD + "  optimizer: {lr: {low: 1, high: 2}}\n", "it is a group: write optimizer"),
        (HEAD + "  optimizer.lr: {lo: 1, high: 2}\n", r"unknown key 'lo'; did you mean 'low'\?"),
        (HEAD + "  optimizer.lr: {low: 1}\n", "lacks high"),
        (HEAD + "  optimizer.lr: 1e-5\n", "expected {low"),
        (HEAD + "  optimizer.lr: {low: 2, high: 1}\n", "low is 2.0, high is 1.0; expected low < high"),
        (HEAD + "  optimizer.lr: {low: small, high: 1}\n", "low is 'small'; expected a number"),
        (HEAD + "  training.epochs: {low: 1.5, high: 3}\n", "low is 1.5; expected a whole number"),
        (HEAD + "  optimizer.lr: {low: 0, high: 1, log: true}\n", "log is on, but low is 0"),
        (HEAD + "  optimizer.lr: {low: -1, high: 1}\n", "optimizer.lr is -1.0; expected more than 0"),
        (HEAD + "  loss.name: [bce]\n", "expected a list of two values"),
        (HEAD + "  loss.name: [bce, focl]\n", "did you mean 'focal'"),
        (HEAD + "  loss.name: {low: 1, high: 2}\n", "is not a number; expected"),
        (HEAD + "  training.epochs: [2, two]\n", "training.epochs is 'two'; expected a whole number"),
        (HEAD + "  training.epochs: [2, 2]\n", "is there twice"),
        (HEAD + "  seed: {low: 1, high: 9}\n", "seeds are compared as noise"),
        (HEAD + "  tfidf.min_rows: {low: 1, high: 9}\n", "learner encoder does not read tfidf"),
        (HEAD + "  loss.name: [bce, focal]\n  loss.focal_gamma: {low: 1, high: 3}\n", "may be refused.*focal_gamma"),
        (HEAD + "  optimizer.lr: {low: 1, high: 2, only_with: {loss.name: bce}}\n", "which is not searched"),
        (
            HEAD + "  loss.name: [bce, focal]\n  loss.focal_gamma: {low: 1, high: 3, only_with: {loss.name: zlpr}}\n",
            "a value that it never has",
        ),
        (
            HEAD + "  optimizer.lr: {low: 1, high: 2, only_with: {training.epochs: 2}}\n"
            "  training.epochs: {low: 1, high: 3, only_with: {optimizer.lr: 1}}\n",
            "depend on each other in a circle",
        ),
    ],
)  # fmt: skip
def test_a_search_that_cannot_work_is_refused(load, text, message):
    with pytest.raises(UserError, match=message):
        load(text)


def test_a_missing_file_names_the_nearest(paths):
    with pytest.raises(UserError, match=r"--search configs/search/minlm.yaml: no such file; did you mean 'minilm'\?"):
        load_search(paths, "configs/search/minlm.yaml")
    with pytest.raises(UserError, match="--search names no file"):
        load_search(paths, "")


def test_folds_that_the_competition_lacks_are_refused(load):
    settings = load("run: tfidf\nfolds: [0, 1, 2]\nspace:\n  tfidf.min_rows: {low: 1, high: 3}\n").settings
    assert settings.check_folds(5) == (3,)
    for n_folds, message in ((2, "names fold 2; the competition has folds 0 to 1"), (3, "none is left")):
        with pytest.raises(UserError, match=message):
            settings.check_folds(n_folds)


def test_the_base_run_may_have_a_base(paths, load):
    (paths.configs / "runs" / "child.yaml").write_text("base: minilm\ntraining: {epochs: 3}\n")
    search = load("run: child\nspace:\n  optimizer.lr: {low: 1e-5, high: 1e-4}\n")
    assert search.base == load_run(paths, "child") and search.base.training.epochs == 3
