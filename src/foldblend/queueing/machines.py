"""Where trainings run: processes side by side on this machine and the GPU of each, or a batch file for a cluster."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import indent

import psutil

from foldblend.errors import UserError

BYTES_PER_PROCESS = 3 * 2**30
"""Memory that a process on a CPU needs, by our estimate: libraries, a small encoder and its optimiser, texts."""
LISTED_GPU = re.compile(r"^GPU (\d+): .*\(UUID: (GPU-[^)]+)\)")
LISTED_MIG = re.compile(r"^\s+MIG .*\(UUID: (MIG-[^)]+)\)")
ANSWER_SECONDS = 60


@dataclass(frozen=True)
class Slot:
    """One process at a time runs in a slot."""

    gpu: str | None
    """What CUDA_VISIBLE_DEVICES is set to: a GPU; empty: no GPU is seen; None: left as it is, there are no GPUs."""
    number: str = field(default="", compare=False)
    """The GPU as nvidia-smi numbers it."""

    @property
    def shown(self) -> str:
        """`GPU 0`; empty without one."""
        return f"GPU {self.number or self.gpu}" if self.gpu else ""

    def takes(self, wants_gpu: bool) -> bool:
        """On a machine with GPUs, jobs that use one run in slots with a GPU, all others in the slot without."""
        return self.gpu is None or wants_gpu == bool(self.gpu)


def find_gpus() -> dict[str, str]:
    """The GPUs that this process may use: the name of each for CUDA_VISIBLE_DEVICES -> its number for a person.

    The name is a UUID, as CUDA numbers GPUs by their speed and nvidia-smi by their place on the bus; slices (MIG) of a
    divided GPU have UUIDs of their own. What CUDA_VISIBLE_DEVICES names already is taken as it is.
    Raises: UserError: nvidia-smi hangs, as it does if the driver is broken.
    Source: CUDA C++ Programming Guide, CUDA_VISIBLE_DEVICES and CUDA_DEVICE_ORDER.
    """
    listed: list[tuple[str, dict[str, str]]] = []
    whole: dict[str, str] = {}
    for line in _list_gpus().splitlines():
        gpu, mig = LISTED_GPU.match(line), LISTED_MIG.match(line)
        if gpu:
            whole[gpu[2]] = gpu[1]
            listed.append((gpu[2], {}))
        elif mig and listed:
            slices = listed[-1][1]
            slices[mig[1]] = f"{whole[listed[-1][0]]}.{len(slices)}"
    found = {name: number for uuid, slices in listed for name, number in (slices or {uuid: whole[uuid]}).items()}
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is None or not found:
        return found
    names = [name.strip() for name in chosen.split(",")]
    end = next((i for i, name in enumerate(names) if name in ("", "-1", "NoDevFiles")), len(names))
    return {name: found.get(name, name) for name in names[:end]}  # CUDA, too, stops at the first name that is no GPU


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


def plan_slots(wants_gpu: Sequence[bool], gpus: Mapping[str, str], side_by_side: int, cores: int) -> list[Slot]:
    """The slots of a machine for a list of jobs.

    With GPUs: `side_by_side` (1) per GPU, and one more for the jobs that do not use a GPU. Without GPUs, or if no job
    uses one: `side_by_side`, by default one per core, as two small encoders on one core each are faster in sum than
    one on two; but only as many as the memory holds. Finished jobs count as well, so that a command that is started
    again trains with as many threads as before.

    Args: wants_gpu: one per job of the whole list.   gpus: as `find_gpus` finds them.   side_by_side: 0 is the default.
    """
    wanted = sum(wants_gpu)
    if gpus and wanted:
        slots = [Slot(*gpu) for _ in range(side_by_side or 1) for gpu in gpus.items()][:wanted]
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
    gpus = sorted({slot.shown.removeprefix("GPU ") for slot in slots if slot.gpu})
    where = f"GPU {', '.join(gpus)}" if gpus else "the CPU"
    trainings = "1 training at a time" if len(slots) == 1 else f"{len(slots)} trainings side by side"
    return f"{trainings} on {where}, threads per training: {threads}"


# ---------- the list of trainings as a file for a cluster: a Slurm array or a SkyPilot task.
#
# Source: slurm.schedmd.com sbatch (--array, --requeue, --signal=B:, --open-mode) and job_array (the id of one task);
# docs.skypilot.co yaml-spec, "Distributed Multi-Node Jobs" and "Syncing Code and Artifacts".


SLURM = """\
#!/usr/bin/env bash
# {machines} machines share the folds of {competition}. All of them must see this project's folder.
#   sbatch {file}
# Check the #SBATCH lines below (sinfo shows partitions and limits); the lines after them need no change.
#SBATCH --job-name=foldblend-{competition}
#SBATCH --array=0-{last}
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=32G
{gpu}#SBATCH --time=08:00:00
#SBATCH --output=slurm-%A_%a.out
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=B:USR1@300
set -euo pipefail
cd {project}
{root}
queue="" time_is_up="" asked=""
stop() {{ asked=yes; [ -z "$queue" ] || kill -TERM "$queue" 2>/dev/null || true; }}
trap 'time_is_up=yes; stop' USR1 # 300 s before the limit: the trainings save themselves
trap stop TERM INT               # scancel, a preemption

