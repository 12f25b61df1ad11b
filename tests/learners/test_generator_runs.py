"""Generators as they are run by the name of a YAML."""

from dataclasses import replace

import numpy as np
import pytest
from test_decoder_runs import PROJECT, load_shipped
from toy_corpus import MOODS, fold_rows, make_corpus

from foldblend.learners.generator import GeneratorLearner

pytestmark = pytest.mark.usefixtures("fresh_accelerate")
ARCHITECTURES = {
    "Qwen/Qwen2.5-1.5B": "qwen2",
    "meta-llama/Llama-3.2-3B-Instruct": "llama",
    "Qwen/Qwen2.5-Coder-14B-Instruct": "qwen2",
}
RUNS = [
    path.stem for path in (PROJECT / "configs" / "runs").rglob("*.yaml") if "learner: generator" in path.read_text()
]


def test_every_architecture_has_a_run():
    assert {load_shipped(name).model.name for name in RUNS} == set(ARCHITECTURES)


@pytest.mark.parametrize("name", RUNS)
def test_a_run_by_name_takes_two_steps_and_predicts(tiny_decoder, tmp_path, name):
    """On a tiny model of the same architecture; prompt, form of the answer, adapters and the rest are the run's own."""
    run = load_shipped(name)
    model = replace(run.model, name=str(tiny_decoder(ARCHITECTURES[run.model.name])))
    training = replace(run.training, epochs=1, precision="fp32", collapse_check_after_steps=0)
    run = replace(run, model=model, training=training, optimizer=replace(run.optimizer, warmup_steps=0))
    corpus = make_corpus(n=20 + 2 * training.global_batch_size)
    learner = GeneratorLearner(run, corpus)
    got = learner.train_fold(fold_rows(corpus, tmp_path, 20))
    assert got.oof.shape == (20, 3) and np.isfinite(got.oof).all()
    prompt = learner.tokenizer.decode(learner.tokens.row(0))
    assert f"Tweet: {corpus.texts[0]}" in prompt and ", ".join(MOODS) in prompt
    is_chat = run.prompt.form == "chat"
    assert is_chat == ("instruct" in name) == prompt.endswith("<|im_start|>assistant\n")
    assert not is_chat or run.prompt.system.format(labels=", ".join(MOODS)) in prompt
    in_four_bits = [module for module in learner.base.base.modules() if type(module).__name__.endswith("Linear4bit")]
    assert bool(in_four_bits) == (run.adapter.quantization == "nf4") == is_chat
