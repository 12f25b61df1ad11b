"""What answers say, read strictly; votes, and agreement against scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score, f1_score

from foldblend.teaching.answers import Reply, count_votes, measure_agreement, read_labels, read_texts

NAMES = ("joy", "fear", "mild anger")


def reply(content, finish="stop"):
    return Reply(content, finish, 1, 1)


@pytest.mark.parametrize(
    "content, labels",
    [
        ('{"labels": ["joy"]}', ("joy",)),
        ('["fear", "joy", "fear"]', ("fear", "joy")),
        ('```json\n{"labels": ["Mild Anger"]}\n```', ("mild anger",)),
        ('<think>joy? fear?\n</think>\n{"labels": [" joy "]}', ("joy",)),
        ("joy, Fear", ("joy", "fear")),
        ("- joy\n- mild anger.", ("joy", "mild anger")),
        ('{"labels": ["joy", "euphoria"]}', ("joy",)),
        ('{"labels": ["joy", "fear", "mild anger"]}', ("joy", "fear")),
    ],
)
def test_labels_of_the_list_are_read(content, labels):
    named = read_labels(reply(content), NAMES, 1, 2)
    assert (named.kind, named.labels) == ("usable", labels)


@pytest.mark.parametrize(
    "content, finish, kind",
    [
        ("I think this text is rather about joy than about fear", "stop", "unreadable"),
        ('{"labels": ["joy"', "stop", "unreadable"),
        ('{"labels": "joy"}', "stop", "unreadable"),
        ('{"labels": [1]}', "stop", "unreadable"),
        ("", "stop", "unreadable"),
        ("[" * 5000, "stop", "unreadable"),
        ('{"labels": []}', "stop", "unknown"),
        ('{"labels": ["euphoria"]}', "stop", "unknown"),
        ('{"labels": ["joy"]}', "length", "cut"),
        ("no", "refusal", "refused"),
    ],
)
def test_anything_else_is_no_label(content, finish, kind):
    named = read_labels(reply(content, finish), NAMES, 1, 2)
    assert (named.kind, named.labels) == (kind, ())


def test_labels_that_differ_in_case_or_hold_a_comma_are_told_apart():
    names = ("Joy", "joy", "calm, quiet", "fear")
    for said, labels in (
        ("joy", ("joy",)),
        ("Joy\ncalm, quiet", ("Joy", "calm, quiet")),
        ("fear, Joy", ("fear", "Joy")),
    ):
        assert read_labels(reply(said), names, 1, 4).labels == labels
    assert read_labels(reply('["JOY"]'), names, 1, 4).kind == "unknown"  # nobody knows which of the two


def test_none_is_an_answer_where_it_is_allowed():
    assert read_labels(reply('{"labels": []}'), NAMES, 0, 2).kind == "usable"
    assert read_labels(reply('{"labels": ["euphoria"]}'), NAMES, 0, 2).kind == "unknown"


def test_votes_become_shares_and_rows_without_any_stay_unknown():
    said = ['["joy"]', '["joy", "fear"]', "what?", '["fear"]']
    named = [(0, 0, read_labels(reply(each), NAMES, 1, 2)) for each in said]
    named.append((0, 1, read_labels(reply("", "refusal"), NAMES, 1, 2)))
    probs, tally = count_votes(named, (1, 3), NAMES)
    assert probs[0, 0] == pytest.approx([2 / 3, 2 / 3, 0])
    assert np.isnan(probs[0, 1:]).all()
    assert tally.kinds == {"usable": 3, "unreadable": 1, "refused": 1}
    assert tally.lines() == [
        "1 of 5 answers refused by the model or a filter",
        "1 of 5 answers in another form than asked for",
    ]


def test_agreement_is_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    labels, given = rng.random((200, 4)) < 0.3, rng.random((200, 4)) < 0.4
    given[:150] = labels[:150]
    labels[:, 3] = given[:, 3] = True
    found = measure_agreement(labels, given)
    assert found.macro_f1 == pytest.approx(f1_score(labels, given, average="macro"))
    kappas = [cohen_kappa_score(labels[:, label], given[:, label]) for label in range(3)]
    assert found.kappa[:3] == pytest.approx(kappas) and np.isnan(found.kappa[3])


def test_texts_are_read_with_their_labels():
    said = '{"texts": [{"text": " so  glad ", "labels": ["joy", "bliss"]}, {"text": ""}, "\\ud83d", "plain"]}'
    assert read_texts(reply(said), NAMES) == ("usable", [("so glad", ("joy",)), ("plain", ())])
    assert read_texts(reply("none"), NAMES) == ("unreadable", [])
