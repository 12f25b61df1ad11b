import os

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
