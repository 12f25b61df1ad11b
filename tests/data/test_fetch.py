"""data/<competition>/ filled where it is empty, and nothing else touched."""

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from tiny_competition import PROJECT, settings

from foldblend.data import fetch
from foldblend.data import fetch as goemotions
from foldblend.data.fetch import FILLED, ensure_data
from foldblend.data.tables import load_tables
from foldblend.settings.loading import load_competition
from foldblend.settings.paths import Paths

RAW = {
    "train.tsv": 'He said "hi, you"\t27\ta1\nNA\t0,2\ta2\n plain \t27\ta3\n',
    "dev.tsv": "dev, one\t1\tb1\n",
    "test.tsv": "“quoted” 😀\t0\tc1\nNone\t\tc2\n",
    "labels.txt": "\n".join(f"label{k}" for k in range(28)),
}


@pytest.fixture
def raw(tmp_path, monkeypatch):
    """A shared folder with a small GoEmotions, whose hashes are the expected ones; the project stands in `root`."""
    folder = tmp_path / "elsewhere" / "data" / "goemotions"
    folder.mkdir(parents=True)
    for name, text in RAW.items():
        (folder / name).write_bytes(text.encode())
    digests = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in RAW.items()}
    monkeypatch.setattr(goemotions, "SHA256", digests)
    monkeypatch.setenv("FOLDBLEND_SHARED", str(tmp_path / "elsewhere"))
    return folder


@pytest.fixture
def here(tmp_path):
    return Paths(tmp_path / "root")


def competition(name):
    return load_competition(Paths(PROJECT), name)


def test_sample_is_filled_once_and_again_where_a_file_is_gone(here):
    messages = ensure_data("sample", competition("sample"), here)
    folder = here.data("sample")
    assert len(messages) == 1
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILLED)
    assert ensure_data("sample", competition("sample"), here) == []
    before = (folder / "test.csv").read_bytes()
    (folder / "test.csv").unlink()
    (folder / "train.csv").write_bytes(b"mine")
    assert "test.csv written" in ensure_data("sample", competition("sample"), here)[0]
    assert (folder / "test.csv").read_bytes() == before
    assert (folder / "train.csv").read_bytes() == b"mine"


