"""From decisions to checked bytes, for each form of answer; and each way an answer can be wrong."""

import io
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_answers import FORMS, NAMES, answers_for, good_bytes, read_back, tables_for
from tiny_competition import settings

from foldblend.data.answer_form import Constant
from foldblend.data.tables import Tables
from foldblend.submission.answers import (
    build_submission,
    lint_submission,
    lint_submission_file,
    read_submission,
    submission_bytes,
    with_constants,
)


@pytest.mark.parametrize("form", FORMS)
def test_round_trip(form, tmp_path):
    competition = FORMS[form]
    tables = tables_for(competition, zero="joy" if form in ("class", "delimited") else "0")
    decisions, probs = answers_for(competition)
    frame = build_submission(competition, tables, decisions, probs)
    assert tuple(frame.columns) == tables.sample_columns
    assert frame["id"].tolist() == tables.sample_ids.tolist()
    assert lint_submission(frame, competition, tables) == []
    path = tmp_path / "x.csv"
    path.write_bytes(submission_bytes(frame, competition.submission.separator))
    assert lint_submission_file(path, competition, tables) == []
    expected = probs if form == "probabilities" else decisions
    assert np.array_equal(read_back(path.read_bytes(), competition, tables), expected)


@given(st.permutations(range(9)), st.integers(0, 99))
def test_any_order_of_the_sample_gets_each_row_its_own_answer(order, seed):
    competition = FORMS["columns"]
    tables = tables_for(competition, 9, order=list(order))
    decisions, probs = answers_for(competition, 9, seed)
    frame = build_submission(competition, tables, decisions, probs)
    assert frame["id"].tolist() == [f"t{k}" for k in order]
    for row, k in enumerate(order):
        assert frame.loc[row, list(NAMES)].tolist() == decisions[k].astype(int).tolist()


def test_columns_follow_the_sample_and_not_label_names():
    competition = settings(labels={"names": NAMES})
    tables = tables_for(competition)
    swapped = ("fear", "id", "joy", *NAMES[2:])
    rows = tuple((row[1], row[0], *row[2:]) for row in tables.sample_rows)
    tables = Tables(**{**vars(tables), "sample_columns": swapped, "sample_rows": rows})
    decisions, probs = answers_for(competition)
    frame = build_submission(competition, tables, decisions, probs)
    assert tuple(frame.columns) == swapped
    assert frame["joy"].tolist() == decisions[::-1, 0].astype(int).tolist()
    assert lint_submission(frame, competition, tables) == []


@pytest.mark.parametrize("zero, dtype, text", [("0", np.int64, b",1,"), ("0.0", np.float64, b",1.0,")])
def test_numbers_are_written_as_the_sample_writes_them(zero, dtype, text):
    competition = FORMS["columns"]
    tables = tables_for(competition, zero=zero)
    frame = build_submission(competition, tables, *answers_for(competition))
    assert (frame.dtypes.iloc[1:] == dtype).all()
    assert text in submission_bytes(frame)
    other = tables_for(competition, zero="0.0" if zero == "0" else "0")
    with pytest.raises(ValueError, match="as the sample submission writes it"):
        lint_submission(frame, competition, other)


def test_pandas_reads_the_bytes_as_they_were_meant():
    competition = FORMS["probabilities"]
    frame = build_submission(competition, tables_for(competition), *answers_for(competition))
    again = pd.read_csv(io.BytesIO(submission_bytes(frame)))
    pd.testing.assert_frame_equal(again, frame, check_exact=True)


@given(st.lists(st.floats(0, 1), min_size=30, max_size=30))
def test_every_digit_of_a_probability_is_written(values):
    competition = FORMS["probabilities"]
    tables = tables_for(competition)
    probs = answers_for(competition)[1]
    probs[:, 0] = values
    data = submission_bytes(build_submission(competition, tables, None, probs))
    assert np.array_equal(read_back(data, competition, tables), probs)


def swap_lines(data, a, b):
    lines = data.split(b"\n")
    lines[a], lines[b] = lines[b], lines[a]
    return b"\n".join(lines)


