"""extra_rows and distillation: a list of groups in a YAML, its misspellings, conflicts, and how differences read."""

import pytest

from foldblend.settings.loading import build_run
from foldblend.settings.records import changed_settings, describe_differences, settings_of
from foldblend.settings.run import RunSettings
from foldblend.settings.yaml_files import load_part


def load(tmp_path, text, learner="tfidf"):
    path = tmp_path / "run.yaml"
    path.write_text(f"learner: {learner}\n{text}\n")
    return build_run(load_part(RunSettings, path), str(path))


def test_names_are_what_the_yaml_says(tmp_path):
    run = load(tmp_path, "extra_rows: [{file: a.csv, labels: {no: yes, 1: joy}, layout: {labels: {map: {no: 0}}}}]")
    (source,) = run.extra_rows
    assert source.labels == {"no": "yes", "1": "joy"} and source.layout == {"labels": {"map": {"no": "0"}}}
    assert source.weight == 1.0 and changed_settings(run) == ["extra_rows a.csv"]


@pytest.mark.parametrize(
    "text, message",
    [
        ("extra_rows: [{fiel: a.csv}]", r"extra_rows\[0\] has an unknown setting 'fiel'; did you mean 'file'"),
        ("extra_rows: a.csv", r"extra_rows is 'a.csv'; expected a list, as extra_rows: \[{file: ...}\]"),
        ("extra_rows: [a.csv]", r"extra_rows\[0\] is 'a.csv'; expected names and values"),
        ("extra_rows: [{file: a.csv, weight: high}]", r"extra_rows\[0\].weight is 'high'; expected a number"),
        ("extra_rows: [{file: a.csv, weight: 0}]", r"extra_rows\[0\].weight is 0.0; expected more than 0"),
        ("extra_rows: [{file: }]", r"extra_rows\[0\].*expected"),
        ("extra_rows: [{weight: 1}]", "neither file nor competition is set"),
        ("extra_rows: [{file: a.csv, competition: b}]", "both file and competition are set"),
        ("extra_rows: [{file: ../a.csv}]", "expected the name of a file inside data/<competition>/"),
        ("extra_rows: [{file: a.csv, share: 0.5}, {competition: b, share: 0.6}]", "shares of extra_rows are 1.1"),
        ("extra_rows: [{file: a.csv}, {file: a.csv}]", "names a.csv twice"),
        ("extra_rows: [{file: a.csv, first_epochs: 1}]", "this learner has no epochs"),
        ("extra_rows: [{file: a.npz, labels: {a: b}}]", "an .npz has our labels"),
        ("extra_rows: [{file: a.csv, layout: {metric: x}}]", "layout has 'metric'; expected the groups text, labels"),
        ("extra_rows: [{file: a.csv}]\nuse_features: true", "use_features is on, but extra_rows have texts alone"),
        ("distillation: {temperature: 2}", "distillation.loss is auto; set it to bce or kl"),
        ("distillation: {file: a.npz, loss: kl}", "needs an encoder, decoder or generator"),
        ("distillation: {file: a.csv}", "expected an .npz of src/teach.py"),
        ("distillation: {mix: 0.2}", "distillation.mix is set, but distillation.file names no file"),
    ],
)
def test_what_cannot_be_is_refused_in_plain_words(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        load(tmp_path, text)


def test_rules_of_learners_with_a_loss(tmp_path):
    with pytest.raises(ValueError, match="first_epochs is 5; expected at most training.epochs, 2"):
        load(tmp_path, "extra_rows: [{file: a.csv, first_epochs: 5}]", "encoder")
    with pytest.raises(ValueError, match="loss.name zlpr takes no fractions; these do: auto"):
        load(tmp_path, "distillation: {file: a.npz}\nloss: {name: zlpr}", "encoder")
    with pytest.raises(ValueError, match="extra_rows may bring the same rows back"):
        load(tmp_path, "extra_rows: [{file: a.csv}]\ntraining: {leave_out: [other]}", "encoder")


def test_differences_name_the_source_or_its_setting(tmp_path):
    one, other = (settings_of(load(tmp_path, f"extra_rows: [{{file: a.csv, weight: {w}}}]")) for w in (1, 2))
    assert describe_differences(one, other) == ["extra_rows[0].weight was 1.0, is now 2.0"]
    assert describe_differences(settings_of(RunSettings("tfidf")), one) == ["extra_rows was none, is now a.csv"]
    taught = settings_of(load(tmp_path, "distillation: {file: a.npz}"))
    assert describe_differences(taught, settings_of(RunSettings("tfidf"))) == ["distillation.file was a.npz, is now "]
