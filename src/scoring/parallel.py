"""The scoring room's threads: one job a label, matrix products on one thread each.

Small matrix products lose more to the hand-over between BLAS threads than they win, and their last bits depend on
how many there are. numpy leaves the interpreter lock while it works, so labels run side by side instead.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from threadpoolctl import threadpool_limits


def over_labels(one: Callable, n_labels: int) -> list:
    """[one(0), one(1), ...], computed on all cores."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(one, range(n_labels)))


def single_threaded_products() -> threadpool_limits:
    """A context in which a matrix product uses one thread; enter it once, around a whole blend."""
    return threadpool_limits(1, "blas")
