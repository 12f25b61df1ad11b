"""How many cores a training may use."""

import os

from foldblend.errors import UserError


def count_cores() -> int:
    """`$FOLDBLEND_THREADS` where it is set, else the cores this process may run on.

    Raises: ValueError: the variable is not a whole number from 1.
    """
    wanted = os.environ.get("FOLDBLEND_THREADS")
    if wanted is not None:
        if not wanted.isdecimal() or int(wanted) < 1:
            raise UserError(f"$FOLDBLEND_THREADS is {wanted!r}; expected a whole number from 1")
        return int(wanted)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
