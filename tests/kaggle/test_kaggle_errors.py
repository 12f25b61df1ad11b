"""Each way in which Kaggle can refuse has its own message, with what to do next."""

import pytest

from foldblend.kaggle.client import SUBMITTING, explain

CASES = [
    (401, "Unauthenticated", "credentials", "kaggle auth login"),
    (429, "Too Many Requests", "busy", "Wait a minute"),
    (500, "Internal Server Error", "server", "later"),
    (503, "Service Unavailable", "server", "later"),
    (403, "You cannot submit until you accept the competition rules", "rules", "emo/rules"),
    (403, "You must accept this competition's rules before you can continue", "rules", "emo/rules"),
    (403, "Permission 'competitions.participate' was denied", "slug", "files.kaggle"),
    (404, "Not Found", "slug", "files.kaggle"),
    (400, "Your team has used its submission allowance (5 of 5)", "limit", "midnight UTC"),
    (400, "You have reached the daily limit", "limit", "midnight UTC"),
    (403, "The competition deadline has passed", "deadline", "no more submissions"),
    (400, "Submissions are closed: the competition has ended", "deadline", "no more submissions"),
    (400, "Bad Request", "refused", "emo/submissions"),
]


@pytest.mark.parametrize("status, said, kind, fix", CASES)
def test_what_kaggle_answers(status, said, kind, fix):
    error = explain("emo", "http", status, f"{status}: {said}", SUBMITTING)
    assert (error.kind, error.arrived) == (kind, None if kind == "server" else False)
    assert said in str(error) and fix in str(error)


@pytest.mark.parametrize(
    "kind, fix, open_",
    [
        ("credentials", "kaggle auth login", False),
        ("network", "Check the network", True),
        ("timeout", "--timeout", True),
        ("upload", "nothing was submitted", False),
        ("client", "kaggle>=2.2.4", True),
    ],
)
def test_no_answer(kind, fix, open_):
    """Only a lost answer to the request that submits leaves open whether it arrived."""
    assert fix in str(explain("emo", kind, None, "why", ""))
    assert explain("emo", kind, None, "why", SUBMITTING).arrived is (None if open_ else False)
    assert explain("emo", kind, None, "why", "StartSubmissionUpload").arrived is False


def test_messages_differ():
    messages = {str(explain("emo", "http", status, "why", "")).split("(")[0] for status in (401, 429, 500, 404, 400)}
    assert len(messages) == 5
