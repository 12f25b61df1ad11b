import dataclasses
import json
import re
import shutil
from dataclasses import asdict

import pytest

from foldblend.errors import UserError
from foldblend.settings.competition import CompetitionSettings, LabelsSettings, SubmissionSettings
from foldblend.settings.data_files import FilesSettings, TextSettings
from foldblend.settings.loading import load_competition, load_defaults, load_run, open_job
from foldblend.settings.nets import LossSettings
from foldblend.settings.records import competition_with_defaults, describe_differences, settings_of
from foldblend.settings.run import RunSettings
from foldblend.settings.tables import LEARNERS
from foldblend.settings.yaml_files import check_name, list_configs


def fold_flag(parser):
    parser.add_argument("--fold", nargs="+", default=["all"])


def train_job(*argv):
    return open_job("train.py", argv, fold_flag, with_run=True)


def test_bare_command_means_default_yaml(paths):
    job = train_job()
    defaults = load_defaults(paths)
    assert (job.competition_name, job.run_name) == (defaults.competition, defaults.run)
    assert job.run == load_run(paths, defaults.run)
    assert job.competition == load_competition(paths, defaults.competition)


def test_flags_win_over_yaml_and_keep_their_type(paths):
    job = train_job("--optimizer.lr", "3e-5", "--training.epochs=7", "--fold", "0", "2", "--n_folds", "4")
    assert job.run.optimizer.lr == 3e-5 and job.run.training.epochs == 7
    assert job.own.fold == ["0", "2"] and job.competition.n_folds == 4
    assert job.run.optimizer.head_lr == load_run(paths, job.run_name).optimizer.head_lr


@pytest.mark.parametrize(
    "flags, name, seed",
    [
        ([], "minilm", 42),
        (["--seed", "1"], "minilm-seed1", 1),
        (["--seed=7"], "minilm-seed7", 7),
        (["--seed", "42"], "minilm", 42),
        (["--seed", "1", "--name", "other"], "other", 1),
        (["--seed", "0"], "minilm-seed0", 0),
    ],
)
def test_another_seed_makes_a_sibling_run(paths, flags, name, seed):
    path = paths.configs / "runs" / "minilm.yaml"
    assert "seed:" not in path.read_text()
    job = open_job("train.py", ["--run", "minilm", *flags], lambda parser: None, with_run=True)
    assert (job.run_name, job.run.seed) == (name, seed)
    path.write_text(path.read_text() + "\nseed: 3\n")
    job = open_job("train.py", ["--run", "minilm", "--seed", "3"], lambda parser: None, with_run=True)
    assert job.run_name == "minilm"


def test_name_makes_a_sibling_run(paths):
    assert train_job("--run", "tfidf", "--name", "tfidf-c2").run_name == "tfidf-c2"


@pytest.mark.parametrize(
    "argv, message",
    [
        (["--optimzer.lr", "1e-5"], r"unknown flag --optimzer.lr; did you mean --optimizer.lr\?"),
        (["--lr", "1e-5"], r"did you mean --optimizer.lr\?"),
        (["--optimizer.lr", "fast"], "train.py: --optimizer.lr is 'fast'; expected a number"),
        (["--model.pooling", "median"], r"--model.pooling is 'median'; did you mean 'mean'\? expected mean, cls, "),
        (["--text.columns", "title"], r"--text.columns is 'title'; expected a list, as \[title\]"),
        (
            ["--text.columns", "title", "body"],
            r"--text.columns has 2 words; expected one: --text.columns '\[title, body\]'",
        ),
        (["--metric", "f1_macro"], r"metric is 'f1_macro', which is not known; did you mean 'macro_f1'\?"),
        (
            ["--labels.groups", "[joy]"],
            r"--labels.groups is a list, .*; expected names with lists, as {name: \[a, b\]}",
        ),
        (
            ["--run", "tfidf", "--tfidf.word_ngrams", "[1]"],
            r"word_ngrams is a list, \[1\]; expected a list of 2 whole num",
        ),
        (["--loss.bias_from_prior", "maybe"], "bias_from_prior is 'maybe'; expected true or false"),
        (["--training.epochs", "2.5"], "training.epochs is 2.5; expected a whole number"),
        (["--training.epochs", "0"], "training.epochs is 0; expected 1 or more"),
        (["--run", "minlm"], r"configs/runs/minlm.yaml is missing; did you mean 'minilm'\?"),
        (["--competition", "sampel"], r"did you mean 'sample'\?"),
        (["--run", "../default"], "expected letters"),
        (["--name", "a/b"], "--name is 'a/b'"),
        (["--tfidf.min_rows", "3"], "learner encoder does not read tfidf"),
        (["--run", "tfidf", "--optimizer.lr", "1e-5"], "learner tfidf does not read optimizer"),
        (["--n_folds", "1"], "n_folds is 1"),
        (["--n_folds", "null"], "n_folds is empty|n_folds"),
        (["--fold_seed", "-1"], "fold_seed is -1; expected 0 or more"),
        (["stray"], "stray"),
        (["--run", "tfidf", "--run", "minilm"], "flag --run is given twice: --run tfidf and --run minilm; give it"),
        (["--run=tfidf", "--run", "minilm"], "flag --run is given twice: --run tfidf and --run minilm"),
        (["--competition", "sample", "--competition=sample"], "flag --competition is given twice"),
        (["--training.epochs", "2", "--fold", "0", "--training.epochs", "3"], "flag --training.epochs is given twice"),
        (["--fold", "0", "--fold", "1", "2"], "flag --fold is given twice: --fold 0 and --fold 1 2; give it once"),
    ],
)
def test_wrong_flags_are_refused(paths, argv, message):
    with pytest.raises(ValueError, match=message):
        train_job(*argv)


