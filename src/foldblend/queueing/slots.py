"""Queueing room: how many processes train side by side on this machine, and which GPU each one sees."""

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import psutil

from foldblend.errors import UserError

BYTES_A_PROCESS = 3 * 2**30
"""Of memory that a process on a CPU is taken to need: libraries, a small encoder and its optimiser, texts."""
LISTED_GPU = re.compile(r"^GPU (\d+):")
LISTED_MIG = re.compile(r"^\s+MIG .*\(UUID: (MIG-[^)]+)\)")
ANSWER_SECONDS = 60


@dataclass(frozen=True)
class Slot:
    """Room for one process."""

    gpu: str | None
    """What CUDA_VISIBLE_DEVICES is set to: a GPU; empty hides them all; None leaves it alone, as there are none."""

    def takes(self, wants_gpu: bool) -> bool:
        """Beside GPUs a job without use for one keeps to the slot without one, and the others keep out of that."""
        return self.gpu is None or wants_gpu == bool(self.gpu)


def find_gpus() -> list[str]:
    """Names, as CUDA_VISIBLE_DEVICES knows them, of the GPUs this process may use; slices of a divided GPU by name.

    Raises: ValueError: nvidia-smi hangs, as it does when a driver is broken.
    """
    listed = []
    for line in _list_gpus().splitlines():
        gpu, mig = LISTED_GPU.match(line), LISTED_MIG.match(line)
        if gpu:
            listed.append([gpu[1]])
        elif mig and listed:
            listed[-1].append(mig[1])
    found = [name for whole, *slices in listed for name in slices or [whole]]
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is None or not found:
        return found
    names = [name.strip() for name in chosen.split(",")]
    end = next((at for at, name in enumerate(names) if name in ("", "-1", "NoDevFiles")), len(names))
    return names[:end]  # CUDA, too, stops reading at the first that is none


def _list_gpus() -> str:
    """What `nvidia-smi -L` says; nothing without a driver."""
    try:
        done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=ANSWER_SECONDS, check=False)
    except FileNotFoundError:
        return ""
    except subprocess.TimeoutExpired:
        raise UserError(
            f"nvidia-smi -L did not answer in {ANSWER_SECONDS} s: mend the driver, or hide the GPUs: "
            "PATH without nvidia-smi and CUDA_VISIBLE_DEVICES= train on the CPU"
        ) from None
    return done.stdout if done.returncode == 0 else ""


def plan_slots(wants_gpu: Sequence[bool], gpus: Sequence[str], side_by_side: int, cores: int) -> list[Slot]:
    """The slots of a machine for a list of jobs.

    With GPUs: `side_by_side` (1) a GPU, and one more for the jobs that have no use for a GPU. Without, or where no job
    wants one: `side_by_side`, by default one a core, as two small encoders on a core each are faster in sum than one
    on two; as many as there is memory for. Finished jobs count as well, so that a command that goes on trains with
    the threads that it began with.

    Args: wants_gpu: one a job of the whole list.   side_by_side: 0 is the default.
    """
    wanted = sum(wants_gpu)
    if gpus and wanted:
        slots = [Slot(gpu) for _ in range(side_by_side or 1) for gpu in gpus][:wanted]
        return slots + [Slot("")] * (wanted < len(wants_gpu))
    processes = side_by_side or min(cores, psutil.virtual_memory().available // BYTES_A_PROCESS)
    if sys.platform == "darwin" and not side_by_side:
        processes = 1  # an Apple GPU, where there is one, is shared by all
    return [Slot("" if gpus else None)] * max(1, min(processes, len(wants_gpu)))
