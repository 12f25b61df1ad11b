"""A frozen base model, loaded once per process, on which every fold trains its own adapters."""

import importlib.util
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn
from transformers import AutoModel, BitsAndBytesConfig

from foldblend.errors import UserError
from foldblend.learners.nets.classifier import keep_layers, recompute_layers
from foldblend.learners.nets.pretrained import load_pretrained
from foldblend.learners.processes.devices import is_sharded
from foldblend.settings.nets import AdapterSettings

logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # on CPUs it warns that a package of kernels is missing

from peft import LoraConfig, PrefixTuningConfig, PromptTuningConfig, TaskType, get_peft_model  # noqa: E402
from peft.tuners.tuners_utils import BaseTunerLayer  # noqa: E402

NF4_BLOCK = 64
"""Weights that share one scale in 4-bit storage."""

WORTH_MERGING = 64
"""Fewer rows than this are predicted unmerged: merging would take longer than it saves."""

PREDICTION_BYTES = 8 * 2**30
"""GPU memory kept free for predicting while copies of merged weights are held there, in bytes."""

COMPUTE_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "no": torch.float32}


class SharedBase:
    """The base model of a process. Each fold puts its adapters on it, and the next fold gets it as it was loaded.

    Args:   folder: a pretrained model's folder.   model_class: AutoModel for states, AutoModelForCausalLM for tokens.
            device: where it computes.   precision: `bf16`, `fp16` or `no`, what is computed in.
            spread: whether its weights will be sharded over processes. Then it stays on the CPU until that happens, as
            one device may be too small for it, and each fold loads it again. In 4 bits it is never sharded.
    """

    def __init__(
        self,
        folder: Path,
        model_class: type,
        settings: AdapterSettings,
        device: torch.device,
        precision: str,
        spread: bool = False,
    ):
        self.folder, self.model_class, self.settings = folder, model_class, settings
        self.dtype = choose_base_dtype(settings.kind, precision, device)
        self.spread = spread and settings.quantization == "none"
        self.device, self.precision = torch.device("cpu") if self.spread else device, precision
        self.task = TaskType.FEATURE_EXTRACTION if model_class is AutoModel else TaskType.CAUSAL_LM
        self.base = self.adapted = None
        self.originals: dict[str, torch.Tensor] = {}

    def adapt(self, seed: int, gradient_checkpointing: bool) -> nn.Module:
        """Put fresh adapters drawn from `seed` on the base, in training mode; the adapters of the last fold are gone.

        Everything trained is float32. With `kind: none` the model is the base itself, loaded again.
        """
        if self.settings.kind == "none":
            self.base = None  # two of them may not fit
            self.base = self._load()
            model = self.base.requires_grad_(True)
        else:
            self._restore()
            self.originals = self._copy_what_adapters_change()
            torch.manual_seed(seed)
            model = self.adapted = get_peft_model(self.base, build_config(self.settings, self.task))
        if gradient_checkpointing:
            recompute_layers(self.base)
            self.base.disable_input_require_grads()  # some versions of transformers have just enabled them
            self.base.enable_input_require_grads()
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
        return model.train()

    def _load(self) -> nn.Module:
        return load_base(self.folder, self.model_class, self.settings, self.device, self.precision, self.dtype)

    def _restore(self) -> None:
        """Load the base, or take the last fold's adapters off it. A sharded one is loaded again."""
        if self.base is None or self.spread or is_sharded(self.base):
            self.base = self.adapted = None
            self.base = self._load()
            return
        keep_layers(self.base)
        self.base.disable_input_require_grads()
        if self.settings.kind == "lora":
            self.base = self.adapted.unload()
        parameters = dict(self.base.named_parameters())
        for name, original in self.originals.items():
            parameters[name].data = original.to(self.device, copy=True)

    def _copy_what_adapters_change(self) -> dict[str, torch.Tensor]:
        """Copy to the CPU what LoRA changes in the base itself: trained biases, and the matrices that PiSSA splits."""
        if self.originals or self.settings.kind != "lora":
            return self.originals
        names = [n for n, _ in self.base.named_parameters() if self.settings.bias != "none" and n.endswith("bias")]
        if self.settings.init == "pissa":
            names += [f"{name}.weight" for name, module in self.base.named_modules() if self._is_target(name, module)]
        parameters = dict(self.base.named_parameters())
        return {name: parameters[name].detach().to("cpu", copy=True) for name in names}

    def _is_target(self, name: str, module: nn.Module) -> bool:
        named = self.settings.targets == ("all-linear",) or name.rsplit(".", 1)[-1] in self.settings.targets
        return named and isinstance(module, nn.Linear)