@pytest.mark.parametrize(
    "form, break_it, messages",
    [
        ("columns", lambda d: b"", ["the file is empty"]),
        ("columns", lambda d: d.replace(b"\n", b"\r\n"), ["lines end in \\r\\n"]),
        ("columns", lambda d: b"\xef\xbb\xbf" + d, ["byte order mark"]),
        ("columns", lambda d: d.replace(b"joy", b"Joy"), ["column 'joy' is missing; did you mean 'Joy'?"]),
        ("columns", lambda d: d.replace(b"id,joy,fear", b"id,fear,joy"), ["columns in another order"]),
        ("columns", lambda d: d.replace(b"id,joy,fear", b"id,joy,joy"), ["'fear' is missing", "'joy' appears 2 times"]),
        ("columns", lambda d: d.replace(b"\nt29,", b"\nzz,"), ["1 ids of the sample submission are missing: 't29'",
                                                              "row 1 (line 2): id 'zz' is not in the sample"]),
        ("columns", lambda d: d.replace(b"\nt29,", b"\nt28,"),
                    ["row 2 (line 3): 'id' 't28' is also in row 1; ids must differ"]),
        ("columns", lambda d: swap_lines(d, 1, 2), ["row 1 (line 2): id 't28'; expected 't29' here"]),
        ("columns", lambda d: d[: d.rindex(b"t0")], ["1 ids of the sample submission are missing: 't0'"]),
        ("columns", lambda d: re.sub(rb"t29,.", b"t29,2", d), ["row 1 (line 2): 'joy' is '2'; expected 0 or 1"]),
        ("columns", lambda d: re.sub(rb"t29,.", b"t29,", d), ["row 1 (line 2): 'joy' is ''"]),
        ("columns", lambda d: re.sub(rb"t29,.", b"t29,nan", d), ["'joy' is 'nan'"]),
        ("columns", lambda d: re.sub(rb"t29,.", b"t29,True", d), ["'joy' holds 'True'; expected '0', '1'"]),
        ("probabilities", lambda d: re.sub(rb"t29,[^,]*", b"t29,1.01", d), ["'joy' is '1.01'; expected a number from"]),
        ("probabilities", lambda d: re.sub(rb"t29,[^,]*", b"t29,-0.1", d), ["'joy' is '-0.1'"]),
        ("probabilities", lambda d: re.sub(rb"t29,[^,]*", b"t29,nan", d), ["'joy' is 'nan'"]),
        ("probabilities", lambda d: re.sub(rb"t29,[^,]*", b"t29,inf", d), ["'joy' is 'inf'"]),
        ("probabilities", lambda d: re.sub(rb"t29,[^,]*", b"t29,1_0", d), ["'joy' is '1_0'"]),
        ("delimited", lambda d: re.sub(rb"t29,.*", b"t29,joy|rage", d), ["row 1 (line 2): unknown label 'rage'"]),
        ("delimited", lambda d: re.sub(rb"t29,.*", b"t29,joy|joy", d), ["'joy' appears twice in 'joy|joy'"]),
        ("numbers", lambda d: re.sub(rb"t29,.*", b"t29,0 5", d), ["unknown label '5'; expected 0 to 4"]),
        ("class", lambda d: re.sub(rb"t29,.*", b"t29,", d), ["row 1 (line 2): 'kind' is empty; expected one class"]),
        ("class", lambda d: re.sub(rb"t29,.*", b"t29,rage", d), ["unknown label 'rage'"]),
        ("one of columns", lambda d: re.sub(rb"t29\t.*", b"t29\t1\t1\t0\t0\t0", d), ["row 1 (line 2): 2 labels"]),
        ("one of columns", lambda d: re.sub(rb"t29\t.*", b"t29\t0\t0\t0\t0\t0", d), ["row 1 (line 2): 0 labels"]),
        ("one of columns", lambda d: d.replace(b"\t", b","), ["set submission.separator: ','"]),
    ],
)  # fmt: skip
def test_a_wrong_answer_is_refused(form, break_it, messages, tmp_path):
    data, competition, tables = good_bytes(form)
    broken = break_it(data)
    assert broken != data
    path = tmp_path / "x.csv"
    path.write_bytes(broken)
    with pytest.raises(ValueError) as error:
        lint_submission_file(path, competition, tables)
    for message in messages:
        assert message in str(error.value)


@pytest.mark.parametrize("value", [np.nan, None, 2, True, 1.0])
def test_a_frame_of_other_values_is_refused_before_it_is_written(value):
    competition = FORMS["columns"]
    tables = tables_for(competition)
    frame = build_submission(competition, tables, *answers_for(competition))
    frame["joy"] = frame["joy"].astype(object)
    frame.loc[3, "joy"] = value
    with pytest.raises(ValueError, match="'joy'"):
        lint_submission(frame, competition, tables)


def test_every_problem_at_once():
    data, competition, tables = good_bytes()
    frame = pd.read_csv(io.BytesIO(data))
    frame.loc[0, "joy"], frame.loc[1, "fear"], frame.loc[2, "id"] = 7, 9, "zz"
    with pytest.raises(ValueError) as error:
        lint_submission(frame, competition, tables)
    for message in ("'joy' is '7'", "'fear' is '9'", "'zz' is not in", "missing: 't27'", "4 problems"):
        assert message in str(error.value)


@pytest.mark.parametrize("decisions", [None, np.zeros((29, 5), bool), np.zeros((30, 4), bool)])
def test_decisions_of_another_shape(decisions):
    competition = FORMS["columns"]
    with pytest.raises(ValueError, match=r"expected|needs answers of shape \(30, 5\)"):
        build_submission(competition, tables_for(competition), decisions, np.zeros((30, 5)))


