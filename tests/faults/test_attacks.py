"""bench/attacks.py and bench/growth.py at their shortest."""

import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).resolve().parents[2] / "bench" / "attacks.py"


def test_a_few_attacks_of_each_kind_are_held():
    """In a process of its own, as it changes the environment and forks."""
    command = [sys.executable, str(BENCH), "--attempts", "24", "--seed", "3"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    rows = [line.split() for line in done.stdout.splitlines()]
    total = next(row for row in rows if row[:1] == ["all"])
    assert int(total[1]) >= 20 and total[2:] == ["0"] * 5, done.stdout[-3000:]


def test_reading_takes_time_by_the_size_and_not_by_its_square(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH.parent))
    import growth

    found = growth.grow(16)
    assert len(found) == len(growth.KINDS)
    assert not {name: ratio for name, (_, _, ratio) in found.items() if ratio > 5}  # the square would be 16
