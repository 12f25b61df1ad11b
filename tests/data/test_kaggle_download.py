"""A competition's files out of Kaggle's archive: the real client fetches it, and nothing hostile leaves it."""

import contextlib
import io
import stat
import struct
import zipfile

import pytest
from kaggle_server import SLUG, serving
from tiny_competition import Files, as_csv, settings

from foldblend.data import fetch as kaggle_download
from foldblend.data.fetch import ensure_data, unpack
from foldblend.data.tables import load_tables
from foldblend.settings.paths import Paths

NAMES = ["train.csv", "test.csv", "sample_submission.csv"]


def archive(members, compression=zipfile.ZIP_DEFLATED) -> bytes:
    """A .zip of name or ZipInfo -> bytes."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", compression) as opened:
        for name, content in members:
            opened.writestr(name, content)
    return data.getvalue()


def tables() -> list:
    files = Files(None)
    return list(zip(NAMES, map(as_csv, (files.train, files.test, files.sample)), strict=True))


@pytest.fixture
def here(tmp_path):
    return Paths(tmp_path / "root")


@pytest.fixture
def kaggle(tmp_path, monkeypatch):
    with serving({"t0": [0]}, monkeypatch, tmp_path / "home") as server:
        server.archive = archive([*tables(), ("images/1.png", b"x")])
        yield server


MINE = settings(files={"source": "kaggle", "kaggle": SLUG})


def test_absent_files_are_fetched_and_load(kaggle, here):
    messages = ensure_data("mine", MINE, here)
    assert len(messages) == 1
    assert messages[0].endswith(f"written (from Kaggle's {SLUG}, left packed: 'images/1.png')")
    folder = here.data("mine")
    assert sorted(path.name for path in folder.iterdir()) == sorted(NAMES)
    assert [path.name for path in folder.parent.iterdir()] == ["mine"]
    assert len(load_tables(MINE, folder).train_ids) == 12
    assert ensure_data("mine", MINE, here) == []
    assert kaggle.asked == ["DownloadDataFiles"]


def test_a_key_that_others_can_read_is_named(kaggle, here, tmp_path):
    path = tmp_path / "home" / ".kaggle" / "kaggle.json"
    path.parent.mkdir(parents=True)
    path.write_text('{"username": "u", "key": "0123456789"}')
    path.chmod(0o644)
    assert ensure_data("mine", MINE, here)[0].startswith(f"warning: {path} can be read by others")


def test_a_file_that_is_there_is_left_as_it_is(kaggle, here):
    here.data("mine").mkdir(parents=True)
    (here.data("mine") / "train.csv").write_text("mine")
    ensure_data("mine", MINE, here)
    assert (here.data("mine") / "train.csv").read_text() == "mine"


def test_the_slug_is_the_competitions_name_where_none_is_stated(kaggle, here):
    ensure_data(SLUG, settings(files={"source": "kaggle"}), here)
    assert (here.data(SLUG) / "train.csv").is_file()


@pytest.mark.parametrize(
    "fault, error",
    [
        ((403, "You must accept this competition's rules before downloading"), "rules of emo-2024 are not accepted"),
        ((404, "Not Found"), "no competition 'emo-2024'"),
        ((500, "oops"), "an error of its own"),
        ("cut", "cannot be reached"),
    ],
)
def test_what_kaggle_refuses_is_told_with_the_command_for_doing_it_by_hand(kaggle, here, fault, error):
    kaggle.fault("DownloadDataFiles", fault)
    with pytest.raises(ValueError, match=rf"train.csv, .* not fetched: .*{error}.*By hand: Run: kaggle competitions"):
        ensure_data("mine", MINE, here)
    assert not here.data("mine").exists() and not list(here.data("mine").parent.iterdir())


def test_a_download_that_is_cut_off_goes_on_by_itself(kaggle, here):
    kaggle.fault("GET", "cut")
    ensure_data("mine", MINE, here)
    assert (here.data("mine") / "train.csv").read_bytes() == tables()[0][1]


def test_what_is_no_archive_is_refused(kaggle, here):
    kaggle.archive = b"<html>please log in</html>"
    with pytest.raises(ValueError, match="the download emo-2024.zip is not a whole .zip"):
        ensure_data("mine", MINE, here)


def member(name, mode=0, **changes):
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    info.compress_type = zipfile.ZIP_DEFLATED
    for field, value in changes.items():
        setattr(info, field, value)
    return info


def write(tmp_path, data):
    path = tmp_path / "x.zip"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    "hostile, error",
    [
        (member("../evil.csv"), "'../evil.csv', which leaves its folder"),
        (member("a/../../evil.csv"), "leaves its folder"),
        (member("/etc/evil.csv"), "leaves its folder"),
        (member("..\\evil.csv"), "leaves its folder"),
        (member("C:\\evil.csv"), "leaves its folder"),
        (member("link", stat.S_IFLNK | 0o777), "a link or device"),
        (member("pipe", stat.S_IFIFO | 0o666), "a link or device"),
        (member("train.csv"), "a name twice"),
    ],
)
def test_one_hostile_member_spoils_the_archive(tmp_path, hostile, error):
    with pytest.warns(UserWarning) if hostile.filename == "train.csv" else contextlib.nullcontext():
        path = write(tmp_path, archive([*tables(), (hostile, b"/etc/passwd")]))
    with pytest.raises(ValueError, match=error):
        unpack(path, tmp_path / "data", NAMES)
    assert [path.name for path in tmp_path.iterdir()] == ["x.zip"]


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(kaggle_download, "SUSPICIOUS_BYTES", 1 << 20)
    bomb = archive([*tables()[1:], ("train.csv", b"\0" * (1 << 22))])
    with pytest.raises(ValueError, match=r"train.csv unpacks [\d,]+ bytes to 4,194,304, more than any table does"):
        unpack(write(tmp_path, bomb), tmp_path / "data", NAMES)
    nested = archive([*tables()[1:], ("train.csv.zip", archive([("train.csv", b"\0" * (1 << 22))]))])
    with pytest.raises(ValueError, match="train.csv unpacks"):
        unpack(write(tmp_path, nested), tmp_path / "data", NAMES)
    assert not (tmp_path / "data" / "train.csv").exists()


def test_a_member_cannot_say_less_than_it_unpacks_to(tmp_path):
    """The size in the directory is what is read at most; then the checksum does not fit."""
    data = bytearray(archive([*tables()[1:], ("train.csv", b"a" * 5000)]))
    at = data.rindex(b"PK\x01\x02")
    data[at + 24 : at + 28] = struct.pack("<I", 100)
    with pytest.raises(ValueError, match="not a whole .zip"):
        unpack(write(tmp_path, bytes(data)), tmp_path / "data", NAMES)
    assert not (tmp_path / "data" / "train.csv").exists()


def test_any_flipped_or_missing_byte_is_refused_or_harmless(tmp_path):
    """Whatever is written is exactly what went in."""
    whole, expected = archive(tables()), dict(tables())
    for at in range(0, len(whole), 7):
        for data in (whole[:at], whole[:at] + bytes([whole[at] ^ 0x41]) + whole[at + 1 :]):
            folder = tmp_path / "data"
            with contextlib.suppress(ValueError):
                unpack(write(tmp_path, data), folder, NAMES)
            for path in folder.glob("*"):
                assert path.read_bytes() == expected[path.name]
                path.unlink()


def test_names_in_folders_and_in_archives_of_their_own(tmp_path):
    (train, test, sample) = (content for _, content in tables())
    data = archive([("emo/train.csv", train), ("test.csv.zip", archive([("test.csv", test)])), ("sample.csv", sample)])
    rest = unpack(write(tmp_path, data), tmp_path / "data", ["train.csv", "test.csv"])
    assert rest == ["sample.csv"]
    assert (tmp_path / "data" / "train.csv").read_bytes() == train
    assert (tmp_path / "data" / "test.csv").read_bytes() == test


@pytest.mark.parametrize(
    "members, names, error",
    [
        ([("a/train.csv", b"x"), ("b/train.csv", b"y")], ["train.csv"], "say under files: which one"),
        ([("data.csv", b"x")], ["train.csv"], "has no train.csv; it holds 'data.csv'"),
        ([("train.csv", b"x")], ["../train.csv"], r"files: names '../train.csv', which is not inside"),
        ([("train.csv.zip", archive([("other.csv", b"x")]))], ["train.csv"], "train.csv.zip has no train.csv"),
    ],
)
def test_what_is_not_clear_is_refused(tmp_path, members, names, error):
    with pytest.raises(ValueError, match=error):
        unpack(write(tmp_path, archive(members)), tmp_path / "data", names)


def test_a_full_disk_leaves_no_file(tmp_path, monkeypatch):
    def full(source, target, length):
        target.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(kaggle_download.shutil, "copyfileobj", full)
    with pytest.raises(OSError, match="no space is left there"):
        unpack(write(tmp_path, archive(tables())), tmp_path / "data", NAMES)
    assert list((tmp_path / "data").iterdir()) == []


def test_an_archive_under_the_name_of_a_table_is_refused(tmp_path):
    """In an archive of its own, too, and at any depth."""
    inner = archive(tables())
    for data in (
        archive([("train.csv", inner), *tables()[1:]]),
        archive([("train.csv.zip", archive([("train.csv", inner)])), *tables()[1:]]),
    ):
        with pytest.raises(ValueError, match="is a .zip under the name 'train.csv'; expected a table"):
            unpack(write(tmp_path, data), tmp_path / "data", NAMES)
        assert not (tmp_path / "data" / "train.csv").exists()
