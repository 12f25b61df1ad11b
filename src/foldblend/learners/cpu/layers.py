"""Dropout, attention and whole layers of BERT's kind that are faster on a CPU than torch's own, and the C behind them.

In a fused layer torch computes the matrix products and C everything between them. In a step of short texts the products
take half of the time; the rest were about forty passes over the states per layer. Here it is four passes forward and
six backward, each in float32, which write what the next product reads.

`accelerate_on_cpu` changes a model; waiting_rows.py is the optimizer that training/optimizer.py chooses on a CPU. The
training loop knows of neither.
"""

import ctypes
import hashlib
import os
import platform
import secrets
import shlex
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

from foldblend.errors import UserError


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


# 1. Dropout whose masks are drawn many numbers at a time, and the attention that uses it

SIXTEEN_BITS = 1 << 16
ATTENTION = "cpu_dropout"
"""The name under which transformers knows `attend`."""

ATTENDS_PLAINLY = ("bert", "camembert", "distilbert", "electra", "roberta", "xlm-roberta")
"""Architectures whose attention is a softmax over all tokens, every head with keys of its own."""


def use_cpu_dropout(model: nn.Module) -> None:
    """Let every dropout of a model, and its attention where that is plain, draw from here."""
    for parent in model.modules():
        for name, child in parent.named_children():
            # not subclasses: what another class does with its p is not known here
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
    # p is rounded to 1 / 65,536, and the scale made of the rounded one, so that the mean is exactly 1
    threshold = round(SIXTEEN_BITS / float(scale))  # of 2^16 numbers, those that keep
    n = int(np.prod(shape))
    # four masks' worth of bits come out of each 64-bit number; torch.bernoulli draws one number per element
    source = np.random.SFC64(int(torch.randint(1 << 62, ())))
    kept = source.random_raw(-(-n // 4)).view(np.uint16)[:n] < np.uint16(threshold)
    if dtype == torch.bfloat16:
        # numpy has no bfloat16: 0 or 1 times the bits of the scale are the bits of 0 or the scale
        bits = scale.view(torch.uint16).numpy()
        return torch.from_numpy(kept.view(np.uint8) * bits).view(dtype).view(shape)
    return torch.from_numpy(kept.view(np.uint8) * np.float32(SIXTEEN_BITS / threshold)).view(shape).to(dtype)


def attend(module, query, key, value, attention_mask, dropout=0.0, scaling=None, **_):
    """Attention as transformers calls it: query, key, value (B, heads, T, d), attention_mask float (B, 1, T, T) or
    None, added. Returns (B, T, heads, d) and no weights. The softmax is taken in float32.
    """
    if not torch.is_grad_enabled():
        # without gradients nothing has to be kept, and torch's fused kernel is the fastest
        states = F.scaled_dot_product_attention(query, key, value, attention_mask, dropout, scale=scaling)
        return states.transpose(1, 2).contiguous(), None
    scaling = query.size(-1) ** -0.5 if scaling is None else scaling
    scores = torch.matmul(query, key.transpose(2, 3)) * scaling  # (B, heads, T, T)
    if attention_mask is not None:
        scores = scores + attention_mask
    # (B, heads, T, T)
    weights = F.softmax(scores, dim=-1, dtype=torch.float32)
    if dropout:
        weights = weights * draw_mask(weights.shape, dropout, weights.dtype)
    return torch.matmul(weights.to(value.dtype), value).transpose(1, 2).contiguous(), None


AttentionInterface.register(ATTENTION, attend)
AttentionMaskInterface.register(ATTENTION, eager_mask)


# 2. Fused layers

LANES = 16
"""Widths of the model, its heads and its inner layer are multiples of this."""

NO_DROPOUT = (0, 0, 1.0)


def fuse_layers(model: nn.Module) -> bool:
    """Let every layer of BERT's kind in the model compute in one piece, in bfloat16 under autocast, else in float32.

    Returns False if there are such layers and this machine cannot (no Linux, no compiler). Layers of other kinds, or of
    other widths, stay as they are.
    """
    layers = [module for module in model.modules() if _fits(module)]
    if not layers or not is_available():
        return not layers
    for layer in layers:
        # the object stays, with its parameters and their names: checkpoints and optimizers see no difference
        layer.__class__ = _fused(type(layer))
    return True


class FusedLayer:
    """Comes before a layer's own class: computes the layer in one piece if it can, else calls the layer's own."""

    def forward(self, hidden_states, attention_mask=None, *others, **named):
        """The same as the layer's own forward, without the hooks of modules inside it.

        Args:    hidden_states: (B, T, H).   attention_mask: (B, 1, T, T), 0 or less, added to the scores of every
                 token alike, as encoders have it; or None.
        Returns: float32 (B, T, H).
        """
        if not self._is_plain(hidden_states, attention_mask, others, named):
            return super().forward(hidden_states, attention_mask, *others, **named)
        # states between layers stay float32, as under autocast; only what the products read is rounded
        dtype, hidden_states = _dtype_of_products(), hidden_states.float()
        own, after, last = self.attention.self, self.attention.output, self.output
        weights = [_weights(own.query, own.key, own.value, after.dense, after.LayerNorm)]
        weights += [_weights(self.intermediate.dense, last.dense, last.LayerNorm)]
        batch, length, _ = hidden_states.shape
        seen = torch.ones(batch, length, dtype=torch.bool)
        if attention_mask is not None:
            seen = attention_mask[:, 0, 0] == 0  # of an encoder, the same for every token that looks
        # of the attention's weights, and of the two outputs, in the order in which the layer would draw them
        drops = [draw_dropout(part.dropout.p if self.training else 0.0) for part in (own, after, last)]
        heads = (own.num_attention_heads, own.scaling)
        is_taught = torch.is_grad_enabled()
        states, read = _Attention.apply(
            hidden_states, dtype, seen, heads, drops[0], drops[1], after.LayerNorm.eps, is_taught, *weights[0]
        )  # float32 (B, T, H); (B T, H) in the type of the products
        return _FeedForward.apply(states, read, drops[2], last.LayerNorm.eps, is_taught, *weights[1])

    def _is_plain(self, states, mask, others, named) -> bool:
        """Whether the C files can do what is asked of the layer."""
        asked = [*others, named.get("past_key_values"), named.get("cache"), named.get("encoder_hidden_states")]
        return (
            _dtype_of_products() in STATES
            and self.output.LayerNorm.weight.dtype == self.output.dense.bias.dtype == torch.float32
            and states.device.type == "cpu"
            and all(value is None for value in asked)
            and not named.get("output_attentions")
            and (mask is None or (mask.is_floating_point() and mask.ndim == 4 and mask.shape[:2] == (len(states), 1)))
        )


def draw_dropout(probability: float) -> tuple[int, int, float]:
    """A dropout for the C files: a seed from torch's generator, how many of 2^32 numbers keep, the scale."""
    if probability == 0:
        return NO_DROPOUT
    kept = min(round((1 - probability) * 2**32), 2**32 - 1)
    return int(torch.randint(1 << 32, ())), kept, 2**32 / kept if kept else 0.0


class _Attention(torch.autograd.Function):
    """norm(states + dropout(dense(attention(states)))), and the same as rows (B T, H) of the products' type."""

    @staticmethod
    def forward(ctx, states, dtype, seen, heads, drop_probs, drop, eps, is_taught, *weights):
        wq, bq, wk, bk, wv, bv, wo, bo, gain, shift = weights
        batch, length, width = states.shape
        shape = (batch, length, heads[0], width // heads[0], heads[1])
        rows = states.reshape(-1, width).contiguous()
        # one product of three matrices at once is faster than three products: (3 H, H), (3 H,), (B T, H)
        weight, bias, read = _join((wq, wk, wv), dtype), torch.cat((bq, bk, bv)), rows.to(dtype)
        # the biases are added by the C code, which reads these numbers anyway: one pass less over the states
        qkv = read @ weight.t()  # (B T, 3 H)
        attended = torch.empty_like(read)
        # the (T, T) weights of a head live in the processor's cache only, and are computed again in the backward pass
        run("attention_forward", dtype, qkv, bias, seen, attended, *shape, *drop_probs)
        wo, next_read = wo.to(dtype), torch.empty_like(read)
        out, added, moments = _norm(rows, attended @ wo.t(), bo, gain, shift, eps, drop, is_taught, next_read)
        ctx.save_for_backward(read, qkv, bias, seen, attended, added, moments, weight, wo, gain)
        ctx.shape, ctx.drops = shape, (drop_probs, drop)
        ctx.mark_non_differentiable(next_read)
        # no zeros are made for the second output, which has no gradient
        ctx.set_materialize_grads(False)
        return out.view_as(states), next_read

    @staticmethod
    @once_differentiable
    @torch.autocast("cpu", enabled=False)
    def backward(ctx, gradient, _):
        read, qkv, bias, seen, attended, added, moments, weight, wo, gain = ctx.saved_tensors
        of_rows, of_out, of_gain, of_shift, of_bo = _norm_backward(gradient, read, added, moments, gain, ctx.drops[1])
        # gradients of weights are float32, as the weights are
        of_wo = (of_out.t() @ attended).float()
        of_qkv, sums = torch.empty_like(qkv), _sums(qkv.shape[1])
        run("attention_backward", qkv.dtype, qkv, bias, seen, of_out @ wo, of_qkv, sums, *ctx.shape, *ctx.drops[0])
        # the product rule: a weight gets gradient^T @ input, a bias the sum of the gradient over rows
        of_weight, of_bias = (of_qkv.t() @ read).float(), sums.sum(0)
        # of_rows has the gradient of the residual path; that through the attention is added in place
        run("add_states", qkv.dtype, of_rows, of_qkv @ weight, of_rows.numel())
        thirds = zip(of_weight.chunk(3), of_bias.chunk(3), strict=True)
        of_inputs = (each for pair in thirds for each in pair)
        # dtype, seen, heads, two drops, eps and is_taught have no gradient
        return of_rows.view_as(gradient), *[None] * 7, *of_inputs, of_wo, of_bo, of_gain, of_shift


class _FeedForward(torch.autograd.Function):
    """norm(states + dropout(dense(gelu(dense(states)))))"""

    @staticmethod
    def forward(ctx, states, read, drop, eps, is_taught, *weights):
        w1, b1, w2, b2, gain, shift = weights
        w1, w2 = w1.to(read.dtype), w2.to(read.dtype)
        inner = read @ w1.t()
        active = torch.empty_like(inner)
        # gelu's slope is written over its input, which nothing reads again
        run("gelu_forward", read.dtype, inner, b1, inner if is_taught else None, active, *inner.shape)
        rows = states.view(-1, states.shape[-1])
        out, added, moments = _norm(rows, active @ w2.t(), b2, gain, shift, eps, drop, is_taught)
        ctx.save_for_backward(read, inner, active, added, moments, w1, w2, gain)  # inner is gelu's slope by now
        ctx.drop = drop
        return out.view_as(states)

    @staticmethod
    @once_differentiable
    @torch.autocast("cpu", enabled=False)
    def backward(ctx, gradient):
        read, slope, active, added, moments, w1, w2, gain = ctx.saved_tensors
        of_rows, of_out, of_gain, of_shift, of_b2 = _norm_backward(gradient, read, added, moments, gain, ctx.drop)
        of_w2, of_inner, sums = (of_out.t() @ active).float(), of_out @ w2, _sums(slope.shape[1])
        run("gelu_backward", slope.dtype, slope, of_inner, sums, *slope.shape)
        of_w1 = (of_inner.t() @ read).float()
        run("add_states", slope.dtype, of_rows, of_inner @ w1, of_rows.numel())
        return of_rows.view_as(gradient), None, None, None, None, of_w1, sums.sum(0), of_w2, of_b2, of_gain, of_shift


def _norm(rows, out, bias, gain, shift, eps, drop, is_taught, as_states=None):
    """norm(rows + dropout(out + bias)), also in `as_states`; what is normed, if its gradient is asked for; its moments
    (B T, 2)."""
    normed, moments = torch.empty_like(rows), rows.new_empty(len(rows), 2)
    # without a gradient the sum that is normed may be overwritten by the result
    added = torch.empty_like(rows) if is_taught else normed
    outputs = (added, moments, normed, as_states)
    run("norm_forward", out.dtype, rows, out, bias, gain, shift, eps, *drop, *outputs, *rows.shape)
    return normed, added, moments


def _norm_backward(gradient, like_out, added, moments, gain, drop):
    """Gradients of rows, of out (shape and dtype of `like_out`), of gain, of shift and of bias."""
    gradient = gradient.reshape(added.shape).contiguous()
    of_rows, of_out, sums = torch.empty_like(added), torch.empty_like(like_out), _sums(3, added.shape[1])
    run("norm_backward", of_out.dtype, gradient, added, moments, gain, *drop, of_rows, of_out, sums, *added.shape)
    return of_rows, of_out, *sums.sum(0)


def _join(parts, dtype: torch.dtype) -> torch.Tensor:
    """The parts below one another, in a type."""
    # torch.cat would first make float32, then round all of it
    joined = parts[0].new_empty(3 * len(parts[0]), *parts[0].shape[1:], dtype=dtype)
    for piece, part in zip(joined.chunk(3), parts, strict=True):
        piece.copy_(part)
    return joined


def _sums(*shape: int) -> torch.Tensor:
    """Zeros, one part a thread."""
    # threads add to sums of their own, without locks, and in an order that does not change from run to run
    return torch.zeros(torch.get_num_threads(), *shape)


def _weights(*parts: nn.Module) -> list[torch.Tensor]:
    return [tensor for part in parts for tensor in (part.weight, part.bias)]


def _dtype_of_products() -> torch.dtype:
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else torch.float32


@cache
def _fused(kind: type) -> type:
    return type(f"Fused{kind.__name__}", (FusedLayer, kind), {})


def _fits(module: nn.Module) -> bool:
    """Whether a module is a layer of BERT's, RoBERTa's or ELECTRA's encoder with widths that the C files take."""
    kinds = ("BertLayer", "CamembertLayer", "ElectraLayer", "RobertaLayer", "XLMRobertaLayer")
    if type(module).__name__ not in kinds or module.is_decoder or module.chunk_size_feed_forward:
        return False
    own, inner = module.attention.self, module.intermediate
    dense = (own.query, own.key, own.value, module.attention.output.dense, inner.dense, module.output.dense)
    if any(type(layer) is not nn.Linear for layer in dense):
        return False
    width = own.num_attention_heads * own.attention_head_size
    widths = (own.attention_head_size, inner.dense.out_features)
    # LANES floats are one AVX-512 register, and the C loops have no remainder
    is_plain = width == own.query.in_features and not any(size % LANES for size in widths)
    return is_plain and type(inner.intermediate_act_fn).__name__ == "GELUActivation"


# 3. The C files of native_c/, compiled once for the processor they run on and kept beside them

SOURCES = Path(__file__).with_name("native_c")
FLAGS = ("-O3", "-march=native", "-fno-math-errno", "-fopenmp", "-fPIC", "-shared", "-std=gnu11")
"""No -ffast-math: NaN must stay NaN, as checks.py looks for it. Square roots need not set errno."""

NUMBERS = {"I": ctypes.c_int, "L": ctypes.c_int64, "U": ctypes.c_uint32, "F": ctypes.c_float}
TENSORS = {"W": torch.float32, "B": torch.bool, "N": torch.int64}
"""Beside "S", a tensor of states."""

FUNCTIONS = {
    "gelu_forward": "SWSSLLI",
    "gelu_backward": "SSWLLI",
    "norm_forward": "WSWWWFUUFWWWSLLI",
    "norm_backward": "WWWWUUFWSWLLI",
    "add_states": "WSLI",
    "attention_forward": "SWBSLLLLFUUFI",
    "attention_backward": "SWBSSWLLLLFUUFI",
    "catch_up_rows": "NLWWWWWWFFFFLLI",
    "step_rows": "NWLWWWWFFFFFFFFFLI",
}
"""Each function's arguments: a tensor's memory, or a number. The last one is the number of threads."""

STATES = {torch.bfloat16: (), torch.float32: ("-DSTATES_ARE_FLOAT32",)}
"""What the matrix products may read and write, and the flags that compile for it."""


def run(name: str, dtype: torch.dtype, *arguments) -> None:
    """Call a function of the C files: tensors are passed as pointers, None as a null pointer, torch's threads last.

    Args:   dtype: of the states, one of STATES.
    Raises: UserError: C cannot read a tensor: it is not contiguous, not on the CPU, or of another type.
            MemoryError: the function found no memory.
    """
    plain = []
    for value, kind in zip(arguments, FUNCTIONS[name]):
        if isinstance(value, torch.Tensor):
            expected = TENSORS.get(kind, dtype)
            if not value.is_contiguous() or value.device.type != "cpu" or value.dtype != expected:
                shape = f"{value.dtype}, {value.device}, shape {tuple(value.shape)}, strides {value.stride()}"
                raise UserError(f"{name}: a tensor is {shape}; expected {expected} in one piece on the CPU")
            value = value.data_ptr()
        plain.append(value)
    if getattr(load_library(dtype), name)(*plain, torch.get_num_threads()):
        raise MemoryError(f"{name}: no memory for {torch.get_num_threads()} threads")


def is_available() -> bool:
    """Whether this machine has a C compiler that makes the library."""
    return all(load_library(dtype) is not None for dtype in STATES)


@cache
def load_library(dtype: torch.dtype) -> ctypes.CDLL | None:
    """The compiled functions for states of a type; None without a compiler, or if what it makes cannot be loaded."""
    program, *options = shlex.split(os.environ.get("CC", "")) or ["cc"]
    compiler = shutil.which(program)
    if platform.system() != "Linux" or compiler is None:
        return None
    command = [compiler, *options, *FLAGS, *STATES[dtype]]
    try:
        kept = SOURCES / "__pycache__" / _name(command)
        return _load_kept(command, kept) or _load_own(command, kept.name)
    except OSError:  # the compiler does not start, or nothing may be written anywhere
        return None


def _load_kept(command: list[str], kept: Path) -> ctypes.CDLL | None:
    """The library kept beside the sources, compiled if it is missing; None if it cannot be kept there."""
    try:
        kept.parent.mkdir(exist_ok=True)
        return _open(kept) if kept.is_file() or _build(command, kept) else None
    except OSError:
        return None


def _load_own(command: list[str], name: str) -> ctypes.CDLL | None:
    """Compiled for this process alone."""
    with tempfile.TemporaryDirectory(prefix="foldblend-") as folder:
        own = Path(folder) / name
        return _open(own) if _build(command, own) else None


def _name(command: list[str]) -> str:
    """A file name that changes with sources, compiler, flags and processor."""
    files = [path.read_bytes() for path in sorted(SOURCES.glob("*.[ch]"))]
    compiler = os.stat(command[0])
    made_of = [*files, f"{command} {compiler.st_size} {compiler.st_mtime_ns}".encode(), _processor()]
    return hashlib.sha256(b"\0".join(made_of)).hexdigest()[:24] + ".so"


def _build(command: list[str], path: Path) -> bool:
    """Compile into `path`, whole or not at all. Raises OSError: nothing may be written there."""
    temporary = path.with_name(f".{secrets.token_hex(8)}.{path.name}")
    temporary.touch()
    try:
        sources = sorted(str(file) for file in SOURCES.glob("*.c"))
        done = subprocess.run([*command, "-o", str(temporary), *sources, "-lm"], capture_output=True)
        if done.returncode == 0:
            os.replace(temporary, path)
        return done.returncode == 0
    finally:
        temporary.unlink(missing_ok=True)


def _open(path: Path) -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL(str(path))
    except OSError:  # a folder that nothing may be run from, or no OpenMP
        return None
    for name, kinds in FUNCTIONS.items():
        function = getattr(library, name)
        function.argtypes = [NUMBERS.get(kind, ctypes.c_void_p) for kind in kinds]
        function.restype = ctypes.c_int if name.startswith("attention") else None
    return library


def _processor() -> bytes:
    """What -march=native looks at: folders are shared by machines that differ."""
    lines = Path("/proc/cpuinfo").read_bytes().splitlines()
    return b"".join(sorted({line for line in lines if line.startswith((b"flags", b"Features", b"model name"))}))
