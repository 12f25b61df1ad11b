"""docs/settings.md says what the dataclasses say."""

from pathlib import Path

from foldblend.settings import reference
from foldblend.settings.competition import CompetitionSettings
from foldblend.settings.run import RunSettings
from foldblend.settings.yaml_files import names_of

PAGE = Path(__file__).resolve().parents[2] / "docs" / "settings.md"


def test_the_page_is_up_to_date():
    fix = "PYTHONPATH=src python -m foldblend.settings.reference > docs/settings.md"
    assert PAGE.read_text(encoding="utf-8") == reference.build_reference(), f"run: {fix}"


def test_every_setting_has_a_row_with_a_meaning():
    lines = reference.build_reference().splitlines()
    rows = {line.split("`")[1]: line for line in lines if line.startswith("| `") and line.count(" | ") >= 4}
    groups = {
        name.split(".")[0] for part in (RunSettings, CompetitionSettings) for name in names_of(part) if "." in name
    }
    expected = (names_of(RunSettings) | names_of(CompetitionSettings)) - groups
    assert expected <= rows.keys()
    assert all(len(rows[name].split(" | ")[-1]) > 10 for name in expected)


def test_a_row_has_type_default_range_and_meaning():
    (row,) = (line for line in reference.build_reference().splitlines() if line.startswith("| `training.epochs`"))
    assert row == "| `training.epochs` | int | `2` | 1 or more | Passes over the fold's training rows. |"
    (row,) = (line for line in reference.build_reference().splitlines() if line.startswith("| `loss.focal_gamma`"))
    assert "0 or more; only with `name` `focal`" in row


def test_check_names_the_command_that_fixes_it(tmp_path, capsys):
    stale = tmp_path / "settings.md"
    stale.write_text("# Old\n")
    assert reference.main(["--check", str(PAGE)]) == 0
    assert reference.main(["--check", str(stale)]) == 1
    assert f"python -m foldblend.settings.reference > {stale}" in capsys.readouterr().err
