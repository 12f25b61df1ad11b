"""An .npz is read only when it is exactly what was expected; whatever else it is gets a ValueError."""

import io
import tracemalloc
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from foldblend.npz import load_npz, write_npz

ARRAYS = {
    "fold": np.array(3),
    "names": np.array(["joy", "süß", "🙂"]),
    "oof": np.arange(6, dtype=np.float32).reshape(2, 3),
}
EXPECTED = {"fold": ("i", ()), "names": ("U", (3,)), "oof": ("f", (2, 3))}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "fold3.npz"
    save(path, ARRAYS)
    return path


def save(path, arrays):
    with open(path, "wb") as file:
        write_npz(file, arrays)


def rewrite(path, compression=zipfile.ZIP_STORED, **members):
    """The file with some members replaced by other bytes; None takes a member out."""
    with zipfile.ZipFile(path) as archive:
        old = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in (old | {f"{name}.npy": data for name, data in members.items()}).items():
            if data is not None:
                archive.writestr(name, data)


def npy(array, **options):
    file = io.BytesIO()
    np.lib.format.write_array(file, np.asarray(array), **options)
    return file.getvalue()


def test_round_trip(path):
    loaded = load_npz(path, EXPECTED)
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(loaded[name], array)
    assert loaded["oof"].dtype == np.float32 and loaded["fold"].shape == ()


@settings(deadline=None)
@given(
    hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=2, min_side=0)),
    st.lists(st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=5), max_size=4),
)
def test_any_array_comes_back(tmp_path_factory, array, names):
    path = tmp_path_factory.mktemp("npz") / "a.npz"
    names = np.array(names, dtype=str)
    save(path, {"a": array, "names": names})
    loaded = load_npz(path, {"a": ("f", (None, array.shape[1])), "names": ("U", (None,))})
    np.testing.assert_array_equal(loaded["a"], array)
    assert loaded["names"].tolist() == names.tolist()


def test_equal_arrays_give_equal_bytes(path, tmp_path):
    save(tmp_path / "again.npz", ARRAYS)
    assert (tmp_path / "again.npz").read_bytes() == path.read_bytes()


def test_every_changed_byte_is_refused_or_harmless(path):
    whole = path.read_bytes()
    refused = 0
    for position in range(len(whole)):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1 << position % 8]) + whole[position + 1 :])
        try:
            loaded = load_npz(path, EXPECTED)
        except ValueError as error:
            assert str(path) in str(error)
            refused += 1
        else:  # a byte that no number depends on: zip time stamps, attributes
            for name, array in ARRAYS.items():
                np.testing.assert_array_equal(loaded[name], array)
    assert refused > 0.75 * len(whole)


def test_every_truncation_is_refused(path):
    whole = path.read_bytes()
    for length in range(0, len(whole), 3):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"fold3.npz"):
            load_npz(path, EXPECTED)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_noise_is_refused(tmp_path_factory, noise):
    path = tmp_path_factory.mktemp("npz") / "a.npz"
    path.write_bytes(noise)
    with pytest.raises(ValueError, match=r"not a whole .npz"):
        load_npz(path, EXPECTED)


class Explosive:
    def __reduce__(self):
        return print, ("this ran",)


HEADER_ONLY = npy(ARRAYS["oof"])[:-24]
HUGE_HEADER = HEADER_ONLY.replace(b"(2, 3), }      ", b"(9999999, 99)} ")

BAD = {
    "pickle": ({"oof": npy(np.array([[Explosive()] * 3] * 2, dtype=object), allow_pickle=True)}, "is of type object"),
    "float64": ({"oof": npy(np.zeros((2, 3)))}, "is of type float64; expected float32"),
    "big endian": ({"oof": npy(np.zeros((2, 3), dtype=">f4"))}, "is of type >f4"),
    "fortran order": ({"oof": npy(np.asfortranarray(ARRAYS["oof"]))}, "is of type float32"),
    "shape": ({"oof": npy(np.zeros((3, 2), np.float32))}, r"has shape \(3, 2\); expected \(2, 3\)"),
    "dimensions": ({"oof": npy(np.zeros(6, np.float32))}, r"has shape \(6,\)"),
    "bytes for text": ({"names": npy(np.array([b"a", b"b", b"c"]))}, "is of type .S1; expected text"),
    "numbers for text": ({"names": npy(np.array(["a", "b", "c"]).view(np.uint32) + 0x110000)}, "is of type uint32"),
    "structured": ({"oof": npy(np.zeros((2, 3), dtype=[("a", "f4")]))}, "is of type"),
    "cut member": ({"oof": npy(ARRAYS["oof"])[:-4]}, r"oof holds 20 bytes of numbers; its shape \(2, 3\) needs 24"),
    "long member": (
        {"oof": npy(ARRAYS["oof"]) + b"\0" * 9000},
        r"holds 9024 bytes of numbers; its shape \(2, 3\) needs 24",
    ),
    "one byte more": (
        {"oof": npy(ARRAYS["oof"]) + b"\0"},
        r"oof holds 25 bytes of numbers; .* needs 24",
    ),
    "not numpy": ({"oof": b"hello"}, "does not open as a numpy array"),
    "huge announced": ({"oof": HUGE_HEADER}, "has shape"),
    "missing": ({"oof": None}, "holds fold.npy, names.npy; expected fold.npy, names.npy, oof.npy"),
    "unknown": ({"extra": npy(1)}, "so another program wrote it"),
    "path traversal": ({"../../evil": npy(1)}, "so another program wrote it"),
}


@pytest.mark.parametrize("members, message", BAD.values(), ids=BAD)
def test_foreign_members_are_refused(path, capsys, members, message):
    rewrite(path, **members)
    with pytest.raises(ValueError, match=message):
        load_npz(path, EXPECTED)
    assert "this ran" not in capsys.readouterr().out
    assert [p.name for p in path.parent.iterdir()] == ["fold3.npz"]


def test_no_text_inside_a_text_array(path):
    data = npy(np.array(["a", "b", "c"]))
    rewrite(path, names=data[:-4] + (0x110000).to_bytes(4, "little"))
    with pytest.raises(ValueError, match="names holds bytes that are not text"):
        load_npz(path, EXPECTED)


def test_a_zip_bomb_is_refused_before_it_is_unpacked(path):
    rewrite(path, zipfile.ZIP_DEFLATED, oof=npy(np.zeros((3_000_000, 3), np.float32)))
    assert path.stat().st_size < 200_000
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"is compressed, \d+ bytes that unpack to"):
        load_npz(path, EXPECTED | {"oof": ("f", (None, 3))})
    assert tracemalloc.get_traced_memory()[1] < 3_000_000
    tracemalloc.stop()


def test_a_member_twice_is_refused(path):
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "a") as archive:
        archive.writestr("oof.npy", npy(np.ones((2, 3), np.float32)))
    with pytest.raises(ValueError, match=r"holds fold.npy, names.npy, oof.npy, oof.npy"):
        load_npz(path, EXPECTED)
