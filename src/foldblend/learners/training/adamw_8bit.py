"""AdamW whose moments take 8 bits per weight, by bitsandbytes; its state is saved and restored as plain tensors."""

import logging

import torch
from torch import nn

logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # on CPUs it asks for one more package of kernels

import bitsandbytes  # noqa: E402


class AdamW8bit(bitsandbytes.optim.AdamW8bit):
    """bitsandbytes' AdamW: moments as 8-bit numbers, every 256 of them with a float32 scale of their own.

    Embeddings, whose gradients differ widely in size, and tensors below 4,096 weights keep float32 moments.

    Source: Dettmers et al. 2022, arXiv:2110.02861, sections 2.1 and 2.3.
    """

    def __init__(self, groups: list[dict], model: nn.Module, betas: tuple[float, float], eps: float):
        super().__init__(groups, betas=betas, eps=eps)
        tables = (module.weight for module in model.modules() if isinstance(module, nn.Embedding))
        self.tables = {id(weight) for weight in tables}

    def get_config(self, gindex, pindex, group):
        """What bitsandbytes calls for each tensor's settings at each step."""
        config = super().get_config(gindex, pindex, group)
        is_table = id(group["params"][pindex]) in self.tables
        return config | {"optim_bits": 32} if is_table else config

    def state_dict(self) -> dict:
        """As torch's own: every value of the state is a tensor, none shares its memory with another."""
        saved = super().state_dict()
        for state in saved["state"].values():
            state |= state.pop(self._FSDP_WRAPPED_QUANT_STATE_KEY, {})
            state["step"] = torch.tensor(state["step"])
            for name in state.keys() & {"qmap1", "qmap2"}:  # one table of the 256 values serves all
                state[name] = state[name].clone()
        return saved

    def load_state_dict(self, state_dict: dict) -> None:
        """The reverse of `state_dict`."""
        state = {i: {**values, "step": int(values["step"])} for i, values in state_dict["state"].items()}
        super().load_state_dict({**state_dict, "state": state})
