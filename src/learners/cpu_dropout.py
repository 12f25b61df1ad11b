"""Dropout on a CPU, its masks drawn many numbers at a time, and the attention that goes with it.

torch draws dropout on a CPU one number after the other, and its fused attention knows no dropout there.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

SIXTEEN_BITS = 1 << 16
ATTENTION = "cpu_dropout"
"""The name under which transformers knows `attend`."""

ATTENDS_PLAINLY = ("bert", "camembert", "distilbert", "electra", "roberta", "xlm-roberta")
"""Architectures whose attention is a softmax over all tokens, every head with keys of its own."""


def use_cpu_dropout(model: nn.Module) -> None:
    """Let every dropout of a model, and its attention where that is plain, draw from here."""
    for parent in model.modules():
        for name, child in parent.named_children():
            if type(child) is nn.Dropout:
                setattr(parent, name, CpuDropout(child.p))
    for module in model.modules():
        config = getattr(module, "config", None)
        if getattr(config, "model_type", None) in ATTENDS_PLAINLY and hasattr(module, "set_attn_implementation"):
            module.set_attn_implementation(ATTENTION)
            return


class CpuDropout(nn.Dropout):
    """nn.Dropout with masks of `draw_mask`."""

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        if not self.training or self.p == 0:
            return states
        return states * draw_mask(states.shape, self.p, states.dtype)


def draw_mask(shape: torch.Size, probability: float, dtype: torch.dtype) -> torch.Tensor:
    """0 with `probability`, else the number that makes the mean 1; float32 or bfloat16 (`shape`).

    A seed is taken from torch's generator, so what is drawn follows torch.manual_seed, also where a layer is computed
    again for its gradient. bfloat16 has no exact 1 / 0.9: the probability is moved to what its nearest number needs.
    """
    if probability == 1:
        return torch.zeros(shape, dtype=dtype)
    scale = torch.tensor(1 / (1 - probability), dtype=dtype)
    threshold = round(SIXTEEN_BITS / float(scale))  # of 2^16 numbers, those that keep
    n = int(np.prod(shape))
    source = np.random.SFC64(int(torch.randint(1 << 62, ())))
    kept = source.random_raw(-(-n // 4)).view(np.uint16)[:n] < np.uint16(threshold)
    if dtype == torch.bfloat16:
        bits = scale.view(torch.uint16).numpy()
        return torch.from_numpy(kept.view(np.uint8) * bits).view(dtype).view(shape)
    return torch.from_numpy(kept.view(np.uint8) * np.float32(SIXTEEN_BITS / threshold)).view(shape).to(dtype)


def attend(module, query, key, value, attention_mask, dropout=0.0, scaling=None, **_):
    """Attention as transformers calls it: query, key, value (B, heads, T, d), attention_mask float (B, 1, T, T) or
    None, added. Returns (B, T, heads, d) and no weights. The softmax is taken in float32.
    """
    if not torch.is_grad_enabled():
        states = F.scaled_dot_product_attention(query, key, value, attention_mask, dropout, scale=scaling)
        return states.transpose(1, 2).contiguous(), None
    scaling = query.size(-1) ** -0.5 if scaling is None else scaling
    scores = torch.matmul(query, key.transpose(2, 3)) * scaling  # (B, heads, T, T)
    if attention_mask is not None:
        scores = scores + attention_mask
    weights = F.softmax(scores, dim=-1, dtype=torch.float32)
    if dropout:
        weights = weights * draw_mask(weights.shape, dropout, weights.dtype)
    return torch.matmul(weights.to(value.dtype), value).transpose(1, 2).contiguous(), None


AttentionInterface.register(ATTENTION, attend)
AttentionMaskInterface.register(ATTENTION, eager_mask)
