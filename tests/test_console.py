import io
import sys

import pytest

from foldblend import console


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture(autouse=True)
def no_notebook(monkeypatch):
    for name in (*console.NOTEBOOK_VARIABLES, "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    monkeypatch.setenv("TERM", "xterm")


def test_colour_in_a_terminal_alone(monkeypatch):
    assert console.coloured("error:", "red", Terminal()) == "\x1b[31merror:\x1b[0m"
    assert console.coloured("error:", "red", io.StringIO()) == "error:"
    for name, value in (("NO_COLOR", "1"), ("TERM", "dumb"), ("JPY_PARENT_PID", "7"), ("KAGGLE_KERNEL_RUN_TYPE", "x")):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            assert console.coloured("error:", "red", Terminal()) == "error:"


def test_a_notebook_is_known_by_its_kernel_or_its_variables(monkeypatch):
    assert not console.in_notebook()
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "ipykernel", object())
        assert console.in_notebook() and not console.is_terminal(Terminal())
    monkeypatch.setenv("COLAB_RELEASE_TAG", "1")
    assert console.in_notebook()


def test_long_text_is_wrapped_at_80_columns_and_no_word_is_broken(capsys):
    lines = console.wrapped("word-with-hyphens " * 12 + "x" * 90).split("\n")
    assert all(len(line) <= 80 for line in lines[:-1]) and lines[-1] == "  " + "x" * 90
    assert all(line.startswith("  ") for line in lines[1:]) and "hyphens" in lines[0]


def test_warnings_and_errors_are_without_keys(capsys, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefgh12345")
    console.warn("odd hf_abcdefgh12345")
    console.print_error("bad hf_abcdefgh12345")
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("warning: odd <redacted>\n", "error: bad <redacted>\n")


@pytest.mark.parametrize(
    "text, shown",
    [
        ("plain ü 😀\tand\nlines\r\n", "plain ü 😀\tand\nlines\r\n"),
        ("\r 5 of 9", "\r 5 of 9"),
        ("joy\rerror: none", "joy\\rerror: none"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("\x1b[31mred\x1b[0m", "\x1b[31mred\x1b[0m"),
        ("\x1b[2;1Hdown\x1b[?25l", "\\x1b[2;1Hdown\\x1b[?25l"),
        ("a\x9b2Jb\x08\x00\x7f", "a\\x9b2Jb\\x08\\x00\\x7f"),
        ("abc\u202edef", "abc\\u202edef"),
    ],
)
def test_control_codes_are_shown_and_not_obeyed(text, shown, capsys):
    with console.clean_streams():
        print(text, end="")
        print(text, end="", file=sys.stderr)
    assert tuple(capsys.readouterr()) == (shown, shown)


def test_a_character_that_the_stream_cannot_write_is_spelt_out(monkeypatch):
    narrow = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", narrow)
    with console.clean_streams():
        print("süß \udcff")
    narrow.flush()
    assert narrow.buffer.getvalue() == rb"s\xfc\xdf \udcff" + b"\n"


def test_an_error_is_told_to_nobody_rather_than_fail(monkeypatch):
    closed = io.StringIO()
    closed.close()
    for stream in (None, closed):
        monkeypatch.setattr(sys, "stderr", stream)
        console.print_error("x")
