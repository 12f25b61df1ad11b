"""The real kaggle client against a Kaggle of our own, through every fault that a network and a server have."""

import os
import stat
from contextlib import nullcontext

import pytest
import requests
from kaggle_server import KEY, SLUG, serving

from foldblend.kaggle.client import KaggleClient, KaggleError
from foldblend.kaggle.worker import _refuse_foreign

TRUTH = {f"t{k}": [k % 2, int(k % 3 == 0)] for k in range(12)}


@pytest.fixture
def kaggle(tmp_path, monkeypatch):
    with serving(TRUTH, monkeypatch, tmp_path / "home") as server:
        yield server


@pytest.fixture
def client(kaggle):
    with KaggleClient(SLUG, 10) as client:
        yield client


@pytest.fixture
def csv_file(tmp_path):
    path = tmp_path / "with space ü.csv"
    path.write_text("id,a,b\n" + "".join(f"{name},{row[0]},{row[1]}\n" for name, row in TRUTH.items()))
    return path


def test_a_submission_from_upload_to_score(kaggle, client, csv_file):
    assert client.limits().num_allowed_now == 5
    ref = client.submit(csv_file.name, csv_file.read_bytes(), "first, with ü")
    assert kaggle.asked[-3:] == ["StartSubmissionUpload", "PUT", "CreateSubmission"]
    assert kaggle.submissions[0]["content"] == csv_file.read_bytes()
    first, one = client.submission(ref), client.submission(ref)
    assert (first.status, first.public_score) == ("pending", None)
    assert (one.status, one.public_score, one.private_score) == ("complete", 1.0, None)
    assert (one.file_name, one.description, one.total_bytes) == (
        csv_file.name,
        "first, with ü",
        csv_file.stat().st_size,
    )
    assert client.submissions() == [one] and client.limits().num_today == 1
    assert client.limits().num_allowed_now == 4


def test_every_page_is_listed(kaggle, client):
    for k in range(45):
        kaggle.add(f"{k}.csv", b"", str(k))
    assert sorted(one.ref for one in client.submissions()) == list(range(1000, 1045))


def test_what_kaggle_cannot_score_says_why(kaggle, client, csv_file):
    csv_file.write_text("id,a,b\nt0,1,0\n")
    ref = client.submit(csv_file.name, csv_file.read_bytes(), "m")
    kaggle.polls_until_scored = 0
    one = client.submission(ref)
    assert (one.status, one.error_description) == ("error", "Evaluation Exception: the ids are not the test rows'")


@pytest.mark.parametrize(
    "method, fault, kind, arrived, n_listed",
    [
        ("StartSubmissionUpload", "cut", "network", False, 0),
        ("StartSubmissionUpload", (503, "down"), "server", False, 0),
        ("StartSubmissionUpload", (403, "You cannot submit until you accept the competition rules"), "rules", False, 0),
        ("PUT", (400, "bad bytes"), "upload", False, 0),
        ("PUT", (503, "again"), "upload", False, 0),
        ("CreateSubmission", "cut", "network", None, 0),
        ("CreateSubmission", "cut after", "network", None, 1),
        ("CreateSubmission", (500, "oops"), "server", None, 0),
        ("CreateSubmission", "html", "network", None, 0),
        ("CreateSubmission", (400, "the competition deadline has passed"), "deadline", False, 0),
    ],
)
def test_a_failed_submission_is_an_error_that_knows_what_may_have_arrived(
    kaggle, client, csv_file, method, fault, kind, arrived, n_listed
):
    """The client itself calls a failed upload a success with another text."""
    kaggle.fault(method, fault)
    with pytest.raises(KaggleError) as raised:
        client.submit(csv_file.name, csv_file.read_bytes(), "m")
    assert (raised.value.kind, raised.value.arrived) == (kind, arrived)
    assert len(client.submissions()) == n_listed  # the same worker goes on


def test_a_cut_upload_goes_on_by_itself(kaggle, client, csv_file):
    kaggle.fault("PUT", "cut")
    assert client.submit(csv_file.name, csv_file.read_bytes(), "m") == 1000


def test_slow_answers_end_by_the_limit(kaggle, csv_file):
    kaggle.fault("GetSubmissionLimits", ("slow", 3))
    with KaggleClient(SLUG, 0.7) as client:
        with pytest.raises(KaggleError, match="did not answer in time") as raised:
            client.limits()
        assert raised.value.kind == "timeout"
        kaggle.fault("CreateSubmission", ("slow", 3))
        with pytest.raises(KaggleError) as raised:
            client.submit(csv_file.name, csv_file.read_bytes(), "m")
        assert raised.value.arrived is None


def test_a_client_that_hangs_or_dies_is_replaced(kaggle, csv_file, monkeypatch):
    monkeypatch.setattr("foldblend.kaggle.client.PATIENCE", 0.001)
    with KaggleClient(SLUG, 10) as client:
        with pytest.raises(KaggleError, match="waited 0 s") as raised:
            client.limits()
        assert raised.value.kind == "timeout"
        monkeypatch.setattr("foldblend.kaggle.client.PATIENCE", 3)
        assert client.limits().num_today == 0
        client._worker.kill()
        client._worker.wait()
        with pytest.raises(KaggleError, match="kaggle client failed: it ended with status -9"):
            client.limits()
        assert client.limits().num_today == 0


