"""Starts train.py under FSDP2 on CPU processes, which Accelerate itself keeps to GPUs; run by torchrun from a test.

Accelerate chooses FSDP for processes that it counts as MULTI_GPU; here they meet on the CPU and are then called that.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from accelerate import DistributedType, PartialState
from accelerate.state import AcceleratorState
from launched_calls import read_calls
from torch import nn
from torch.distributed.fsdp import FSDPModule

from foldblend.commands import guard, train
from foldblend.learners.training import neural


def join_as_gpus() -> PartialState:
    state = PartialState(cpu=True)
    PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
    return state


TRAIN = neural.train


def train_watched(learner, fold, state):
    """Says how many modules are sharded and in what type they predict."""
    shards = [module for module in fold.model.modules() if isinstance(module, FSDPModule)]
    print(f"{len(shards)} sharded modules", flush=True)
    seen = set()

    def note(module, _, states):
        if not module.training:
            seen.add(states.dtype)

    first = next(module for module in fold.model.modules() if isinstance(module, nn.Linear))
    hook = first.register_forward_hook(note)
    TRAIN(learner, fold, state)
    hook.remove()
    print(f"predicted in {seen}", flush=True)


def main() -> None:
    for arguments in read_calls(sys.argv[1:]):
        AcceleratorState._reset_state(True)  # it is told once a process what spreads a model
        train.main(arguments)


if __name__ == "__main__":
    neural.join_processes, neural.train = join_as_gpus, train_watched
    sys.exit(guard(main))
