"""How many cores this process may use, one job per label on them, and where code compiled for them is kept."""

import atexit
import ctypes
import os
import platform
import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ContextDecorator
from functools import cache
from pathlib import Path

from threadpoolctl import threadpool_limits

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
    return max(1, min(_affinity(), _container_limit(CGROUP)))


def _affinity() -> int:
    """The cores that the system may run this process on (taskset, Slurm's cpuset)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache  # a blend asks some thousand times
def _container_limit(cgroup: Path) -> int:
    """Cores' worth of time that the container may take, rounded up; the machine's cores if there is no limit.

    `docker --cpus 2` leaves all cores visible and stops every thread for most of each 100 ms.
    Source: docs.kernel.org, cgroup-v2 (`cpu.max`: quota and period, or `max` and period).
    """
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
    except (OSError, ValueError):
        quota, period = "max", "1"
    return -(-int(quota) // int(period)) if quota.isdecimal() else os.cpu_count() or 1


# How scoring uses the cores: one job per label, and matrix products on one thread each.
#
# Small matrix products lose more to the hand-over between BLAS threads than they win, and their last bits depend on
# how many threads there are. numpy releases the interpreter lock while it works, so labels run side by side instead.


TASKS_PER_CORE = 4
"""Starting a task costs as much as sorting a column, so each task is several labels; more tasks balance the cores."""
MIN_ROWS = 5_000
"""With fewer rows per label than this, starting the tasks costs more than it saves."""

M_MMAP_THRESHOLD = -3
"""glibc's number of the setting, from malloc.h."""
LARGE_BYTES = 2**21
"""From this size on an allocation gets pages of its own."""


def over_labels(one: Callable, n_labels: int, n_rows: int) -> list:
    """[one(0), one(1), ...], on as many cores as `count_cores` allows if each job reads many rows."""
    n_cores = count_cores()
    if n_rows < MIN_ROWS or n_cores == 1:
        return [one(label) for label in range(n_labels)]
    size = max(1, n_labels // (TASKS_PER_CORE * n_cores))
    blocks = [range(start, min(start + size, n_labels)) for start in range(0, n_labels, size)]
    of_blocks = _threads(n_cores).map(lambda block: [one(label) for label in block], blocks)
    return [value for values in of_blocks for value in values]


@cache
def _threads(n_cores: int) -> ThreadPoolExecutor:
    """Started once: a blend asks for them thousands of times."""
    return ThreadPoolExecutor(n_cores)


class single_threaded_products(ContextDecorator):
    """Decorator: within the function, a matrix product uses one thread."""

    def __enter__(self) -> None:
        self.limits = threadpool_limits(1, "blas")

    def __exit__(self, *error) -> None:
        self.limits.restore_original_limits()


def give_back_freed_memory() -> None:
    """Make glibc return a freed table to the system at once; it would keep it and take another for the next."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)


def settle_compiled_code(config, beside: Path) -> None:
    """Let numba keep what it compiles in a folder of this process alone if it may not write where it would.

    Args:   config: numba.config.   beside: the folder that numba takes unless $NUMBA_CACHE_DIR names one.
    numba itself ends with an error then: a checkout on a read-only disk, another user's, a home without a quota.
    """
    if not _can_write(Path(config.CACHE_DIR or beside)):
        config.CACHE_DIR = tempfile.mkdtemp(prefix="foldblend-")
        atexit.register(shutil.rmtree, config.CACHE_DIR, ignore_errors=True)


def _can_write(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False
