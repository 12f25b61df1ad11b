"""Starts train.py under ZeRO-3 on CPU processes, which Accelerate itself keeps to GPUs; run by its launcher in a test.

Here the processes meet on the CPU and are then called DeepSpeed's, as Accelerate does with those that meet on GPUs.
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from accelerate import DistributedType, PartialState
from accelerate.state import AcceleratorState
from launched_calls import read_calls

from foldblend.commands import guard, train
from foldblend.learners.processes.zero3 import is_cut, own_part
from foldblend.learners.training import neural
from foldblend.learners.training.loop import FoldTraining


def join_as_gpus() -> PartialState:
    state = PartialState(cpu=True)
    PartialState._shared_state["distributed_type"] = DistributedType.DEEPSPEED
    os.environ.pop("ACCELERATE_USE_CPU", None)  # with it, Accelerate would pass DeepSpeed over
    return state


class CutTraining(FoldTraining):
    """Refuses to pass for sharded when it is not."""

    def train(self):
        parameters = list(self.accelerator.unwrap_model(self.model).parameters())
        assert all(is_cut(parameter) for parameter in parameters)
        held, whole = (sum(counts) for counts in zip(*((own_part(p).numel(), p.ds_numel) for p in parameters)))
        print(f"{held} of {whole} numbers here", flush=True)
        super().train()


def main() -> None:
    for arguments in read_calls(sys.argv[1:]):
        AcceleratorState._reset_state(True)  # it is told once a process what spreads a model
        train.main(arguments)


if __name__ == "__main__":
    neural.join_processes, neural.FoldTraining = join_as_gpus, CutTraining
    sys.exit(guard(main))
