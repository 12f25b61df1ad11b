import pytest

from foldblend.settings.nets import AdapterSettings, OptimizerSettings, TrainingSettings
from foldblend.settings.run import CleaningSettings, RunSettings


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"rank": 0}, "adapter.rank is 0; expected 1"),
        ({"alpha": 0.0}, "adapter.alpha is 0.0; expected more than 0"),
        ({"dropout": 1.0}, "adapter.dropout is 1.0"),
        ({"targets": ()}, "adapter.targets is"),
        ({"targets": ("all-linear", "q_proj")}, "all-linear alone"),
        ({"quantization": "nf4", "init": "pissa"}, "use one of the two"),
        ({"quantization": "nf4", "bias": "all"}, "too coarse to train"),
        ({"kind": "prompt_tuning", "rank": 8}, "adapter.rank is set, but adapter.kind is prompt_tuning"),
        ({"virtual_tokens": 3}, "adapter.virtual_tokens is set, but adapter.kind is lora"),
        ({"kind": "none", "quantization": "nf4"}, "adapter.quantization is set, but adapter.kind is none"),
    ],
)
def test_values_that_cannot_work_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        RunSettings("decoder", adapter=AdapterSettings(**changes))


def test_prefixes_and_gradient_checkpointing_are_refused_together():
    with pytest.raises(ValueError, match="gradient_checkpointing"):
        RunSettings(
            "decoder", training=TrainingSettings(gradient_checkpointing=True), adapter=AdapterSettings("prefix_tuning")
        )


@pytest.mark.parametrize("kind", ["prefix_tuning", "prompt_tuning"])
def test_vectors_of_no_layer_have_no_layers_rate(kind):
    """Their name, prompt_encoder.default.embedding, would make them the lowest layer and the slowest."""
    with pytest.raises(ValueError, match=f"layer_decay is 0.9; what adapter.kind {kind} learns belongs to no layer"):
        RunSettings("decoder", optimizer=OptimizerSettings(layer_decay=0.9), adapter=AdapterSettings(kind))
    RunSettings("decoder", optimizer=OptimizerSettings(layer_decay=0.9))


def test_tokens_that_nobody_would_teach_are_refused():
    with pytest.raises(ValueError, match="new tokens would stay random"):
        RunSettings("decoder", cleaning=CleaningSettings(urls=True, placeholder_tokens=True))
