"""No more cores are used than this process may use."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from foldblend import cores


@pytest.mark.parametrize("written, limit", [("200000 100000\n", 2), ("50000 100000\n", 1), ("150000 100000\n", 2)])
def test_a_containers_limit_is_kept(tmp_path, monkeypatch, written, limit):
    monkeypatch.delenv("FOLDBLEND_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(cores, "CGROUP", tmp_path)
    assert cores.count_cores() == 64
    for number, (text, expected) in enumerate([("max 100000\n", 64), ("odd", 64), (written, limit)]):
        folder = tmp_path / str(number)  # a limit is read once
        folder.mkdir()
        (folder / "cpu.max").write_text(text)
        monkeypatch.setattr(cores, "CGROUP", folder)
        assert cores.count_cores() == expected
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3}, raising=False)
    assert cores.count_cores() == 1
    monkeypatch.setenv("FOLDBLEND_THREADS", "5")
    assert cores.count_cores() == 5


@pytest.mark.parametrize("threads, most", [("1", 1), ("3", 3)])
def test_jobs_run_on_as_many_threads_as_asked_for(monkeypatch, threads, most):
    monkeypatch.setenv("FOLDBLEND_THREADS", threads)
    names = set()
    seen = cores.over_labels(lambda label: names.add(threading.get_ident()) or label, 200, cores.MIN_ROWS)
    assert seen == list(range(200))
    assert 1 <= len(names) <= most
    pool = cores._threads(most)
    assert pool._max_workers == most


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system has no affinity")
def test_the_cores_of_a_bound_process_are_counted():
    code = (
        "import os; os.sched_setaffinity(0, list(os.sched_getaffinity(0))[:1]); os.cpu_count = lambda: 64\n"
        "from foldblend import cores\n"
        "import threading; names = set()\n"
        "cores.over_labels(lambda label: names.add(threading.get_ident()), 200, 10_000); print(len(names))"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    env.pop("FOLDBLEND_THREADS", None)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env=env)
    assert (done.stdout.strip(), done.returncode) == ("1", 0), done.stderr


def test_compiled_code_goes_to_a_private_folder_if_it_may_not_lie_beside_the_source(tmp_path):
    class Config:
        CACHE_DIR = ""

    cores.settle_compiled_code(Config, tmp_path / "__pycache__")
    assert Config.CACHE_DIR == "" and not list((tmp_path / "__pycache__").iterdir())
    (tmp_path / "file").touch()
    for named, beside in (("", tmp_path / "file" / "__pycache__"), (str(tmp_path / "file"), tmp_path)):
        Config.CACHE_DIR = named
        cores.settle_compiled_code(Config, beside)
        assert Path(Config.CACHE_DIR).is_dir() and Path(Config.CACHE_DIR).stat().st_mode & 0o777 == 0o700
