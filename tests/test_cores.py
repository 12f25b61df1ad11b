"""No more cores are used than this process may use."""

import os
import subprocess
import sys
import threading

import pytest

from foldblend import cores


@pytest.mark.parametrize("written, limit", [("200000 100000\n", 2), ("50000 100000\n", 1), ("150000 100000\n", 2)])
def test_a_containers_limit_is_kept(tmp_path, monkeypatch, written, limit):
    monkeypatch.delenv("FOLDBLEND_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(cores, "CGROUP", tmp_path)
    assert cores.count_cores() == 64
    for unlimited in ("max 100000\n", "odd"):
        (tmp_path / "cpu.max").write_text(unlimited)
        assert cores.count_cores() == 64
    (tmp_path / "cpu.max").write_text(written)
    assert cores.count_cores() == limit
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