@pytest.mark.parametrize(
    "yaml, message",
    [
        ("learner: encoder\nepohcs: 3\n", r"unknown setting 'epohcs'; did you mean 'training.epochs'\?"),
        ("learner: encoder\ntraining: {epohcs: 3}\n", r"did you mean 'training.epochs'\?"),
        ("learner: encoder\nepochs: 3\n", r"did you mean 'training.epochs'\?"),
        ("learner: encoder\nseed: 1\nseed: 2\n", "seed is there twice"),
        ("learner: encoder\noptimizer: {lr: fast}\n", "optimizer.lr"),
        ("learner: encoder\ntraining: {precision: no}\n", "precision is 'no'; expected auto, fp32, bf16 or fp16"),
        ("learner: encodr\n", "learner"),
        ("learner: encoder\nseed:\n", "run mine: seed is empty; expected a value"),
        ("learner: encoder\noptimizer: {lr: null}\n", "lr is empty; expected a value"),
        ("seed: 3\n", "mine.yaml: must be set, as they have no default: learner"),
        ("learner: encoder\nzzz: 3\n", r"unknown setting 'zzz'; expected adapter, .*answer"),
        ("- a\n- b\n", r"found a list, \['a', 'b'\]"),
        ("learner: [\n", "not readable YAML"),
        ("", "found nothing"),
        (
            "learner: encoder\noptimizer: other.yaml\n",
            r"mine.yaml: optimizer is a group of settings.*found a text, 'other.yaml'",
        ),
        ("learner: encoder\noptimizer:\n", "expected `name: value` below it, found nothing"),
        ("learner: encoder\nseed: 2026-99-99\n", "mine.yaml is not readable YAML: month must be in 1..12"),
        ("[" * 5000, "mine.yaml is not readable YAML: maximum recursion depth"),
        ("seed: &a [1, 1]\nlearner: *a\n", "an alias"),
        ("learner: encoder\nseed: one\n", "runs/mine.yaml: seed is 'one'; expected a whole number"),
        ("learner: encoder\nseed: [1]\n", r"seed is a list, \[1\]; expected a whole number"),
        ("learner: encoder\naugmentation: {oversample_labels: joy}\n", r"is 'joy'; expected a list, as \[joy\]"),
        ("learner: encoder\nloss: {name: bec}\n", r"loss.name is 'bec', which is not known; did you mean 'bce'"),
        (
            "learner: tfidf\ntfidf: {word_ngrams: [1, two]}\n",
            "word_ngrams has 'two' in it; expected a whole number there",
        ),
        ("learner: encoder\nloss: {bias_from_prior: 3}\nseed: x\n", "expected true or false; .*seed|seed .*; loss"),
        ("learner: tfidf\nmodel: {name: x}\n", "learner tfidf does not read model"),
    ],
)
def test_wrong_yaml_is_refused(paths, yaml, message):
    (paths.configs / "runs" / "mine.yaml").write_text(yaml)
    with pytest.raises(ValueError, match=message):
        train_job("--run", "mine")


