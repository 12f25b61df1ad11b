import json
from dataclasses import fields, replace
from pathlib import Path

import pytest

from foldblend.errors import UserError
from foldblend.ledger.oof import check_same_settings
from foldblend.ledger.records import write_record
from foldblend.settings.loading import load_run, open_job, run_from_settings
from foldblend.settings.nets import OptimizerSettings
from foldblend.settings.paths import Paths
from foldblend.settings.records import RENAMED, default_settings_of, settings_of, with_defaults
from foldblend.settings.run import RunSettings

PROJECT = Path(__file__).resolve().parents[2]


def default_run(learner):
    """As a run is that was trained when its settings were fewer."""
    run = RunSettings(learner)
    return replace(run, tfidf=replace(run.tfidf, strip_accents=True)) if learner == "tfidf" else run


def as_stored(run):
    return json.loads(json.dumps(settings_of(run)))


@pytest.mark.parametrize("learner", ["encoder", "tfidf"])
def test_what_is_younger_had_its_default(learner):
    """Except what runs did differently before there was a setting for it."""
    run = as_stored(default_run(learner))
    older = {name: dict(values) if isinstance(values, dict) else values for name, values in run.items()}
    for values in older.values():
        if isinstance(values, dict):
            values.popitem()
    assert older != run and with_defaults(older) == run
    older.popitem()
    assert with_defaults(older) == run


def test_what_was_stored_stays_and_so_does_what_stands_beside():
    run = as_stored(RunSettings("encoder", optimizer=OptimizerSettings(lr=1e-3)))
    del run["optimizer"]["state_precision"]
    found = with_defaults({**run, "data_sha256": "ab"})
    assert found["optimizer"]["lr"] == 1e-3 and found["optimizer"]["state_precision"] == "float32"
    assert found["data_sha256"] == "ab"


def test_a_record_without_a_learner_of_ours_is_left_alone():
    assert with_defaults({"kind": "logits"}) == {"kind": "logits"}
    assert with_defaults({"learner": "none of ours", "a": 1}) == {"learner": "none of ours", "a": 1}


OLD_RECORD = Path(__file__).with_name("encoder_record_0.1.json")
"""The settings that version 0.1 stored beside a fold of configs/runs/minilm.yaml."""


def test_a_record_under_old_names_is_the_same_run():
    stored = json.loads(OLD_RECORD.read_text())
    assert {"head_start", "tail_share"} <= stored["model"].keys() and "moments" in stored["optimizer"]
    assert with_defaults(stored) == as_stored(load_run(Paths(PROJECT), "minilm"))


def test_a_run_is_rebuilt_from_its_old_record():
    assert run_from_settings(json.loads(OLD_RECORD.read_text()), "fold0.json") == load_run(Paths(PROJECT), "minilm")


def test_old_names_in_yaml_are_read_with_one_warning(paths, capfd):
    path = paths.configs / "runs" / "older.yaml"
    path.write_text("learner: encoder\nmodel: {tail_share: 0.25}\noptimizer: {embedding_rows: touched}\n")
    run = load_run(paths, "older")
    assert run.model.tail_fraction == 0.25 and run.optimizer.embedding_updates == "lazy"
    load_run(paths, "older")
    renames = "model.tail_share to model.tail_fraction, optimizer.embedding_rows to optimizer.embedding_updates"
    said = capfd.readouterr().err
    assert " ".join(said.split()) == f"warning: {path} has old names, which are still read; rename {renames}"
    assert said.startswith("warning: /")


def test_a_setting_under_both_names_is_refused(paths):
    (paths.configs / "runs" / "both.yaml").write_text(
        "learner: encoder\nmodel: {tail_share: 0.2, tail_fraction: 0.3}\n"
    )
    with pytest.raises(UserError, match=r"both.yaml: model.tail_share and model.tail_fraction are the same setting"):
        load_run(paths, "both")


def test_an_old_flag_names_the_new_one(paths):
    with pytest.raises(UserError, match=r"unknown flag --optimizer.moments; it is now --optimizer.state_precision"):
        open_job("train.py", ["--optimizer.moments", "8bit"], lambda parser: None, with_run=True)


def test_every_old_name_has_a_new_one_that_exists():
    groups = {each.name: each.type for each in fields(RunSettings)}
    for old, new in RENAMED.items():
        (group, name), (new_group, new_name) = old.split("."), new.split(".")
        known = {each.name for each in fields(groups[new_group])}
        assert group == new_group and new_name in known and name not in known


def test_folds_of_an_old_record_are_kept(paths):
    """The same run, trained on by this version, is not told that it was trained with other settings."""
    folder = paths.oof("sample") / "minilm"
    folder.mkdir(parents=True)
    (folder / "fold0.npz").touch()
    of_data = dict.fromkeys(("ids", "texts"), "0" * 64)
    described = {"kind": "logits", "n_folds": 5, "fold": 0, "rows": 1, "test_rows": 1, "label_names": ["joy"]}
    described |= {"folds_sha256": "0" * 64, "npz_sha256": "0" * 64, "train_sha256": of_data, "test_sha256": of_data}
    write_record(folder / "fold0.json", {"settings": json.loads(OLD_RECORD.read_text()), **described})
    run = load_run(paths, "minilm")
    check_same_settings(paths, "sample", "minilm", settings_of(run), default_settings_of(run))
    changed = replace(run, model=replace(run.model, head_init="random"))
    with pytest.raises(UserError, match="model.head_init was label_names, is now random"):
        check_same_settings(paths, "sample", "minilm", settings_of(changed), default_settings_of(run))
