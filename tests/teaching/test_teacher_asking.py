"""A teacher's server that fails in every way: nothing is lost, nothing that was answered is asked twice."""

import json
from collections import Counter
from dataclasses import replace

import pytest
from teacher_server import MOODS, last_text, serving

from foldblend.errors import UserError
from foldblend.settings.teacher import TeacherSettings
from foldblend.teaching.answers import AnswerLog, read_labels
from foldblend.teaching.asking import Asking, Server, retry_after
from foldblend.teaching.questions import LabelList, ask_for_labels, labels_schema

pytest.importorskip("openai", reason="the package openai is not installed")
LABELS = LabelList(tuple(MOODS), {"joy": "the writer is happy"})
TEXTS = [f"text {number} is {word}" for number, word in enumerate(["happy", "scared", "mad", "glad"] * 5)]


def teacher(url, **more):
    options = {"model": "m", "base_url": url, "key_variable": "", "retry_seconds": 0.01, "concurrency": 4} | more
    return TeacherSettings(**options)


def ask(tmp_path, settings, texts=TEXTS, most_dollars=float("inf")):
    """Ask about the texts what the log does not know; returns the log's replies by text, and what was spent."""
    questions = ask_for_labels(settings, LABELS, texts, [()])
    log = AnswerLog(tmp_path / "log.jsonl")
    asking = Asking(Server(settings, labels_schema(LABELS.names)), log, most_dollars)
    try:
        asking.ask_all([each for each in questions if each.key not in log.replies], lambda count: None)
    finally:
        log.close()
    return {texts[each.row]: log.replies.get(each.key) for each in questions}, asking.spent


def named(replies):
    return {text: read_labels(each, LABELS.names, 1, 3) for text, each in replies.items()}


def test_every_text_is_asked_once_with_the_closed_list(tmp_path):
    with serving() as server:
        replies, spent = ask(tmp_path, teacher(server.url))
    assert all(one.kind == "usable" and len(one.labels) == 1 for one in named(replies).values())
    assert (
        set(server.answered.values()) == {1} and spent.n_answers == len(TEXTS) and spent.tokens_in == 100 * len(TEXTS)
    )
    body = server.bodies[0]
    schema = body["response_format"]["json_schema"]
    assert schema["strict"] and schema["schema"]["properties"]["labels"]["items"]["enum"] == list(MOODS)
    assert "- joy: the writer is happy\n- fear" in body["messages"][0]["content"]
    again, spent = ask(tmp_path, teacher("http://127.0.0.1:9/v1"))  # nobody is there, and nobody is asked
    assert again == replies and spent.n_answers == 0


@pytest.mark.parametrize("trouble", ["busy", "fail", "no_json", "no_choices", "cut", "slow"])
def test_a_server_in_trouble_is_asked_again(tmp_path, trouble):
    def plan(number, body):
        return trouble if number % 3 == 0 else "answer"

    with serving(plan=plan) as server:
        replies, spent = ask(tmp_path, teacher(server.url, timeout_seconds=0.5))
    assert {one.kind for one in named(replies).values()} == {"usable"}
    assert spent.n_answers == len(TEXTS) and spent.n_retries > 0
    if trouble != "slow":  # an answer that came too late was made all the same
        assert set(server.answered.values()) == {1}