def write_competition(paths, text):
    (paths.configs / "competitions" / "mine.yaml").write_text("id_column: id\n" + text)
    return load_competition(paths, "mine")


@pytest.mark.parametrize(
    "yaml, setting, value",
    [
        ("labels: {names: [yes, no, On, 1, 2.50, 0x10, null, ~, 2024-01-31, 1_000, .5, 'a']}\n", "names",
         ("yes", "no", "On", "1", "2.50", "0x10", "null", "~", "2024-01-31", "1_000", ".5", "a")),
        ("labels: {groups: {yes: [1, 2], 3: [no, off]}, names: [1, 2, no, off]}\n", "groups",
         {"yes": ("1", "2"), "3": ("no", "off")}),
        ("labels: {map: {-1: 0, '': no, yes: 1.0, null: 0}}\n", "map",
         {"-1": "0", "": "no", "yes": "1.0", "null": "0"}),
        ("labels: {rename: {1: yes, 2: no}}\n", "rename", {"1": "yes", "2": "no"}),
        ("labels: {constants: {yes: 0, 7: 0.5}}\n", "constants", {"yes": 0, "7": 0.5}),
        ("labels: {unknown: ['', -1, null]}\n", "unknown", ("", "-1", "null")),
        ("labels: {form: delimited, column: 2024, names: [a, b]}\n", "column", "2024"),
    ],
)  # fmt: skip
def test_texts_are_what_the_yaml_says(paths, yaml, setting, value):
    assert getattr(write_competition(paths, yaml).labels, setting) == value


@pytest.mark.parametrize(
    "yaml, message",
    [
        ("text: {columns: title}\n", r"mine.yaml: text.columns is 'title'; expected a list, as \[title\]"),
        ("labels: {names: 'joy, so sad'}\n", r"labels.names is 'joy, so sad'; expected a list, as \[joy, so sad\]"),
        ("labels: {names: {joy: 1}}\n", "labels.names is a group of names and values, .*; expected a list, as"),
        ("labels: {names: [joy, [fear]]}\n", r"labels.names has a list, \['fear'\] in it; expected a text there"),
        (
            "labels: {groups: {good: joy}, names: [joy]}\n",
            r"labels.groups has 'good': 'joy'; expected a list, as \[a, b\]",
        ),
        ("labels: {constants: {awe: never}}\n", "labels.constants has 'awe': 'never'; expected a number there"),
        ("labels: {map: [0, 1]}\n", "labels.map is a list, .*; expected names with values, as {name: other}"),
        (
            "labels: {form: colums}\n",
            r"labels.form is 'colums'; did you mean 'columns'\? expected columns, delimited or cl",
        ),
        ("task: multi-label\n", r"task is 'multi-label'; did you mean 'multilabel'\?"),
        ("n_folds: five\n", "n_folds is 'five'; expected a whole number"),
        ("n_folds: true\n", "n_folds is True; expected a whole number"),
        ("n_folds: 5.0\n", "n_folds is 5.0; expected a whole number"),
        ("near_duplicates: [0.8]\n", r"near_duplicates is a list, \[0.8\]; expected a number"),
        ("metric: qwkk\n", "metric is 'qwkk', which is not known"),
        ("metric: F1-Macro\n", r"did you mean 'macro_f1'\?"),
        ("metric: roc_auc\n", r"did you mean 'macro_auc'\?"),
        ("metric: [macro_f1]\n", r"metric is a list, \['macro_f1'\]; expected a text"),
        ("metric:\n", "metric is empty; expected a value"),
        ("files: {train: {a: b}}\n", "files.train is a group of names and values, .*; expected a list, as"),
        ("task: both\nn_folds: x\ntext: {columns: t}\n", "task is.*n_folds is.*text.columns is"),
    ],
)
def test_no_name_of_a_python_type_reaches_a_user(paths, yaml, message):
    with pytest.raises(ValueError) as error:
        write_competition(paths, yaml)
    assert re.search(message, str(error.value))
    for word in ("typing", "Literal", "<class", "NoneType", "tuple[", "dict[", "Namespace"):
        assert word not in str(error.value)


