"""report.py in this process: the page before training, in the terminal, and for every kind of task."""

import json
import re

import pytest
import small_competition as small

from foldblend.commands import report
from foldblend.errors import UserError
from foldblend.settings.paths import Paths


def numbers_of(page):
    return json.loads(re.search(r'id="numbers">(.*?)</script>', page, re.DOTALL)[1])


def read_page(paths: Paths, name="small"):
    return (paths.submissions(name) / "report.html").read_text(encoding="utf-8")


def test_the_data_before_folds_and_training(paths, capsys):
    small.write_competition(paths)
    report.main(["--competition", "small", "--data"])
    assert capsys.readouterr().out.endswith("submissions/small/report.html: open it in a browser\n")
    page = read_page(paths)
    assert "The folds are not drawn yet" in page and "120 training rows" in page
    assert numbers_of(page)["label_shares"]["series"][0]["x"]


def test_text_prints_the_essentials_and_writes_nothing(paths, capsys):
    small.write_runs(paths, small.write_competition(paths), noise=())
    report.main(["--competition", "small", "--data", "--text"])
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 80
    assert "LABELS OF THE TRAINING ROWS" in printed and "fold 4" in printed
    assert not (paths.submissions("small") / "report.html").exists()


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--dta"], "--data"),
        (["--output", "x.txt"], "ends in .html"),
        (["--run", "minilmm"], "minilm"),
    ],
)
def test_wrong_flags_are_named(paths, flags, message):
    small.write_competition(paths)
    with pytest.raises(UserError, match=message):
        report.main(["--competition", "small", "--data", *flags])


def test_output_names_the_page(paths, tmp_path):
    small.write_competition(paths)
    report.main(["--competition", "small", "--data", "--output", str(tmp_path / "mine.html")])
    assert "<title>small: data</title>" in (tmp_path / "mine.html").read_text()
