"""What may be wrong with a competition's YAML: keys, types, conflicts, and the text itself."""

import random
from dataclasses import fields

import yaml
from made_up_files import Made

from foldblend.settings.competition import CompetitionSettings, FoldsSettings, LabelsSettings, SubmissionSettings
from foldblend.settings.data_files import FilesSettings, TextSettings

GROUPS = {"files": FilesSettings, "text": TextSettings, "labels": LabelsSettings, "submission": SubmissionSettings,
          "folds": FoldsSettings}  # fmt: skip
KEYS = [
    *(field.name for field in fields(CompetitionSettings)),
    *(f"{group}.{field.name}" for group, settings in GROUPS.items() for field in fields(settings)),
    "nfolds", "label.names", "id", "text.colums", "self", "__class__", "competition", "run", "config", "help", "",
]  # fmt: skip
"""Every setting of a competition, so a new one is broken too, and keys that are none."""
NAMED = {
    "files.train": [["train.csv", "dev.csv"], ["train.csv", "train.csv"], "test.csv", [], ["train.csv"], "train.tsv"],
    "files.test": ["train.csv", "test.csv", "none", "test.xlsx"],
    "files.sample_submission": ["none", "train.csv", "sample_submission.csv", "sample.csv"],
    "files.encodings": [{"test.csv": "cp1252"}, {"train.csv": "utf-16"}, {"tset.csv": "utf-8"}, {"test.csv": "no"}],
    "files.separators": [{"test.csv": ";"}, {"train.csv": "\t"}, {"test.csv": ""}, {"sample_submission.csv": ";"}],
    "files.columns": [{"train.csv": ["id", "text"]}, {"test.csv": ["id", "text", "x"]}, {"test.csv": ["id", "id"]}],
    "files.rename": [{"test.csv": {"text": "txt"}}, {"train.csv": {"joy": "id"}}, {"train.csv": {"id": "id"}},
                     {"sample_submission.csv": {"id": "Id"}}, {"test.csv": {"text": "id"}}],
    "files.ids": [{"train.csv": "row_number"}, {"test.csv": "sample_order"}, {"test.csv": "rows"},
                  {"train.csv": "row_number_from_1", "test.csv": "row_number_from_1"}],
    "files.split_column": ["split", "id", "text", "joy"], "files.test_values": [["test"], ["1"], ["", "0"]],
    "files.train_values": [["train"], ["test"], ["0", "1"]], "files.answer_rows": ["test", "sample"],
    "files.hidden_test_rows": [5, 10**9], "files.invalid_bytes": ["cp1252", "replace"], "files.sheet": ["Sheet1"],
    "text.pair": [["text", "title"], ["title", "body"], ["text"], ["id", "text"], ["text", "text"]],
    "text.empty": ["allow", "drop", "keep"],
    "labels.columns": [["joy", "fear"], ["label"], ["text"], ["labels"]], "labels.first_number": [1, 7],
    "labels.map": [{"1": 0}, {"0": "1", "1": "0"}, {"joy": "fear"}, {"": "0"}, {"1": "x"}, {"0": ""}, {"1": 0.5}],
    "labels.unknown": [[-1, ""], ["0"], ["1"], [""], "nan", ["joy"]], "labels.positive_from": [0.5, 1, 0.01, 2],
    "labels.aggregate": ["majority", "mean", "any", "median"], "labels.empty": ["none", "joy", "0"],
    "labels.rename": [{"joy": "fear"}, {"anger": "joy"}, {"joy": "joy"}, {"joy": "awe", "fear": "awe"}],
    "labels.constants": [{"joy": 0}, {"joy": 1, "fear": 1}, {"awe": 0}, {"joy": 0.3}, {"joy": -1}, {"joy": "no"}],
    "submission.row_id": ["{id}_{label}", "{id}", "{label}{id}", "x"], "submission.label_column": ["label", "id", "p"],
    "submission.empty": ["none", "joy", " "], "submission.list": ["python", "json", "off", True],
    "submission.first_number": [1, -1], "folds.file": ["folds.csv", "train.csv", "test.csv"],
    "folds.column": ["kfold", "id", "joy", "fold"], "groups": ["author", "id", "text", "joy", "title"],
    "task": ["ordinal", "multilabel", "multiclass"],
    "metric": ["quadratic_weighted_kappa", "qwk", "matthews", "macro_ap", "f1", "micro_f1", "jaccard"],
}  # fmt: skip
"""Setting -> values of the right kind, which may or may not fit the files."""
VALUES = [
    None, True, False, 0, 1, 2, 3, -1, 1000, 10**30, 1.5, 0.8, float("nan"), float("inf"), "", " ", "id",
    "text", "five",
    "2", "1e3", "columns", "delimited", "class", "probabilities", "multiclass", "multilabel", "macro_f1", "accuracy",
    "log_loss", "macro_auc", "samples_f1", "names", "numbers", "none", "minimal", "by_hand", "utf-16", "utf-7",
    "rot13",
    "hex", "idna", "unicode_escape", "punycode", "undefined", "cp1252", "latin-1", "ascii", "utf-32", ",", ";",
    "\t", "|",
    "ab", '"', "\n", " ", "{text}", "{text!r}", "{}", "{0}", "{text", "{text.x}", "{text:>9}", "{title} | {body}",
    "../train.csv", "/etc/passwd", "a\0b", "train.csv", ".", "sub/train.csv", "x" * 5000, "=1+1", "😀", [], {}, [[]],
    ["text"], ["title", "body"], ["text", "text"], ["joy"], ["joy", "fear"], ["joy", "joy"], [1, 2], [None], {"a": 1},
    {"both": ["joy", "fear"]}, {"a": ["joy"], "b": ["fear"]}, {"a": ["joy"], "b": []}, {1: 2}, ["a" * 300],
]  # fmt: skip
TEXTS = [
    b"", b"\n", b"- a\n- b\n", b"id_column\n", b"id_column: id\nid_column: id\n", b"\xff\xfe", b"a: \x00\n",
    b"a:\tb\n",
    b"id_column: !!python/object/apply:os.system ['touch hacked']\n", b"id_column: &a [*a]\n", b"? {a: b}\n: c\n",
    b"id_column: 2026-99-99\n", b"id_column: 2026-01-01\n", b"[" * 3000, b"{" * 3000, b"id_column: 'id\n", b"<<: 3\n",
    b"a: &a [1,1,1,1,1,1,1,1,1]\n" + b"".join(b"%c: &%c [%s]\n" % (c, c, b",".join([b"*%c" % (c - 1)] * 9)) for c in
                                              range(98, 108)), b"--- \nid_column: id\n---\nid_column: id\n",
    b"id_column: &a [1]\nn_folds: *a\n", b"files: other.yaml\nid_column: id\n", b"id_column: id\nfiles:\n",
    b"id_column: 0o17\n", b"id_column: 1_000\n", b"n_folds: 0x10\nid_column: id\n",
    b"%YAML 9.9\n---\nid_column: id\n",
    b"id_column: " + b"1" * 5000 + b"\n", b"id_column: id\nn_folds: 190:20:30\n", b"? [1, 2]\n: 3\n", b"null: 1\n",
]  # fmt: skip


def break_settings(rng: random.Random, made: Made) -> tuple[bytes, str]:
    """The YAML's bytes with something wrong in them (or not: not every change is a fault), and what was done."""
    kind = rng.random()
    if kind < 0.1:
        return rng.choice(TEXTS), "odd YAML"
    settings = yaml.safe_load(yaml.safe_dump(made.settings))
    key = rng.choice(KEYS)
    value = rng.choice(NAMED.get(key, VALUES) if rng.random() < 0.5 else VALUES)
    if kind < 0.2:
        settings.pop(rng.choice(list(settings)))
    else:
        put(settings, key, value)
    data = yaml.safe_dump(settings, allow_unicode=True).encode()
    if kind > 0.9:
        at = rng.randrange(len(data))
        data = data[:at] + rng.choice([b":", b"\t", b"'", b"{", b"\x00", b"\xff", b"-", b"&", b"\n"]) + data[at:]
    return data, f"{key}: {value!r:.40}"


def put(settings: dict, key: str, value) -> None:
    group, _, leaf = key.partition(".")
    if leaf and not isinstance(settings.get(group), dict):
        settings[group] = {}
    (settings[group] if leaf else settings).__setitem__(leaf or group, value)
