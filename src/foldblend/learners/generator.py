"""A causal language model that answers with a row's labels in text: fine-tuned on one fold, or as it is (zero-shot).

accelerate launch src/train.py --run qwen2.5-1.5b-sft --fold 3
"""

import json
from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
import torch
from torch import nn
from transformers import AutoModelForCausalLM

from foldblend.errors import UserError
from foldblend.learners.answering.answers import AnswerModel, ListAnswers, YesNoAnswers, answer_lead
from foldblend.learners.losses.named import build_loss
from foldblend.learners.nets.adapters import SharedBase, merged
from foldblend.learners.nets.pretrained import find_weights
from foldblend.learners.processes.devices import place, spreads
from foldblend.learners.table import Corpus, FoldRows, prior_logits
from foldblend.learners.tokens.prompts import build_prompts
from foldblend.learners.tokens.tokens import Tokens
from foldblend.learners.training.neural import Batch, NeuralLearner
from foldblend.learners.training.predicting import predict_logits
from foldblend.settings.nets import AnswerSettings, LossSettings, ModelSettings, PromptSettings
from foldblend.settings.run import RunSettings

VOCABULARY_AS_A_TOKEN = 8192
"""Logits over this many tokens take about as much memory as the states of one prompt token."""


class SumOfAnswers(nn.Module):
    """The loss of lists: the negative log-likelihood of the answers' tokens, in nats, summed over rows."""

    def forward(self, log_likelihoods: torch.Tensor, targets: torch.Tensor | None = None) -> torch.Tensor:
        return self.of_rows(log_likelihoods).sum()

    def of_rows(self, log_likelihoods: torch.Tensor, targets: torch.Tensor | None = None) -> torch.Tensor:
        """Return the loss of each row, (B,)."""
        return -log_likelihoods