def test_no_network(kaggle, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    with KaggleClient(SLUG, 5) as client, pytest.raises(KaggleError, match="cannot be reached.*Connection refused"):
        client.limits()


def test_a_wrong_slug(kaggle):
    with KaggleClient("emo-2042", 5) as client, pytest.raises(KaggleError, match="no competition 'emo-2042'"):
        client.limits()


@pytest.mark.parametrize("slug", ["../../evil", "https://www.kaggle.com/competitions/emo", "", "a b", "-x"])
def test_what_cannot_be_a_slug(slug):
    with pytest.raises(ValueError, match="expected the last part of the address"):
        KaggleClient(slug)


def test_no_credentials(kaggle, monkeypatch):
    monkeypatch.delenv("KAGGLE_KEY")
    with KaggleClient(SLUG, 5) as client, pytest.raises(KaggleError, match="no valid Kaggle credentials.*auth login"):
        client.limits()
    assert kaggle.asked == []


@pytest.mark.parametrize("token, fine", [(KEY, True), ("outdated-0123456789", False)])
def test_a_token(kaggle, monkeypatch, token, fine):
    monkeypatch.delenv("KAGGLE_KEY")
    monkeypatch.delenv("KAGGLE_USERNAME")
    monkeypatch.setenv("KAGGLE_API_TOKEN", token)
    with KaggleClient(SLUG, 5) as client:
        if fine:
            assert client.limits().num_today == 0
            assert kaggle.authorizations >= {f"Bearer {KEY}"}
        else:
            with pytest.raises(KaggleError, match="no valid Kaggle credentials"):
                client.limits()


def test_a_kaggle_json(kaggle, tmp_path, monkeypatch):
    monkeypatch.delenv("KAGGLE_KEY")
    folder = tmp_path / "home" / ".kaggle"
    folder.mkdir(parents=True)
    (folder / "kaggle.json").write_text(f'{{"username": "u", "key": "{KEY}"}}')
    os.chmod(folder / "kaggle.json", stat.S_IRUSR)
    with KaggleClient(SLUG, 5) as client:
        assert client.limits().num_today == 0


def test_the_clients_own_tracing_is_off(kaggle, csv_file, monkeypatch):
    """It prints every header, and would make an error a page long."""
    monkeypatch.setenv("VERBOSE", "1")
    kaggle.fault("PUT", (400, "no"))
    with KaggleClient(SLUG, 5) as client, pytest.raises(KaggleError, match="no reason given") as raised:
        client.submit(csv_file.name, csv_file.read_bytes(), "m")
    assert len(str(raised.value)) < 120


@pytest.mark.parametrize("fault", [(400, f"your key {KEY} is odd"), (401, KEY), (500, f"Basic dTp{KEY}")])
def test_a_planted_key_is_in_no_error(kaggle, monkeypatch, fault):
    kaggle.fault("GetSubmissionLimits", fault)
    with KaggleClient(SLUG, 5) as client:
        with pytest.raises(KaggleError) as raised:
            client.limits()
        assert KEY not in str(raised.value) and "<redacted>" in str(raised.value)
        kaggle.add("a.csv", b"", f"the key is {KEY}")
        assert client.submissions()[0].description == "the key is <redacted>"


API = "https://www.kaggle.com/api/v1/x"
STORE = "https://storage.googleapis.com/kaggle/x.zip?signature=1"


@pytest.mark.parametrize(
    "method, status, url, target, is_refused",
    [
        ("GET", 302, API, "/api/v1/y", False),
        ("POST", 308, API, "/api/v1/y", False),
        ("POST", 302, API, STORE, False),  # a download: asked for by POST, sent on as GET
        ("GET", 307, API, STORE, False),
        ("POST", 307, API, STORE, True),  # the body would be sent once more
        ("POST", 308, API, "https://evil.example/x", True),
        ("GET", 302, API, "https://evil.example/x", True),
        ("GET", 302, API, "https://evilkaggle.com/x", True),
        ("GET", 302, API, "//evil.example/x", True),
        ("GET", 302, API, STORE.replace("https", "http"), True),
        ("GET", 302, API, API.replace("https", "http"), True),
    ],
)
def test_requests_are_not_sent_on_to_other_hosts(method, status, url, target, is_refused):
    with pytest.raises(requests.exceptions.InvalidURL, match="refused") if is_refused else nullcontext():
        _refuse_foreign(method, status, url, target)


def test_a_download_that_is_sent_on_to_another_host_is_refused(kaggle, client, tmp_path):
    kaggle.sent_to = "http://evil.example/x.zip"
    with pytest.raises(KaggleError, match="sends the request on to 'evil.example': refused"):
        client.download(tmp_path)
    assert not list(tmp_path.rglob("*.zip"))


def test_the_bytes_that_were_checked_are_uploaded(kaggle, client, tmp_path):
    """Whatever becomes of the file in the meantime."""
    client.submit("a.csv", b"id,a,b\nt0,1,0\n", "m")
    assert kaggle.submissions[0]["content"] == b"id,a,b\nt0,1,0\n"
    assert kaggle.submissions[0]["fileName"] == "a.csv"
