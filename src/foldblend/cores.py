"""How many cores this process may use."""

import os
from pathlib import Path

from foldblend.errors import UserError

CGROUP = Path("/sys/fs/cgroup")
"""Where a container finds its own limits."""


def count_cores() -> int:
    """`$FOLDBLEND_THREADS` if it is set, else the cores that the machine, the affinity and the container allow.

    Raises: UserError: the variable is not a whole number from 1.
    """
    wanted = os.environ.get("FOLDBLEND_THREADS")
    if wanted is not None:
        if not wanted.isdecimal() or int(wanted) < 1:
            raise UserError(f"$FOLDBLEND_THREADS is {wanted!r}; expected a whole number from 1")
        return int(wanted)
    return max(1, min(_affinity(), _container_limit()))


def _affinity() -> int:
    """The cores that the system may run this process on (taskset, Slurm's cpuset)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _container_limit() -> int:
    """Cores' worth of time that the container may take, rounded up; the machine's cores if there is no limit.

    `docker --cpus 2` leaves all cores visible and stops every thread for most of each 100 ms.
    Source: docs.kernel.org, cgroup-v2 (`cpu.max`: quota and period, or `max` and period).
    """
    try:
        quota, period = (CGROUP / "cpu.max").read_text().split()
    except (OSError, ValueError):
        quota, period = "max", "1"
    return -(-int(quota) // int(period)) if quota.isdecimal() else os.cpu_count() or 1
