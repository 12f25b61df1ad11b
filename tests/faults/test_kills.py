"""kill -9 while each kind of file is half written, and the same commands again: bench/faults.py at its shortest."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the job is forked")
def test_a_kill_while_each_kind_of_file_is_written_changes_nothing():
    command = [sys.executable, str(PROJECT / "bench" / "faults.py"), "--stages", "1", "--rows", "40", "--folds", "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "6 kills: 6 survived, 0 lost; 0 left temporary files behind" in done.stdout