def test_flags_of_lists_keep_their_spelling(paths):
    job = train_job("--labels.names", "[yes, no, 1]", "--labels.map={-1: 0}", "--id_column", "2024")
    assert job.competition.labels.names == ("yes", "no", "1") and job.competition.labels.map == {"-1": "0"}
    assert job.competition.id_column == "2024"


def test_settings_of_older_records_get_the_defaults_of_newer_ones():
    now = json.loads(json.dumps(asdict(CompetitionSettings(id_column="key", n_folds=7))))
    older = json.loads(json.dumps(now))
    del older["labels"]["rename"], older["labels"]["unknown"], older["submission"]["empty"], older["task"]
    assert competition_with_defaults(older) == now


def test_exponents_without_a_point_are_numbers(paths):
    (paths.configs / "runs" / "mine.yaml").write_text("learner: encoder\noptimizer: {lr: 2e-5}\n")
    assert train_job("--run", "mine").run.optimizer.lr == 2e-5


@pytest.mark.parametrize(
    "change, message",
    [
        ({"labels": LabelsSettings(form="class", column="y")}, "task must be multiclass"),
        ({"labels": LabelsSettings(form="delimited")}, "labels.column must name"),
        ({"metric": "accuracy"}, "subset_accuracy is its multilabel form"),
        ({"metric": "macro_auc"}, "submission.form must be probabilities"),
        ({"text": TextSettings(columns=("a",), template="{a} {b}")}, "text.template uses"),
        ({"text": TextSettings(columns=("a",), template="{a")}, "cannot be read"),
        ({"near_duplicates": 0.1}, "near_duplicates is 0.1"),
        ({"labels": LabelsSettings(aggregate="mean")}, "labels.positive_from must say from which share"),
        ({"task": "multiclass", "labels": LabelsSettings(aggregate="any")}, "could give a row two classes"),
        ({"task": "multiclass", "labels": LabelsSettings(unknown=("",))}, "labels.unknown is for multilabel"),
        ({"labels": LabelsSettings(constants={"awe": 2.0})}, "labels.constants: 'awe' is 2; expected 0, 1 or a"),
        ({"labels": LabelsSettings(names=("a",), constants={"a": 1})}, "labels.constants has every label"),
        (
            {"labels": LabelsSettings(rename={"a": "c", "b": "c"})},
            "two labels the same name; to unite labels use labels.g",
        ),
        ({"labels": LabelsSettings(names=("a",), rename={"a": "A"})}, "labels.rename: 'A' is not in labels.names"),
        (
            {"labels": LabelsSettings(columns=("a", "b"))},
            "labels.columns is set, but labels.form is columns; only delim",
        ),
        (
            {"labels": LabelsSettings(values="multi_hot")},
            "labels.values is multi_hot, which is for labels.form delimited",
        ),
        (
            {"labels": LabelsSettings(empty="none")},
            "labels.empty is set, but labels.form is columns; only delimited reads",
        ),
        ({"labels": LabelsSettings(first_number=1)}, "labels.first_number is set, but labels.values is names"),
        ({"submission": SubmissionSettings(empty="none")}, "submission.empty is set, but submission.form is columns"),
    ],
)
def test_conflicting_competition_settings_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        CompetitionSettings(id_column="id", **change)


def test_every_yaml_loads(paths):
    """A YAML that nobody loads rots; counted, so that an empty folder fails."""
    competitions = sorted(path.stem for path in (paths.configs / "competitions").rglob("*.yaml"))
    runs = sorted(path.stem for path in (paths.configs / "runs").rglob("*.yaml"))
    assert len(competitions) >= 2 and len(runs) >= 2
    for name in competitions:
        load_competition(paths, name)
    for name in runs:
        load_run(paths, name)


def test_run_and_competition_settings_share_no_flag():
    names = [{field.name for field in dataclasses.fields(part)} for part in (RunSettings, CompetitionSettings)]
    assert not names[0] & names[1]


def test_every_learner_lists_groups_that_exist():
    groups = {field.name for field in dataclasses.fields(RunSettings)}
    assert all(entry.reads <= groups for entry in LEARNERS.values())
    unused = {"extra_rows", "distillation"}  # stored only if they are used
    assert set(settings_of(RunSettings("tfidf"))) == LEARNERS["tfidf"].reads - unused


