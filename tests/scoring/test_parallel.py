"""Scoring uses no more cores than it may."""

import os
import subprocess
import sys
import threading

import pytest

from foldblend import cores as parallel


@pytest.mark.parametrize("threads, most", [("1", 1), ("3", 3)])
def test_jobs_run_on_as_many_threads_as_asked_for(monkeypatch, threads, most):
    monkeypatch.setenv("FOLDBLEND_THREADS", threads)
    names = set()
    seen = parallel.over_labels(lambda label: names.add(threading.get_ident()) or label, 200, parallel.MIN_ROWS)
    assert seen == list(range(200))
    assert 1 <= len(names) <= most
    pool = parallel._threads(most)
    assert pool._max_workers == most


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system has no affinity")
def test_the_cores_of_a_bound_process_are_counted():
    code = (
        "import os; os.sched_setaffinity(0, list(os.sched_getaffinity(0))[:1]); os.cpu_count = lambda: 64\n"
        "from foldblend.scoring import parallel\n"
        "import threading; names = set()\n"
        "parallel.over_labels(lambda label: names.add(threading.get_ident()), 200, 10_000); print(len(names))"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    env.pop("FOLDBLEND_THREADS", None)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env=env)
    assert (done.stdout.strip(), done.returncode) == ("1", 0), done.stderr
