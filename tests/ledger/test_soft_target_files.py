from types import SimpleNamespace

import numpy as np
import pytest

from foldblend.ledger.dropped import load_soft_targets, with_file_hash
from foldblend.settings.nets import LossSettings
from foldblend.settings.run import RunSettings

TABLES = SimpleNamespace(train_ids=np.array(["a", "b", "007"]), label_names=("joy", "anger"))
GOOD = "id,anger,joy\n007,0.25,0.75\nb,1,0\na,0,1\n"


def load(tmp_path, text, task="multilabel"):
    (tmp_path / "soft.csv").write_text(text)
    return load_soft_targets(tmp_path / "soft.csv", TABLES, task)


@pytest.mark.parametrize("task", ["multilabel", "multiclass"])
def test_rows_and_labels_take_their_order(tmp_path, task):
    got = load(tmp_path, GOOD, task)
    assert got.dtype == np.float32 and got.tolist() == [[1, 0], [0, 1], [0.75, 0.25]]


def test_rounded_shares_of_one_label_sum_to_one(tmp_path):
    got = load(tmp_path, GOOD.replace("0.25", "0.24"), "multiclass")
    assert got.sum(1) == pytest.approx(1) and got[2, 0] == pytest.approx(0.75 / 0.99)


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("a,0,1\n", "", "1 ids of the training rows are not in it, first 'a'"),
        ("007", "7", "not in it, first '007'"),
        ("b,1,0", "a,1,0", "1 ids twice, first 'a'"),
        ("a,0,1\n", "a,0,1\nt1,0,1\n", "'t1'"),
        ("0.25", "1.25", r"1 values are outside \[0, 1\]"),
        ("0.25", "-0.1", r"1 values are outside \[0, 1\]"),
        ("0.25", "nan", "(?i)nan"),
        ("0.25", "", "'' is not a number"),
        ("0.25", "yes", "'yes' is not a number"),
        ("joy", "jjoy", r"Missing: \['joy'\], unknown: \['jjoy'\]"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(tmp_path, old, new, message):
    with pytest.raises(ValueError, match=message):
        load(tmp_path, GOOD.replace(old, new))


def test_rows_of_one_label_that_do_not_sum_to_one_are_named(tmp_path):
    with pytest.raises(ValueError, match="1 rows do not sum to 1, first '007' with 1.65"):
        load(tmp_path, GOOD.replace("0.25", "0.9"), "multiclass")


def test_the_files_hash_is_one_of_the_settings(tmp_path):
    run = RunSettings("encoder", loss=LossSettings(soft_targets="soft.csv"))
    with pytest.raises(ValueError, match="soft.csv is missing; loss.soft_targets names a file in"):
        with_file_hash(run, tmp_path)
    (tmp_path / "soft.csv").write_text(GOOD)
    hashed = with_file_hash(run, tmp_path)
    assert len(hashed.loss.soft_targets_sha256) == 64 and with_file_hash(hashed, tmp_path) == hashed
    (tmp_path / "soft.csv").write_text(GOOD + "\n")
    assert with_file_hash(run, tmp_path) != hashed
    with pytest.raises(ValueError, match="expected the same"):
        with_file_hash(hashed, tmp_path)
    plain = RunSettings("tfidf")
    assert with_file_hash(plain, tmp_path) is plain