def test_a_kill_leaves_a_file_whole_or_absent(here, monkeypatch):
    def killed(source, target):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(fetch.os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            ensure_data("sample", competition("sample"), here)
    assert list(here.data("sample").iterdir()) == []


def test_goemotions_from_a_shared_folder(here, raw):
    messages = ensure_data("goemotions", competition("goemotions"), here)
    assert f"from {raw}" in messages[0]
    folder = here.data("goemotions")
    assert (folder / "train.csv").read_text() == (
        'id,text,labels\na1,"He said ""hi, you""",27\na2,NA,"0,2"\na3, plain ,27\n'
    )
    assert (folder / "test.csv").read_text() == 'id,text\nb1,"dev, one"\nc1,“quoted” 😀\nc2,None\n'
    assert (folder / "truth.csv").read_text() == "id,part,labels\nb1,dev,1\nc1,test,0\nc2,test,\n"
    sample = (folder / "sample_submission.csv").read_text().split("\n")
    assert sample[0] == "id," + ",".join(f"label{k}" for k in range(28))
    assert sample[1:] == ["b1" + ",0" * 28, "c1" + ",0" * 28, "c2" + ",0" * 28, ""]


def test_a_folder_beside_the_project_is_not_looked_into(here, raw, public, monkeypatch):
    """Only $FOLDBLEND_SHARED names a folder; without it the rows are downloaded."""
    monkeypatch.delenv("FOLDBLEND_SHARED")
    raw.parents[1].rename(here.root.parent / "shared")
    assert goemotions.PUBLIC in ensure_data("goemotions", competition("goemotions"), here)[0]
    assert len(public) == 4


def test_a_changed_raw_file_is_refused(here, raw):
    (raw / "dev.tsv").write_text("other\t1\tb1\n")
    with pytest.raises(ValueError, match=r"dev.tsv is not the official file: 11 bytes, sha256 [0-9a-f]{64}, expected"):
        ensure_data("goemotions", competition("goemotions"), here)
    assert not here.data("goemotions").exists()


@pytest.fixture
def public(monkeypatch, tmp_path):
    """A loopback server in place of the public copy; the paths it was asked for."""
    monkeypatch.setenv("FOLDBLEND_SHARED", str(tmp_path / "nothing"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            name = self.path.rsplit("/", 1)[-1].replace("emotions.txt", "labels.txt")
            self.send_response(200)
            self.end_headers()
            self.wfile.write(RAW[name].encode())

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(goemotions, "PUBLIC", f"http://127.0.0.1:{server.server_port}/data")
    yield asked
    server.shutdown()
    server.server_close()


def test_goemotions_is_downloaded_where_no_shared_folder_is(here, raw, public):
    messages = ensure_data("goemotions", competition("goemotions"), here)
    assert "from http://127.0.0.1" in messages[0]
    assert public == ["/data/train.tsv", "/data/dev.tsv", "/data/test.tsv", "/data/emotions.txt"]
    assert (here.data("goemotions") / "train.csv").is_file()


def test_a_damaged_download_is_refused(here, public, monkeypatch):
    with pytest.raises(ValueError, match=r"train\.tsv is not the official file"):
        ensure_data("goemotions", competition("goemotions"), here)
    assert not here.data("goemotions").exists()


def test_no_network_says_what_to_do(here, public, monkeypatch):
    monkeypatch.setattr(goemotions, "PUBLIC", "http://127.0.0.1:1/data")
    with pytest.raises(ValueError, match=r"cannot be downloaded: .*put train.tsv, .* and set FOLDBLEND_SHARED"):
        ensure_data("goemotions", competition("goemotions"), here)


@pytest.mark.parametrize(
    "files, message",
    [
        ({}, "train.csv, test.csv, sample_submission.csv missing. Put it into data/mine/"),
        ({"train": "my.tsv"}, "my.tsv, test.csv"),
        (
            {"kaggle": "emo-2024"},
            r"kaggle competitions download -c emo-2024 -p data/mine && unzip data/mine/emo-2024.zip -d data/mine",
        ),
        ({"source": "sample", "train": "my.csv"}, "files.source sample fills train.csv, test.csv"),
    ],
)
def test_what_only_the_user_can_get(here, files, message):
    with pytest.raises(ValueError, match=message):
        ensure_data("mine", settings(files=files), here)
    assert not here.data("mine").exists()


def test_files_of_ones_own_are_enough(here):
    here.data("mine").mkdir(parents=True)
    for name in FILLED[:3]:
        (here.data("mine") / name).write_text("x")
    assert ensure_data("mine", settings(), here) == []


def test_the_real_goemotions(here, shared_dir, monkeypatch):
    if not (shared_dir / "data" / "goemotions").is_dir():
        pytest.skip("data/goemotions is not in the shared folder")
    monkeypatch.setenv("FOLDBLEND_SHARED", str(shared_dir))
    settings_ = competition("goemotions")
    ensure_data("goemotions", settings_, here)
    tables = load_tables(settings_, here.data("goemotions"))
    assert tables.labels.shape == (43_410, 28)
    assert len(tables.test_ids) == 5_426 + 5_427
    assert "\n".join(tables.label_names) == (shared_dir / "data/goemotions/labels.txt").read_text()
    counts = dict(zip(tables.label_names, tables.labels.sum(axis=0)))
    assert (counts["neutral"], counts["grief"]) == (14_219, 77)
    raw_lines = (shared_dir / "data/goemotions/train.tsv").read_bytes().decode().split("\n")
    assert tables.train_texts == [line.split("\t")[0] for line in raw_lines[:-1]]
    assert len(tables.train_texts) - len(set(tables.train_texts)) == 183
