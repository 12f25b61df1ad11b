"""What may be wrong with a competition's YAML: keys, types, conflicts, and the text itself."""

import random

import yaml
from made_up_files import Made

KEYS = [
    "id_column", "task", "metric", "n_folds", "fold_seed", "near_duplicates", "files", "text", "labels", "submission",
    "files.train", "files.test", "files.sample_submission", "files.encoding", "files.separator", "files.quoting",
    "files.source", "files.kaggle", "files.instructions", "text.columns", "text.template", "labels.form",
    "labels.column", "labels.delimiter", "labels.values", "labels.names", "labels.groups", "submission.form",
    "submission.column", "submission.delimiter", "submission.separator", "submission.values", "nfolds", "label.names",
    "id", "text.colums", "self", "__class__", "competition", "run", "config", "help", "",
]  # fmt: skip
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
    key, value = rng.choice(KEYS), rng.choice(VALUES)
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
