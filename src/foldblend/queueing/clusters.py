"""The list of trainings as a file for a cluster: a Slurm array or a SkyPilot task.

Source: slurm.schedmd.com sbatch (--array, --requeue, --signal=B:, --open-mode) and job_array (the id of one task);
docs.skypilot.co yaml-spec, "Distributed Multi-Node Jobs" and "Syncing Code and Artifacts".
"""

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import indent

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
