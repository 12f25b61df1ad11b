"""What makes training and prediction on a CPU faster: fused layers, faster dropout, embedding rows that wait.

`accelerate_on_cpu` changes a model; `waiting_rows` is the optimizer that training/optimizer.py chooses on a CPU. The
training loop knows of neither.
"""

from torch import nn

from foldblend.learners.cpu.layers import FusedLayer, fuse_layers, use_cpu_dropout


def accelerate_on_cpu(model: nn.Module, may_fuse: bool) -> bool:
    """Let a pretrained encoder under a head draw dropout faster and, if `may_fuse`, compute its layers in C.

    Args:    may_fuse: False if processes will share out the weights: a fused layer reads whole matrices.
    Returns: whether the layers that could be fused are; False means that this machine cannot (no Linux, no compiler).
    """
    use_cpu_dropout(model)
    return not may_fuse or fuse_layers(model)


def has_fused_layers(model: nn.Module) -> bool:
    """Whether layers of the model compute in C: their results differ from torch's in the last bits."""
    return any(isinstance(module, FusedLayer) for module in model.modules())