class GeneratorLearner(NeuralLearner):
    """Adapters on a frozen base, which all folds share."""

    def __init__(self, run, corpus):
        super().__init__(run, corpus)
        self.is_list = run.answer.form == "list"
        if self.is_list and corpus.some_unknown:
            raise UserError(
                "answer.form is list, which names all labels of a row, and some are unknown (by labels.unknown, or of "
                "extra_rows). Set answer.form: yes_no, or train an encoder"
            )
        device, spread = self.accelerator.device, spreads(self.accelerator)
        self.base = SharedBase(self.folder, AutoModelForCausalLM, run.adapter, device, self.precision, spread)

    def make_tokens(self, texts: Sequence[str] | None = None) -> Tokens:
        run, texts = self.run, self.corpus.texts if texts is None else texts
        names, length = self.corpus.label_names, run.model.max_length_tokens
        return build_prompts(self.tokenizer, run.prompt, texts, names, length, run.model.tail_fraction)

    @cached_property
    def answers(self) -> ListAnswers | YesNoAnswers:
        run, names = self.run, self.corpus.label_names
        lead = answer_lead(self.tokenizer, run.prompt, names)
        if self.is_list:
            return ListAnswers(self.tokenizer, run.answer, names, lead, self.corpus.task == "multiclass")
        return YesNoAnswers(self.tokenizer, run.answer, names, lead)

    def build_fold_model(self, rows: FoldRows, seed: int) -> nn.Module:
        answers = self.answers  # first, so that answers that cannot be are refused before the base is loaded
        lm = self.base.adapt(seed, self.run.training.gradient_checkpointing is True)
        return AnswerModel(lm, answers, self.run.answer.beam_size, self.corpus.task == "multiclass").train()

    def build_fold_loss(self, rows: FoldRows) -> nn.Module:
        return SumOfAnswers() if self.is_list else super().build_fold_loss(rows)

    def best_constant(self, loss: nn.Module, labels: np.ndarray) -> tuple[np.ndarray, float]:
        """For lists, the nats per row of the best writer of lists that never sees a text: the unit of their loss."""
        if not self.is_list:
            return super().best_constant(loss, labels)
        task = self.corpus.task
        nats = label_entropy(labels, task) if task == "multiclass" else list_entropy(labels)
        return prior_logits(labels, task), nats

    def batch_loss(self, model: nn.Module, loss: nn.Module, batch: Batch) -> torch.Tensor:
        if not self.is_list:
            return super().batch_loss(model, loss, batch)
        inputs, targets = batch
        inputs = {**inputs, **self.answer_batch(targets.numpy() > 0)}
        with self.accelerator.autocast():
            likelihoods = model(**place(inputs, self.accelerator.device))  # (B,)
        return loss(likelihoods)

    def answer_batch(self, labels: np.ndarray) -> dict[str, torch.Tensor]:
        """`answers`, int64 (B, A), and `answer_mask`, bool: what rows of these labels, bool (B, L), should answer."""
        written = [self.answers.whole(row) for row in labels]
        lengths = np.array([len(ids) for ids in written])
        padded = [ids + [0] * (lengths.max() - len(ids)) for ids in written]
        mask = np.arange(lengths.max()) < lengths[:, None]
        return {"answers": torch.tensor(padded), "answer_mask": torch.from_numpy(mask)}

    def heldout_loss(self, loss: nn.Module, logits: np.ndarray, rows: FoldRows) -> float:
        """For lists the mean log loss of the labels' probabilities: the answers are not what is predicted."""
        if self.is_list:
            loss = build_loss(LossSettings(), self.corpus.labels[rows.train], self.corpus.task)
            loss = loss.to(self.accelerator.device)
        return super().heldout_loss(loss, logits, rows)

    def predict(self, model: nn.Module, rows: np.ndarray, tokens_in_batch: int | None = None) -> np.ndarray:
        n_labels, beside = len(self.corpus.label_names), self.tokens_beside_prompt
        with merged(model, len(rows)):
            return predict_logits(self.accelerator, model, self.tokens, rows, n_labels, beside, tokens_in_batch)

    @cached_property
    def tokens_beside_prompt(self) -> int:
        """Memory of a row's answers in prediction, in prompt tokens; most of it is logits over the vocabulary."""
        n_branch = self.answers.count_tokens(self.run.answer.beam_size)
        return n_branch * (1 + len(self.tokenizer) // VOCABULARY_AS_A_TOKEN)


def label_entropy(labels: np.ndarray, task: str) -> float:
    """Nats per row of labels, bool (n, L), each drawn by its rate; of the one label if the task has one per row."""
    rates = labels.mean(0)
    shares = rates if task == "multiclass" else np.stack([rates, 1 - rates])
    return float(-(shares * np.log(np.maximum(shares, 1e-300))).sum())


def list_entropy(labels: np.ndarray) -> float:
    """Nats per row of labels, bool (n, L), for a writer who knows the rate of each set of labels and of each label.

    A set's probability mixes its share of the other rows with that of labels drawn each by its rate, in the best
    proportion. A row does not count for itself: a set that occurs once is not known beforehand, and its share of all
    rows would ask for less than any writer without the text can reach. Never above `label_entropy`.
    """
    sets, counts = np.unique(labels, axis=0, return_counts=True)
    rates, others = labels.mean(0), (counts - 1) / max(len(labels) - 1, 1)
    independent = np.where(sets, rates, 1 - rates).prod(1)
    # a grid is enough: the likelihood is concave in the share, and its maximum is flat
    shares = np.linspace(0.01, 1, 100)[:, None]
    chances = shares * independent + (1 - shares) * others  # (100, sets)
    return float((-np.log(np.maximum(chances, 1e-300)) @ counts / len(labels)).min())


# ---------- Zero-shot: a model that was trained on nothing of this competition scores its labels


ZERO_SHOT_LENGTH = 2048
"""Tokens of the prompt of a model that is not trained, with the list of labels and the text."""


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
    model = ModelSettings(name, max_length_tokens=ZERO_SHOT_LENGTH)
    return RunSettings("generator", model=model, prompt=prompt, answer=answer)


def _has_chat_template(name: str) -> bool:
    folder = find_weights(name, ModelSettings.revision)[0]
    settings = folder / "tokenizer_config.json"
    if (folder / "chat_template.jinja").is_file():
        return True
    return settings.is_file() and bool(json.loads(settings.read_text(encoding="utf-8")).get("chat_template"))