def test_differences_name_the_leaf():
    was = {"optimizer": {"lr": 1.0, "eps": 2}, "seed": 1}
    assert describe_differences(was, {"optimizer": {"lr": 3.0, "eps": 2}, "seed": 1}) == [
        "optimizer.lr was 1.0, is now 3.0"
    ]
    assert describe_differences(was, was) == []
    assert describe_differences({"a": (1, 2)}, {"a": [1, 2]}) == []


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "-x", "a b", "x" * 101, "a\n"])
def test_names_that_leave_their_folder_are_refused(name):
    with pytest.raises(ValueError, match="name"):
        check_name(name, "the name")


def test_published_recipes_are_found_by_their_bare_names(paths):
    published = sorted((paths.configs / "runs" / "published").glob("*.yaml"))
    assert len(published) == 14
    assert load_run(paths, "roberta-base-a1").optimizer.lr == 5e-4
    with pytest.raises(
        UserError, match=r"configs/runs/roberta-base-a11.yaml is missing; did you mean 'roberta-base-a1"
    ):
        load_run(paths, "roberta-base-a11")
    shutil.copy(published[0], paths.configs / "runs")
    with pytest.raises(UserError, match=f"run {published[0].stem} is in two files, .*; rename one of them"):
        load_run(paths, published[0].stem)


def test_every_run_begins_with_its_command_its_time_and_its_score(paths):
    for path in list_configs(paths, "runs"):
        command, *header = [line for line in path.read_text().splitlines() if line.startswith("#")]
        assert command.startswith("# accelerate launch src/train.py ") and f"--run {path.stem} --fold" in command
        assert header[0].startswith("# Time: ") and " Score: " in " ".join(header)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_are_finite(value):
    """A record could not store them, which would be found out after the training."""
    with pytest.raises(UserError, match=f"loss.balanced_mu is {value}; expected a finite number"):
        RunSettings("encoder", loss=LossSettings("distribution_balanced", balanced_mu=value))


def test_help_shows_ranges_and_choices(paths, capsys):
    with pytest.raises(SystemExit):
        train_job("--help")
    shown = " ".join(capsys.readouterr().out.split())
    assert "Passes over the fold's training rows. Expected: 1 or more." in shown
    assert "Expected: tfidf, nbsvm, embeddings, encoder, decoder, generator." in shown


def test_a_metric_of_ordered_classes_says_what_it_needs():
    """quadratic_weighted_kappa for label columns; with `task: ordinal` it is a metric like any other."""
    with pytest.raises(ValueError, match="one class per row, and the classes have an order; set task: ordinal"):
        CompetitionSettings(id_column="id", metric="quadratic_weighted_kappa")
    settings = CompetitionSettings(id_column="id", metric="quadratic_weighted_kappa", task="ordinal")
    assert settings.task == "multiclass"


@pytest.mark.parametrize("slug", ["x; touch A #", "a b", "../x", "https://www.kaggle.com/c/x", "-x"])
def test_a_competition_of_kaggle_that_is_no_name_is_refused(slug):
    """It would be in the commands that are printed."""
    with pytest.raises(UserError, match="files.kaggle is .*; expected the last part of"):
        CompetitionSettings(id_column="id", files=FilesSettings(kaggle=slug))


@pytest.mark.parametrize("flags", [["--competition", ""], ["--competition="], ["--run", ""]])
def test_an_empty_name_is_not_the_default(paths, flags):
    """As from an unset variable: `make_folds.py --competition "$NAME" --overwrite` must not draw other folds."""
    with pytest.raises(UserError, match="the name of a file in configs/.* is ''"):
        open_job("train.py", flags, lambda parser: None, with_run=True)


@pytest.mark.parametrize("labels", [{"column": "text"}, {"columns": ["joy", "text"]}, {"names": ["text", "joy"]}])
def test_a_column_of_labels_is_no_text(labels):
    with pytest.raises(UserError, match="column 'text' is in text.columns and holds labels, so the models would read"):
        CompetitionSettings(
            id_column="id",
            text=TextSettings(columns=("text",)),
            labels=LabelsSettings(**{"form": "delimited" if "names" not in labels else "columns"} | labels),
        )


RANKED = {"labels": LabelsSettings(form="class", column="y"), "submission": SubmissionSettings(column="y")}