@pytest.mark.parametrize(
    "cells, pair",
    [
        ("True", ("False", "True")),
        ("FALSE", ("FALSE", "TRUE")),
        ("no", ("no", "yes")),
        ("Y", ("N", "Y")),
        ("0.0", ("0.0", "1.0")),
        ("0", ("0", "1")),
    ],
)
def test_no_and_yes_are_written_in_the_samples_words(cells, pair, tmp_path):
    competition = FORMS["columns"]
    tables = tables_for(competition, zero=cells)
    data = submission_bytes(build_submission(competition, tables, *answers_for(competition)))
    written = {cell for line in data.decode().splitlines()[1:] for cell in line.split(",")[1:]}
    assert written == set(pair)
    path = tmp_path / "x.csv"
    path.write_bytes(data)
    expected = answers_for(competition)[0][::-1]  # the sample's order is the reverse
    assert (read_submission(path, competition, tables) == expected).all()
    path.write_bytes(data.replace(pair[0].encode(), b"nay", 1))
    with pytest.raises(ValueError, match="expected"):
        lint_submission_file(path, competition, tables)


@pytest.mark.parametrize(
    "more, cell, sample",
    [
        ({"empty": "none"}, "none", "none"),
        ({"list": "python"}, "[]", "['joy']"),
        ({"list": "json"}, "[]", '["joy"]'),
        ({"values": "numbers", "first_number": 1}, "", "1 2"),
        ({"values": "numbers", "list": "json"}, "[]", "[0, 1]"),
    ],
)
def test_delimited_cells_of_other_kinds(more, cell, sample, tmp_path):
    answer = {"form": "delimited", "column": "labels", "delimiter": "|", **more}
    competition = settings(labels={"names": NAMES}, submission=answer)
    tables = tables_for(competition, zero=sample)
    decisions = answers_for(competition)[0]
    decisions[3] = False
    frame = build_submission(competition, tables, decisions, None)
    assert frame["labels"][frame["id"] == "t3"].tolist() == [cell]
    lint_submission(frame, competition, tables)
    path = tmp_path / "x.csv"
    path.write_bytes(submission_bytes(frame))
    assert (read_submission(path, competition, tables) == decisions[::-1]).all()


@pytest.mark.parametrize(
    "more, sample, message",
    [
        (
            {},
            "none",
            "the sample submission writes 'none' in 30 cells, which is not a label; ours is blank for a row without",
        ),
        ({}, "['joy']", r"writes lists, \"\['joy'\]\", ours not: set submission.list: python"),
        ({}, "0", "ours names: if it wants numbers, set submission.values: numbers"),
        ({"empty": "none"}, "neutral", "writes 'neutral' in 30 cells, which is not a label; ours says 'none'"),
    ],
)
def test_cells_of_another_kind_than_the_samples_are_a_finding(more, sample, message):
    competition = settings(
        labels={"names": NAMES}, submission={"form": "delimited", "column": "labels", "delimiter": "|", **more}
    )
    tables = tables_for(competition, zero=sample)
    decisions = answers_for(competition)[0]
    decisions[3] = False
    findings = lint_submission(build_submission(competition, tables, decisions, None), competition, tables)
    assert re.search(message, "\n".join(findings))


def test_blank_cells_are_a_finding_if_train_has_a_word_for_none():
    answer = {"form": "delimited", "column": "labels", "delimiter": "|"}
    labels = {"names": NAMES, **answer, "empty": "none"}
    competition = settings(labels=labels, submission=answer)
    tables = tables_for(competition, zero="joy")
    decisions = answers_for(competition)[0]
    decisions[3] = False
    findings = lint_submission(build_submission(competition, tables, decisions, None), competition, tables)
    assert "cells are blank, as the row has no label; no cell of the sample" in "\n".join(findings)


@pytest.mark.parametrize("form", ["columns", "probabilities", "delimited", "numbers"])
def test_labels_that_are_not_learned_get_their_constants(form, tmp_path):
    competition = FORMS[form]
    tables = tables_for(competition)
    constants = (Constant("fear", 0.9, ""), Constant("=1+1", 0.25, ""))
    learned = [k for k, name in enumerate(NAMES) if name not in ("fear", "=1+1")]
    tables = replace(
        tables,
        labels=tables.labels[:, learned],
        label_names=tuple(NAMES[k] for k in learned),
        all_names=NAMES,
        constants=constants,
    )
    decisions, probs = (part[:, learned] for part in answers_for(competition))
    frame = build_submission(competition, tables, decisions, probs)
    assert not [line for line in lint_submission(frame, competition, tables) if "'fear'" in line or "'=1+1'" in line]
    path = tmp_path / "x.csv"
    path.write_bytes(submission_bytes(frame, competition.submission.separator))
    answers = read_submission(path, competition, tables)[::-1]
    expected = probs if form == "probabilities" else decisions
    assert (answers[:, learned] == expected).all()
    assert set(answers[:, 1].tolist()) == {0.9 if form == "probabilities" else True}
    assert set(answers[:, 4].tolist()) == {0.25 if form == "probabilities" else False}


def test_probabilities_of_classes_still_sum_to_one():
    probs = np.float32([[0.25, 0.75], [0.5, 0.5]])
    whole = with_constants(probs, ("a", "never", "b"), [Constant("never", 0.01, "")], "multiclass")
    assert whole.sum(1) == pytest.approx([1, 1]) and whole[:, 1] == pytest.approx([0.01, 0.01])
