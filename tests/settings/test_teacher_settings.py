"""Teachers in configs/teachers/: the shipped ones load, flags win, and a key never stands in a YAML."""

from pathlib import Path

import pytest

from foldblend.errors import UserError
from foldblend.settings.loading import load_teacher
from foldblend.settings.teacher import TeacherSettings

SHIPPED = sorted(path.stem for path in (Path(__file__).resolve().parents[2] / "configs" / "teachers").glob("*.yaml"))


def test_shipped_teachers_load_and_flags_win(paths):
    assert len(SHIPPED) >= 2
    for name in SHIPPED:
        assert load_teacher(paths, name, {}).model
    assert load_teacher(paths, "openai", {"votes": "3", "model": "other"}).votes == 3
    with pytest.raises(UserError, match="did you mean 'openai'"):
        load_teacher(paths, "opena", {})
    with pytest.raises(UserError, match="--votes is 'many'; expected a whole number"):
        load_teacher(paths, "openai", {"votes": "many"})


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"model": ""}, "model is empty"),
        ({"base_url": "https://me:secret@host/v1"}, "holds a user, a password"),
        ({"base_url": "https://host/v1?key=1"}, "holds a user, a password or a query"),
        ({"base_url": "localhost:8000"}, "expected an address"),
        ({"key_variable": "sk-0123456789"}, "Not the key itself"),
        ({"votes": 3, "temperature": 0.0}, "would be the same"),
        ({"min_labels": 5}, "more than max_labels"),
        ({"votes": 0}, "votes is 0; expected 1 to 64"),
    ],
)
def test_settings_that_cannot_work_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        TeacherSettings(**{"model": "m"} | changes)
