"""Probabilities of labels out of the likelihoods of answers; nothing is generated, so every answer is a valid one."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from learners.answers import ListAnswers, YesNoAnswers
from learners.branches import Prompts, align_left_padded, read_prompts, score_answers, score_menu

LARGEST_LOG_ODDS = 27.0
"""Beyond it, 1 - probability is only rounding."""
LEAST_LOG_ODDS = -80.0


class AnswerModel(nn.Module):
    """A causal language model that reads prompts and says the labels' logits, or how likely given answers are."""

    def __init__(self, lm: nn.Module, answers: ListAnswers | YesNoAnswers, n_histories: int, multiclass: bool):
        super().__init__()
        self.lm, self.answers, self.n_histories, self.multiclass = lm, answers, n_histories, multiclass

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        answers: torch.Tensor | None = None,
        answer_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """input_ids, attention_mask: int64 (B, T), padded on the right.

        Returns: float32 (B, L): log-odds of each label, or log-probabilities where one label a row is the task; with
                 `answers` (int64 (B, A)) and their mask, the log-likelihood of each, float32 (B,).
        """
        prompts = align_left_padded(input_ids, attention_mask)
        if answers is not None:
            return score_answers(self.lm, prompts, answers, answer_mask)
        if isinstance(self.answers, YesNoAnswers):
            log_odds = yes_no_log_odds(self.lm, prompts, self.answers)
            # of independent answers, given that exactly one is yes, label j's share is odds_j / sum of odds
            return log_odds.log_softmax(1) if self.multiclass else log_odds
        if self.multiclass:
            return one_label_log_probs(self.lm, prompts, self.answers)
        return list_log_odds(self.lm, read_prompts(self.lm, prompts), self.answers, self.n_histories)


def yes_no_log_odds(lm: nn.Module, prompts: Prompts, answers: YesNoAnswers) -> torch.Tensor:
    """log P(yes) - log P(no) of every label, each asked right behind the prompt; float32 (B, L)."""
    stems, lengths = _pad_stems([answers.questions] * len(prompts.ids), prompts.ids.device)
    scores = score_menu(lm, prompts, stems, lengths, answers.menu)
    return scores[:, :, 0] - scores[:, :, 1]


def one_label_log_probs(lm: nn.Module, prompts: Prompts, answers: ListAnswers) -> torch.Tensor:
    """Log-probabilities of the one label among all; float32 (B, L)."""
    return _score_opening(lm, prompts, answers).log_softmax(1)


def list_log_odds(lm: nn.Module, prompts: Prompts, answers: ListAnswers, n_histories: int) -> torch.Tensor:
    """Log-odds that each label stands in the list, float32 (B, L).

    The model of lists: behind the labels so far, the likelihoods of each later label and of the end, divided by their
    sum. P(label i in the list) is the sum over all lists so far of their probability times that of i next, taken
    forward label by label. Of the lists that end in i the `n_histories` most probable ones are followed up and share
    the probability of all that end in i: exact where there are no more, or where what comes next hangs on the last
    label alone; 2 ** (L - 2) histories are always exact.
    """
    n_labels = len(answers.later)
    opening = _score_opening(lm, prompts, answers).double().log_softmax(1).cpu()  # (B, L + 1), `none` last
    ways = [[opening[:, i : i + 1]] for i in range(n_labels)]  # how the list so far may come to end in each label
    pasts: list[list[list[tuple]]] = [[[(i,)] for _ in opening] for i in range(n_labels)]
    inside = []
    for i in range(n_labels):
        mass = torch.cat(ways[i], 1)  # (B, ways)
        inside.append(mass.logsumexp(1, keepdim=True))
        if i == n_labels - 1:
            break
        best = mass.topk(min(n_histories, mass.shape[1]), 1)
        kept = best.values - best.values.logsumexp(1, keepdim=True) + inside[i]  # (B, K)
        histories = [[past[j] for j in row] for past, row in zip(pasts[i], best.indices.tolist())]
        stems, lengths = _pad_stems([[answers.written(h) for h in row] for row in histories], prompts.ids.device)
        scores = score_menu(lm, prompts, stems, lengths, answers.after(i)).double().log_softmax(2).cpu()
        for j in range(i + 1, n_labels):
            ways[j].append(kept + scores[:, :, j - i - 1])
            for past, row in zip(pasts[j], histories):
                past.extend((*history, j) for history in row)
    return log_odds(torch.cat(inside, 1)).float().to(prompts.ids.device)


def log_odds(log_probs: torch.Tensor) -> torch.Tensor:
    """log(p / (1 - p)) from log p, float64, within the bounds above."""
    log_probs = log_probs.clamp(LEAST_LOG_ODDS, -np.exp(-LARGEST_LOG_ODDS))
    return log_probs - torch.log(-torch.expm1(log_probs))


def _score_opening(lm, prompts, answers: ListAnswers) -> torch.Tensor:
    """Log-likelihood of each beginning of a list, (B, L) or, with `none`, (B, L + 1)."""
    nothing = torch.zeros(len(prompts.ids), 1, 0, dtype=torch.int64, device=prompts.ids.device)
    return score_menu(lm, prompts, nothing, nothing.sum(2), answers.opening())[:, 0]


def _pad_stems(stems: Sequence[Sequence[list[int]]], device) -> tuple[torch.Tensor, torch.Tensor]:
    """[row][stem] -> ids as int64 (B, K, H), padded on the left, and lengths, int64 (B, K)."""
    lengths = torch.tensor([[len(stem) for stem in row] for row in stems], device=device)
    width = int(lengths.max())
    ids = [[[0] * (width - len(stem)) + stem for stem in row] for row in stems]
    return torch.tensor(ids, device=device), lengths
