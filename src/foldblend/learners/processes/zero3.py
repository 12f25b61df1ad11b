"""DeepSpeed's ZeRO-3, where every process holds a stretch of each weight: what a fold needs of it beside Accelerate.

accelerate launch --config_file configs/accelerate/deepspeed_zero3.yaml src/train.py --fold 3
(needs: pip install deepspeed)

Weights that compute lie cut up in the model. What the optimiser moves are float32 copies of the trained ones, flat and
cut the same way, which it holds; after a step the model's follow. Files hold whole tensors, as of one process.
"""

from collections.abc import Iterable, Iterator

import torch
from accelerate import Accelerator
from accelerate.utils import DeepSpeedPlugin
from torch import nn
from transformers.integrations import unset_hf_deepspeed_config

from foldblend.errors import UserError
from foldblend.settings.run import RunSettings


def build_accelerator(run: RunSettings, precision: str) -> Accelerator:
    """Accelerate over DeepSpeed's engine, which is told what our loop does itself elsewhere: clipping and precision.

    Raises: ValueError: as `check_fit`.
    """
    plugin = DeepSpeedPlugin()
    check_fit(run, plugin, precision)
    plugin.deepspeed_config |= {
        "train_micro_batch_size_per_gpu": 1,  # it only counts with it; rows are divided by in our own loss
        "gradient_clipping": run.optimizer.max_grad_norm,
        # weights stay float32, as in every other launch of ours
        "torch_autocast": {"enabled": precision == "bf16", "dtype": "bfloat16", "lower_precision_safe_modules": []},
    }
    accelerator = Accelerator(deepspeed_plugin=plugin)
    unset_hf_deepspeed_config()  # else transformers would load weights cut up, without shapes to choose groups by
    return accelerator


def cut_up(model: nn.Module, accelerator: Accelerator) -> None:
    """Cut each weight on its way to the device, which may be too small for all of them; the engine finds them so."""
    from deepspeed.runtime.zero import Init  # slow to import

    config = {name: value for name, value in accelerator.deepspeed_plugin.deepspeed_config.items() if value != "auto"}
    Init(module=model, config_dict_or_path=config)
    for buffer in model.buffers():
        buffer.data = buffer.data.to(accelerator.device)


def check_fit(run: RunSettings, plugin: DeepSpeedPlugin, precision: str) -> None:
    """Raise ValueError where the launch asks for another stage or for offloading, or the run for what is not there."""
    found = list(_conflicts(run, plugin, precision))
    if found:
        raise UserError(f"launched with DeepSpeed: {'; '.join(found)}")


def _conflicts(run: RunSettings, plugin: DeepSpeedPlugin, precision: str) -> Iterator[str]:
    devices = {plugin.get_value(f"zero_optimization.offload_{what}.device", "none") for what in ("optimizer", "param")}
    if plugin.zero_stage != 3 or devices - {"none", None}:
        yield "expected ZeRO stage 3 without offloading, as configs/accelerate/deepspeed_zero3.yaml has it"
    if precision == "fp16":
        yield "training.precision fp16 is not for it; set training.precision to fp32 or bf16"
    if run.adversarial.name != "none":
        yield f"adversarial.name {run.adversarial.name} needs gradients before the step; set adversarial.name none"
    if run.adapter.quantization != "none":
        yield f"adapter.quantization {run.adapter.quantization} cannot be cut up; set adapter.quantization none"


class Cut:
    """This process's stretch of a tensor as large as `parameter` and cut as it is: float32 (n,), without padding."""

    def __init__(self, part: torch.Tensor, parameter: nn.Parameter):
        self.part, self.parameter = part, parameter

    def full_tensor(self) -> torch.Tensor:
        """The whole tensor; every process calls it."""
        n_each, group = self.parameter.ds_tensor.numel(), self.parameter.ds_process_group
        padded = torch.zeros(n_each, dtype=self.part.dtype, device=self.part.device)
        padded[: len(self.part)] = self.part
        gathered = padded.new_empty(n_each * torch.distributed.get_world_size(group))
        torch.distributed.all_gather_into_tensor(gathered, padded, group=group)
        return gathered[: self.parameter.ds_numel].view(self.parameter.ds_shape)