{command} --part "$SLURM_ARRAY_TASK_ID/{machines}" &
queue=$!
[ -z "$asked" ] || stop # a signal came before the queue was there to pass it on to
status=0
wait "$queue" || status=$?
while kill -0 "$queue" 2>/dev/null; do # a trapped signal ends the wait before the queue has ended
    status=0
    wait "$queue" || status=$?
done
if [ -n "$time_is_up" ] && [ "$status" -eq 143 ]; then # only this task; its next start goes on from what was saved
    scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_${{SLURM_ARRAY_TASK_ID}}"
fi
exit "$status"
"""

SKYPILOT = """\
# {machines} machines share the folds of {competition}. In the project's folder:
#   sky launch -c foldblend {file}
# When it is done, copy from the first machine and from each worker (1 to {last}):
#   rsync -Pavz foldblend:sky_workdir/oof/ oof/
#   rsync -Pavz foldblend-worker1:sky_workdir/oof/ oof/
# The same for checkpoints/ if predict.py or bundle.py will need the weights. Then: sky down foldblend
name: foldblend-{competition}
num_nodes: {machines}
workdir: .
resources:
  {resources}
{mounts}setup: |
  ./run.sh setup
run: |
{run}
"""


def slurm_text(
    file: str, competition: str, command: Sequence[str], machines: int, wants_gpu: bool, project: Path, root: str
) -> str:
    """A batch file for sbatch: each task trains a part, saves before the time limit and is queued again.

    Args: command: train_all.py with its flags, without --part.   project: where it is started.
          root: $FOLDBLEND_ROOT, empty if it is not set.
    """
    return SLURM.format(
        file=shlex.quote(file),
        competition=competition,
        machines=machines,
        last=machines - 1,
        gpu="#SBATCH --gres=gpu:1\n" if wants_gpu else "",
        project=shlex.quote(str(project)),
        root=f"export FOLDBLEND_ROOT={shlex.quote(root)}\n" if root else "",
        command=shlex.join(command),
    )


def skypilot_text(
    file: str, competition: str, command: Sequence[str], machines: int, wants_gpu: bool, mounts: Mapping[str, str]
) -> str:
    """A task for `sky launch`: each node installs the project and trains the part of its rank.

    Args: mounts: a folder below the project -> its path here. SkyPilot's copy of the project leaves out what
          .gitignore names, so data and finished folds are copied this way.
    """
    lines = [f"  ~/sky_workdir/{inside}: {json.dumps(here)}\n" for inside, here in mounts.items()]
    return SKYPILOT.format(
        file=shlex.quote(file),
        competition=competition,
        machines=machines,
        last=machines - 1,
        resources="accelerators: A100:1" if wants_gpu else "cpus: 8+",
        mounts="file_mounts:\n" + "".join(lines) if lines else "",
        run=indent(f'exec {shlex.join(command)} --part "$SKYPILOT_NODE_RANK/{machines}"', "  "),
    )
