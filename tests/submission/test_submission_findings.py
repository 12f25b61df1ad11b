"""An answer that was not meant: the sample submission, an earlier one, rates that are far off."""

import hashlib

import numpy as np
import pytest
from tiny_answers import FORMS, NAMES, answers_for, good_bytes, tables_for

from foldblend.submission.answers import build_submission, lint_submission, lint_submission_file


@pytest.mark.parametrize("form, zero", [("columns", "0"), ("probabilities", "0.50"), ("class", "joy")])
@pytest.mark.parametrize(
    "n_test, said", [(30, "; was anything predicted?"), (3, ", which 3 test rows may well deserve")]
)
def test_the_sample_submission_itself_is_a_finding(form, zero, n_test, said):
    competition = FORMS[form]
    tables = tables_for(competition, n_test, zero=zero)
    decisions = np.zeros((n_test, len(NAMES)), bool)
    decisions[:, 0] = form == "class"
    frame = build_submission(competition, tables, decisions, np.full((n_test, len(NAMES)), 0.5))
    findings = lint_submission(frame, competition, tables)
    assert findings[0] == "every answer is the sample submission's" + said
    assert (len(findings) == 1) == (n_test == 3)


def test_the_same_bytes_as_an_earlier_submission_are_a_finding(tmp_path):
    data, competition, tables = good_bytes()
    path, first = tmp_path / "now.csv", tmp_path / "first.csv"
    path.write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    assert lint_submission_file(path, competition, tables, earlier={digest: path}) == []
    findings = lint_submission_file(path, competition, tables, earlier={digest: first})
    assert findings == [f"byte for byte the same as {first}: Kaggle scores it the same"]


def test_findings_on_rates():
    competition = FORMS["columns"]
    tables = tables_for(competition, 100)
    decisions = answers_for(competition, 100)[0]
    decisions[:, 0] = False
    decisions[:, 1] = np.arange(100) < 3
    frame = build_submission(competition, tables, decisions, None)
    findings = lint_submission(frame, competition, tables)
    assert findings[0] == "label 'joy' is 0 in all 100 rows"
    assert findings[1].startswith("label 'fear': positive rate 0.0300, training 0.3750")
    assert len(findings) == 2


def test_a_finding_on_rows_without_a_label():
    competition = FORMS["columns"]
    tables = tables_for(competition, 100)
    decisions = answers_for(competition, 100)[0]
    decisions[:70] = False
    frame = build_submission(competition, tables, decisions, None)
    empty = (~decisions.any(axis=1)).sum()
    expected = f"rows without a label: {empty} of 100 ({empty}.0%), training {(~tables.labels.any(axis=1)).mean():.1%}"
    assert expected in lint_submission(frame, competition, tables)


def test_findings_are_against_oof_where_it_is_given():
    competition = FORMS["columns"]
    tables = tables_for(competition, 100)
    decisions = np.random.default_rng(3).random((100, len(NAMES))) < 0.05
    frame = build_submission(competition, tables, decisions, None)
    assert len(lint_submission(frame, competition, tables)) == 6
    oof = np.random.default_rng(4).random((200, len(NAMES))) < 0.05
    assert lint_submission(frame, competition, tables, oof_answers=oof) == []
    assert "OOF" in lint_submission(frame, competition, tables, oof_answers=~oof)[0]