def build_config(settings: AdapterSettings, task: TaskType):
    """Translate the settings into peft's configuration."""
    if settings.kind == "prefix_tuning":
        return PrefixTuningConfig(task_type=task, num_virtual_tokens=settings.virtual_tokens)
    if settings.kind == "prompt_tuning":
        from_vocabulary = {"prompt_tuning_init": "SAMPLE_VOCAB"}  # Lester et al. 2021: words start better than noise
        return PromptTuningConfig(task_type=task, num_virtual_tokens=settings.virtual_tokens, **from_vocabulary)
    return LoraConfig(
        task_type=task,
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules="all-linear" if settings.targets == ("all-linear",) else list(settings.targets),
        bias=settings.bias,
        use_rslora=settings.rslora,
        use_dora=settings.dora,
        init_lora_weights="pissa" if settings.init == "pissa" else True,
    )


def load_base(
    folder: Path,
    model_class: type,
    settings: AdapterSettings,
    device: torch.device,
    precision: str,
    dtype: torch.dtype = torch.float32,
) -> nn.Module:
    """Load a pretrained model on `device`, in `dtype`; only the part that reads text if it reads images too.

    Raises: UserError: weights are missing from the folder; or bitsandbytes is not installed, which `nf4` needs.
    """
    model, _ = load_pretrained(
        folder,
        model_class,
        dtype,
        quantization_config=_nf4(precision) if settings.quantization == "nf4" else None,
        device_map={"": device},
    )
    model = model.get_decoder() if model_class is AutoModel else text_part(model, model_class)
    if settings.quantization == "nf4":
        _prepare_four_bits(model, device)
    return model


def text_part(model: nn.Module, model_class: type) -> nn.Module:
    """Return a causal language model without its image encoder, on which adapters would get no gradient."""
    config = model.config.get_text_config()
    if config is model.config:
        return model
    with torch.device("meta"):
        text = model_class.from_config(config)
    setattr(text, text.base_model_prefix, model.get_decoder())
    text.set_output_embeddings(model.get_output_embeddings())
    text.is_loaded_in_4bit = getattr(model, "is_loaded_in_4bit", False)  # peft reads it
    return text.eval()


def choose_base_dtype(kind: str, precision: str, device: torch.device) -> torch.dtype:
    """Choose bf16 for a frozen base on a GPU that computes in it, otherwise float32: many models overflow fp16."""
    in_bf16 = kind != "none" and precision == "bf16" and device.type == "cuda"
    return torch.bfloat16 if in_bf16 else torch.float32


def _nf4(precision: str) -> BitsAndBytesConfig:
    if importlib.util.find_spec("bitsandbytes") is None:
        raise UserError("adapter.quantization nf4 needs the package bitsandbytes. Run: pip install bitsandbytes")
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=COMPUTE_DTYPES[precision],
    )


def _prepare_four_bits(model: nn.Module, device: torch.device) -> None:
    """Keep bitsandbytes from changing 4-bit layers as they compute; `load_base` has made sure that it is there.

    Raises: UserError: it would read the weights wrongly (seen with 0.50: off by a third of their size).
    """
    from bitsandbytes.nn import Linear4bit

    layers = [module for module in model.modules() if isinstance(module, Linear4bit)]
    widths = [layer.in_features for layer in layers if layer.in_features % NF4_BLOCK]
    if widths and device.type == "cpu":
        raise UserError(
            f"a layer has {widths[0]} columns, but on a CPU bitsandbytes reads nf4 only in multiples of {NF4_BLOCK}. "
            "Set --adapter.quantization none"
        )
    for layer in layers:
        layer.support_avx512bf16_for_cpu = False  # it would repack the weights at the first prediction
        if layer.bias is not None:
            layer.bias.data = layer.bias.data.to(layer.compute_dtype)  # it would round them at the first pass


@contextmanager
def merged(model: nn.Module, n_rows: int = WORTH_MERGING) -> Iterator[None]:
    """Add LoRA's updates into the matrices they adapt, for faster prediction; undone afterwards, bit for bit.

    The original matrices are kept on the device if they fit, otherwise in the CPU's memory. Adapters stay unmerged for
    few rows, and on 4-bit or sharded matrices: a sum rounded to 4 bits is another model.
    """
    layers = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
    weights = [layer.get_base_layer().weight for layer in layers]
    if n_rows < WORTH_MERGING or is_sharded(model) or not all(weight.is_floating_point() for weight in weights):
        layers, weights = [], []
    device = choose_keeping_device(weights)
    kept = [weight.detach().to(device, copy=True) for weight in weights]
    for layer in layers:
        layer.merge()
    try:
        yield
    finally:
        for layer, weight, values in zip(layers, weights, kept):
            layer.unmerge()
            weight.data.copy_(values)


def choose_keeping_device(weights: list[torch.Tensor]) -> torch.device:
    """Choose where copies of the weights are kept: on their GPU if enough memory stays free to predict, or the CPU."""
    cpu = torch.device("cpu")
    if not weights or not weights[0].is_cuda:
        return cpu
    device = weights[0].device
    free = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return weights[0].device if sum(weight.nbytes for weight in weights) + PREDICTION_BYTES <= free else cpu
