"""How many processes train side by side on this machine, and which GPU each one sees."""

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import psutil

from foldblend.errors import UserError

BYTES_PER_PROCESS = 3 * 2**30
"""Memory that a process on a CPU needs, by our estimate: libraries, a small encoder and its optimiser, texts."""
LISTED_GPU = re.compile(r"^GPU (\d+):")
LISTED_MIG = re.compile(r"^\s+MIG .*\(UUID: (MIG-[^)]+)\)")
ANSWER_SECONDS = 60


@dataclass(frozen=True)
class Slot:
    """One process at a time runs in a slot."""

    gpu: str | None
    """What CUDA_VISIBLE_DEVICES is set to: a GPU; empty: no GPU is seen; None: left as it is, there are no GPUs."""

    def takes(self, wants_gpu: bool) -> bool:
        """On a machine with GPUs, jobs that use one run in slots with a GPU, all others in the slot without."""
        return self.gpu is None or wants_gpu == bool(self.gpu)


def find_gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them; slices (MIG) of a divided GPU by name.

    Raises: UserError: nvidia-smi hangs, as it does if the driver is broken.
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
    end = next((i for i, name in enumerate(names) if name in ("", "-1", "NoDevFiles")), len(names))
    return names[:end]  # CUDA, too, stops reading at the first name that is no GPU


def _list_gpus() -> str:
    """What `nvidia-smi -L` prints; nothing without a driver."""
    try:
        done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=ANSWER_SECONDS, check=False)
    except FileNotFoundError:
        return ""
    except subprocess.TimeoutExpired:
        raise UserError(
            f"nvidia-smi -L did not answer in {ANSWER_SECONDS} s: the driver is broken. Fix it, or train on the CPU: "
            "start with CUDA_VISIBLE_DEVICES= and a PATH without nvidia-smi"
        ) from None
    return done.stdout if done.returncode == 0 else ""


def plan_slots(wants_gpu: Sequence[bool], gpus: Sequence[str], side_by_side: int, cores: int) -> list[Slot]:
    """The slots of a machine for a list of jobs.

    With GPUs: `side_by_side` (1) per GPU, and one more for the jobs that do not use a GPU. Without GPUs, or if no job
    uses one: `side_by_side`, by default one per core, as two small encoders on one core each are faster in sum than
    one on two; but only as many as the memory holds. Finished jobs count as well, so that a command that is started
    again trains with as many threads as before.

    Args: wants_gpu: one per job of the whole list.   side_by_side: 0 is the default.
    """
    wanted = sum(wants_gpu)
    if gpus and wanted:
        slots = [Slot(gpu) for _ in range(side_by_side or 1) for gpu in gpus][:wanted]
        return slots + [Slot("")] * (wanted < len(wants_gpu))
    processes = side_by_side or min(cores, psutil.virtual_memory().available // BYTES_PER_PROCESS)
    if sys.platform == "darwin" and not side_by_side:
        processes = 1  # all processes would share the one Apple GPU
    return [Slot("" if gpus else None)] * max(1, min(processes, len(wants_gpu)))


def threads_per_slot(cores: int, slots: Sequence[Slot]) -> int:
    """Each slot's share of the cores, at least one."""
    return max(1, cores // len(slots))


def describe_slots(slots: Sequence[Slot], threads: int) -> str:
    """`4 trainings side by side on GPU 0, 1, threads per training: 2`."""
    gpus = sorted({slot.gpu for slot in slots if slot.gpu})
    where = f"GPU {', '.join(gpus)}" if gpus else "the CPU"
    trainings = "1 training at a time" if len(slots) == 1 else f"{len(slots)} trainings side by side"
    return f"{trainings} on {where}, threads per training: {threads}"
