"""The scoring room's threads: one job a label, matrix products on one thread each.

Small matrix products lose more to the hand-over between BLAS threads than they win, and their last bits depend on
how many there are. numpy leaves the interpreter lock while it works, so labels run side by side instead.
"""

import ctypes
import os
import platform
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ContextDecorator
from functools import cache

from threadpoolctl import threadpool_limits

TASKS_A_CORE = 4
"""Handing out a label costs as much as sorting a column, so each task is several labels; more tasks share evenly."""
MIN_ROWS = 5_000
"""Fewer rows than this a label, and handing out the work costs more than it saves."""

M_MMAP_THRESHOLD = -3
"""glibc's number of the setting, from malloc.h."""
LARGE_BYTES = 2**21
"""From this size on an allocation gets pages of its own."""


def over_labels(one: Callable, n_labels: int, n_rows: int) -> list:
    """[one(0), one(1), ...], computed on all cores where each looks at many rows."""
    if n_rows < MIN_ROWS:
        return [one(label) for label in range(n_labels)]
    size = max(1, n_labels // (TASKS_A_CORE * (os.cpu_count() or 1)))
    blocks = [range(start, min(start + size, n_labels)) for start in range(0, n_labels, size)]
    return [value for values in _threads().map(lambda block: [one(k) for k in block], blocks) for value in values]


@cache
def _threads() -> ThreadPoolExecutor:
    """Started once: a blend asks for them thousands of times."""
    return ThreadPoolExecutor(os.cpu_count())


class single_threaded_products(ContextDecorator):
    """Decorator: within the function, a matrix product uses one thread."""

    def __enter__(self):
        self.limits = threadpool_limits(1, "blas")

    def __exit__(self, *error):
        self.limits.restore_original_limits()


def give_back_freed_memory() -> None:
    """Have glibc return a freed table to the system at once; it would keep it and take another for the next."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)