def test_a_ranked_task_settles_what_it_stands_for():
    """`metric: map_at_k` with `k: 3` is `metric: map_at_3`; one label per row is learned as one, several as several."""
    for metric, k in (("map_at_k", 3), ("map_at_3", 0), ("map_at_3", 3)):
        made = CompetitionSettings(id_column="id", task="ranked", metric=metric, k=k, **RANKED)
        assert (made.metric, made.k, made.task, made.submission.form) == ("map_at_3", 3, "multiclass", "ranked")
        assert CompetitionSettings(**vars(made)) == made  # a bundle's YAML says it in the settled form
    labels = LabelsSettings(form="delimited", column="y")
    several = CompetitionSettings(id_column="id", task="ranked", metric="map_at_3", **(RANKED | {"labels": labels}))
    assert several.task == "multilabel"


@pytest.mark.parametrize(
    "change, message",
    [
        ({"metric": "map_at_k"}, "metric map_at_k needs k, how many labels a row's list has, as k: 3"),
        ({"metric": "map_at_3", "k": 5}, "metric is map_at_3, k is 5; remove k"),
        ({"metric": "MAP@3"}, r"metric is 'MAP@3', which is not known; did you mean 'map_at_3'\?"),
        ({"metric": "mapk"}, r"did you mean 'map_at_k'\?"),
        ({"metric": "map_at_0"}, "metric is 'map_at_0', which is not known"),
        ({"metric": "macro_f1"}, "submission.form is ranked, so metric must be of ranked lists, as map_at_k with k: 3"),
        ({"metric": "accuracy", "k": 2}, "k is set, but metric accuracy scores no ranked list"),
        ({"submission": SubmissionSettings(form="class", column="y")}, "submission.form must be ranked; it is class"),
        ({"submission": SubmissionSettings()}, "submission.column must name the column"),
        ({"task": "multiclass"}, "metric map_at_3 scores ranked lists, so set task: ranked"),
        ({"labels": LabelsSettings(form="class", template="{a}:{b}", column="y")}, "labels.column and labels.template"),
        ({"labels": LabelsSettings(form="class", template="{a")}, "labels.template is '{a'; expected columns in br"),
        ({"labels": LabelsSettings(form="class", template="a")}, "labels.template is 'a'; expected columns in br"),
        ({"labels": LabelsSettings(form="columns", template="{a}")}, "only class reads it"),
        ({"labels": LabelsSettings(form="class", column="y", candidates="id")}, "labels.candidates is the id column"),
        ({"metric": "group_auc"}, "metric group_auc needs metric_by, the column of the groups"),
        ({"metric_by": "rule"}, "metric_by is set, but metric is map_at_3; only group_auc reads it"),
    ],
)
def test_what_contradicts_a_ranked_task_is_said(change, message):
    with pytest.raises(ValueError, match=message):
        CompetitionSettings(**({"id_column": "id", "task": "ranked", "metric": "map_at_3"} | RANKED | change))


def test_candidates_are_not_for_classes_in_an_order():
    labels = LabelsSettings(form="class", column="y", names=("1", "2"), candidates="c")
    with pytest.raises(ValueError, match="labels.candidates is not for classes in an order"):
        CompetitionSettings(id_column="id", task="ordinal", metric="quadratic_weighted_kappa", labels=labels)


def test_a_regression_settles_and_says_what_it_does_not_take():
    made = CompetitionSettings(id_column="id", task="regression", metric="rmse")
    assert (made.task, made.submission.form) == ("multilabel", "values") and CompetitionSettings(**vars(made)) == made
    for change, message in (
        ({"metric": "macro_f1"}, "metric is macro_f1 and submission.form values; metrics of values"),
        ({"task": "multilabel"}, "metric is rmse and submission.form columns; metrics of values"),
        ({"metric": "RMSE_score"}, "metric is 'RMSE_score', which is not known"),
        ({"labels": LabelsSettings(form="class", column="y")}, "labels.form must be columns; it is class"),
        ({"labels": LabelsSettings(aggregate="majority")}, "a regression takes mean"),
        ({"labels": LabelsSettings(names=("a",), constants={"b": 1})}, "labels.constants is set, which is for labels"),
        ({"submission": SubmissionSettings(form="probabilities")}, "submission.form must be values; it is prob"),
    ):
        with pytest.raises(ValueError, match=message):
            CompetitionSettings(**({"id_column": "id", "task": "regression", "metric": "rmse"} | change))