def test_a_retry_after_holds_all_requests_back(tmp_path):
    with serving(plan=lambda number, body: "busy" if number == 0 else "answer") as server:
        ask(tmp_path, teacher(server.url, concurrency=1), TEXTS[:2])
    assert server.times[1] - server.times[0] >= 0.29
    assert retry_after({"retry-after-ms": "250"}) == 0.25 and retry_after({"retry-after": "7"}) == 7
    assert retry_after({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0
    assert retry_after({"retry-after": "soon"}) is None and retry_after({}) is None


def test_requests_per_minute_are_kept(tmp_path):
    with serving() as server:
        ask(tmp_path, teacher(server.url, requests_per_minute=600), TEXTS[:6])
    assert max(server.times) - min(server.times) >= 0.45


@pytest.mark.parametrize(
    "behaviour, kind",
    [
        ("refuse", "refused"), ("filter", "refused"), ("length", "cut"), ("prose", "unreadable"), ("foreign", "usable"),
        ("only_foreign", "unknown"),
    ],
)  # fmt: skip
def test_answers_without_labels_are_kept_apart_and_not_paid_for_again(tmp_path, behaviour, kind):
    with serving(plan=lambda number, body: behaviour) as server:
        replies, _ = ask(tmp_path, teacher(server.url), TEXTS[:3])
        again, spent = ask(tmp_path, teacher(server.url), TEXTS[:3])
    assert {one.kind for one in named(replies).values()} == {kind}
    assert again == replies and spent.n_answers == 0 and set(server.answered.values()) == {1}


def test_a_server_that_knows_no_schema_is_asked_for_text(tmp_path):
    with serving(plan=lambda number, body: "no_schema") as server:
        replies, spent = ask(tmp_path, teacher(server.url, concurrency=1))
    assert {one.kind for one in named(replies).values()} == {"usable"} and spent.n_rejected == 0
    assert ["response_format" in body for body in server.bodies] == [True] + [False] * len(TEXTS)
    with serving(plan=lambda number, body: "no_schema") as server, pytest.raises(UserError, match="rejects every"):
        ask(tmp_path / "other", teacher(server.url, structured="schema"))


def test_newer_models_are_given_the_newer_limit(tmp_path):
    with serving(plan=lambda number, body: "newer_limit") as server:
        ask(tmp_path, teacher(server.url, concurrency=1), TEXTS[:3])
    assert [body.get("max_completion_tokens") for body in server.bodies] == [None, 300, 300, 300]


def test_rejected_texts_are_counted_and_sent_again_by_the_next_start(tmp_path):
    def plan(number, body):
        return "reject" if "mad" in last_text(body) else "answer"

    with serving(plan=plan) as server:
        replies, spent = ask(tmp_path, teacher(server.url))
    assert spent.n_rejected == 5 and "too long for this model" in spent.last_error
    assert sum(reply is None for reply in replies.values()) == 5
    with serving() as server:
        replies, spent = ask(tmp_path, replace(teacher(server.url)))
    assert spent.n_answers == 5 and None not in replies.values()


@pytest.mark.parametrize(
    "behaviour, message",
    [
        ("wrong_key", "refuses requests without a key"),
        ("fail", "gives no answers"),
        ("reject", "rejects every request"),
    ],
)
def test_a_server_that_never_answers_ends_the_command(tmp_path, behaviour, message):
    with serving(plan=lambda number, body: behaviour) as server, pytest.raises(UserError, match=message):
        ask(tmp_path, teacher(server.url, attempts=2))
    assert server.n_requests < 2 * len(TEXTS)


def test_costs_stop_the_command_and_what_was_answered_is_kept(tmp_path):
    with serving() as server:
        settings = teacher(server.url, input_price=1000.0, concurrency=1)  # $0.10 per request
        with pytest.raises(UserError, match="more than twice"):
            ask(tmp_path, settings, most_dollars=0.25)
        assert server.n_requests == 3
        _, spent = ask(tmp_path, settings)
    assert spent.n_answers == len(TEXTS) - 3 and set(server.answered.values()) == {1}


def test_no_key_reaches_a_log_or_a_message(tmp_path, monkeypatch):
    monkeypatch.setenv("MY_TEST_KEY", "sk-this-is-secret-0123")
    with serving(plan=lambda number, body: "wrong_key") as server, pytest.raises(UserError) as caught:
        ask(tmp_path, teacher(server.url, key_variable="MY_TEST_KEY"))
    assert any("sk-this-is-secret-0123" in headers.get("authorization", "") + headers.get("Authorization", "")
               for headers in server.headers)  # fmt: skip
    assert "sk-this" not in str(caught.value) and "MY_TEST_KEY" in str(caught.value)
    assert "sk-this" not in (tmp_path / "log.jsonl").read_text()
    with pytest.raises(UserError, match="environment variable NO_SUCH_KEY is empty"):
        ask(tmp_path, teacher("http://127.0.0.1:9/v1", key_variable="NO_SUCH_KEY"))


# ---------- The log


def test_a_line_that_was_cut_off_is_asked_again_and_no_other(tmp_path):
    with serving() as server:
        ask(tmp_path, teacher(server.url))
        log = tmp_path / "log.jsonl"
        whole = log.read_bytes()
        for cut in (1, 20, len(whole.splitlines()[-1])):
            log.write_bytes(whole[:-cut])
            _, spent = ask(tmp_path, teacher(server.url))
            assert spent.n_answers == 1
            assert sorted(log.read_bytes().splitlines()) == sorted(whole.splitlines())


def test_a_damaged_line_is_named(tmp_path):
    log = tmp_path / "log.jsonl"
    log.write_text('{"key": "a", "answer": "b", "finish": "stop", "tokens": [1, 1]}\n{"key": 3}\n')
    with pytest.raises(UserError, match="line 2 is damaged"):
        AnswerLog(log)


def test_equal_texts_are_one_question_and_votes_are_several():
    questions = ask_for_labels(teacher("http://x/v1", votes=3, temperature=0.7), LABELS, ["a", "b", "a"], [()])
    counts = Counter(each.key for each in questions)
    assert len(counts) == 6 and Counter(counts.values()) == {1: 3, 2: 3}
    assert json.dumps(questions[0].messages).count("joy") == 1


# ---------- Kills


def test_three_kills_lose_no_answer_and_ask_for_none_again(tmp_path):
    """The short form of bench/teacher_kills.py."""
    from teacher_kills import CONCURRENCY, kill_and_restart

    outcome = kill_and_restart(tmp_path, kills=3, n_texts=150, seed=3)
    assert (outcome.kills, outcome.missing, outcome.asked_again) == (3, 0, [])
    assert outcome.answered_twice <= 3 * CONCURRENCY