def owns(optimizer) -> bool:
    """Whether Accelerate's `optimizer` is ZeRO-3's."""
    return hasattr(getattr(optimizer, "optimizer", None), "fp32_partitioned_groups_flat")


def is_cut(tensor) -> bool:
    """Whether it is a parameter that ZeRO-3 has cut up."""
    return hasattr(tensor, "ds_id")


def cut(whole: torch.Tensor, parameter: nn.Parameter) -> Cut:
    """`whole` cut as `parameter` is. Raises ValueError where it has another shape."""
    if whole.shape != parameter.ds_shape:
        raise UserError(f"saved weights do not fit the model: {tuple(whole.shape)} for {tuple(parameter.ds_shape)}")
    first, length = _stretch(parameter)
    return Cut(whole.reshape(-1)[first : first + length].to(parameter.ds_tensor.device), parameter)


def own_part(parameter: nn.Parameter, key: str | None = None) -> torch.Tensor:
    """This process's stretch, (n,), to read or, where it is trained, to write: of the weight, or of moment `key`."""
    _, length = _stretch(parameter)
    if not parameter.requires_grad:
        return parameter.ds_tensor[:length]
    flat, first = _in_optimizer(parameter)
    held = flat if key is None else parameter._z3_optimizer.optimizer.state[flat][key]
    return held.detach()[first : first + length]


def publish(parameters: Iterable[nn.Parameter]) -> None:
    """Let the model compute with what was written into `own_part` of trained parameters."""
    parameters = list(parameters)
    optimizer = parameters[0]._z3_optimizer
    optimizer.checkpoint_event_prologue()  # drops whole copies
    for parameter in parameters:
        part = own_part(parameter)
        parameter.ds_tensor[: len(part)].copy_(part)
    optimizer.checkpoint_event_epilogue()  # fetches those again that always stay whole


def optimizer_tensors(optimizer) -> dict[str, Cut | torch.Tensor]:
    """AdamW's state as `checkpoints.optimizer_tensors` has it; `optimizer`: what Accelerate made of AdamW."""
    tensors = {}
    for i, parameter in enumerate(_parameters(optimizer)):
        flat, _ = _in_optimizer(parameter)
        state = parameter._z3_optimizer.optimizer.state[flat]
        for key, value in state.items():
            tensors[f"optimizer.{i}.{key}"] = Cut(own_part(parameter, key), parameter) if value.ndim else value
    return tensors


def restore_optimizer(optimizer, state: dict[int, dict[str, torch.Tensor]]) -> None:
    """The reverse of `optimizer_tensors`; `state`: the moments by parameter number."""
    for i, parameter in enumerate(_parameters(optimizer)):
        flat, _ = _in_optimizer(parameter)
        held = parameter._z3_optimizer.optimizer.state[flat]
        for key, value in state.get(i, {}).items():
            if not value.ndim:
                held[key] = value.to(flat.device, copy=True)
                continue
            held.setdefault(key, torch.zeros_like(flat))
            own_part(parameter, key).copy_(cut(value, parameter).part)


def _stretch(parameter: nn.Parameter) -> tuple[int, int]:
    """Where this process's stretch begins in the flat weight, and its length."""
    n_each = parameter.ds_tensor.numel()
    first = n_each * torch.distributed.get_rank(parameter.ds_process_group)
    return first, min(n_each, max(0, parameter.ds_numel - first))


def _in_optimizer(parameter: nn.Parameter) -> tuple[torch.Tensor, int]:
    """The flat float32 tensor that holds the parameter's stretch, and where it begins there."""
    optimizer = parameter._z3_optimizer
    group, first, _ = optimizer.grad_position[optimizer.get_param_id(parameter)]
    return optimizer.fp32_partitioned_groups_flat[group], first


def _parameters(optimizer) -> list[nn.Parameter]:
    """All trained parameters in the order of the groups they were given in."""
    return [parameter for group in optimizer.optimizer.trainable_param_groups for parameter in group["params"]]
