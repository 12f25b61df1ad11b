"""A language model that was trained on nothing of this competition scores its labels: a teacher without a server."""

import json
from collections.abc import Mapping

import numpy as np

from foldblend.learners.generator import GeneratorLearner
from foldblend.learners.nets.pretrained import find_weights
from foldblend.learners.table import Corpus
from foldblend.settings.run import AnswerSettings, ModelSettings, PromptSettings, RunSettings

MAX_LENGTH_TOKENS = 2048
"""Of the prompt with the list of labels and the text."""


def score_labels(run: RunSettings, corpus: Corpus) -> np.ndarray:
    """Logits float32 (n_test, L) of the corpus's test rows by the base model as it is.

    The adapters are new, and new ones change nothing: their second matrix is 0.
    Args: corpus: no training rows.
    """
    learner = GeneratorLearner(run, corpus)
    model = learner.build_trained_model()
    try:
        model = learner.accelerator.prepare_model(model, evaluation_mode=True)
        return learner.predict(model, corpus.test_rows)
    finally:
        learner.accelerator.free_memory()


def zero_shot_run(
    name: str, label_names: tuple[str, ...], definitions: Mapping[str, str], task: str, instruction: str
) -> RunSettings:
    """The settings of a generator that is asked yes or no for each label, or with one label per row for the label.

    Args:   name: of the model on the hub, or its folder.   definitions: what labels mean, of some or none.
            instruction: what is asked, in words.
    Raises: UserError: the model is not found.
    """
    lines = [f"- {label}: {definitions[label]}" if label in definitions else f"- {label}" for label in label_names]
    listed = "\n".join(lines).replace("{text}", "(text)").replace("{labels}", "(labels)")
    is_one = task == "multiclass"
    how = "Answer with the one label that fits best." if is_one else "Say of each label whether it fits: yes or no."
    template = f"{instruction}\n\nText: {{text}}\n\nThe labels are:\n{listed}\n\n{how}"
    is_chat = _has_chat_template(name)
    prompt = PromptSettings("chat", template) if is_chat else PromptSettings("plain", f"{template}\nAnswer:\n")
    answer = AnswerSettings("list") if is_one else AnswerSettings("yes_no", question="{label}:")
    model = ModelSettings(name, max_length_tokens=MAX_LENGTH_TOKENS)
    return RunSettings("generator", model=model, prompt=prompt, answer=answer)


def _has_chat_template(name: str) -> bool:
    folder = find_weights(name, ModelSettings.revision)[0]
    settings = folder / "tokenizer_config.json"
    if (folder / "chat_template.jinja").is_file():
        return True
    return settings.is_file() and bool(json.loads(settings.read_text(encoding="utf-8")).get("chat_template"))
