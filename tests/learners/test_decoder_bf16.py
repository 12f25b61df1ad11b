"""Decoders in bf16, which `precision: auto` takes where the hardware computes in it, CPUs too."""

from dataclasses import replace

import numpy as np
import pytest
from accelerate.state import AcceleratorState
from test_decoder import ADAPTERS
from toy_corpus import fold_rows, make_corpus

from foldblend.learners.decoder import DecoderLearner
from foldblend.settings.nets import ModelSettings, OptimizerSettings, TrainingSettings
from foldblend.settings.run import RunSettings

pytestmark = pytest.mark.usefixtures("fresh_accelerate")


@pytest.mark.parametrize(
    "kind, adapter", [*(("qwen2", name) for name in ADAPTERS), ("gemma2", "lora"), ("gemma2", "prefix")]
)
def test_two_steps_and_predictions_are_near_those_in_fp32(tiny_decoder, tmp_path, monkeypatch, kind, adapter):
    """LoRA is merged to predict, also where it is trained under autocast; Gemma 2's attention is not torch's."""
    settings = ADAPTERS[adapter]
    run = RunSettings(
        "decoder",
        model=ModelSettings(name=str(tiny_decoder(kind)), pooling="last", head_dropout=0.0),
        optimizer=OptimizerSettings(lr=1e-3, head_lr=1e-2),
        adapter=replace(settings, dropout=0.0) if settings.kind == "lora" else settings,
    )
    monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda: True)
    corpus, got = make_corpus(n=20 + 2 * 16), {}
    for precision in ("fp32", "auto"):
        AcceleratorState._reset_state(True)
        training = TrainingSettings(epochs=1, global_batch_size=16, precision=precision)
        learner = DecoderLearner(replace(run, training=training), corpus)
        got[precision] = learner.train_fold(fold_rows(corpus, tmp_path / precision, 20))
    assert got["auto"].device.endswith(", bf16") and got["fp32"].device.endswith(", fp32")
    near, exact = got["auto"].oof, got["fp32"].oof
    assert np.isfinite(near).all() and near.dtype == np.float32 and not np.array_equal(near, exact)
    assert np.abs(near - exact).max() < 0.2 * exact.std(0).max()
