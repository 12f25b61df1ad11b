"""A generator's answers: what it may write, as token ids, and labels' probabilities from the answers' likelihoods.

An answer is a list of labels, or yes or no to each label. Nothing is generated: likelihoods of all answers are read, so
every answer is a valid one. Labels, separators and ends are encoded piece by piece, in training as in prediction, so
that an answer has exactly one spelling in tokens. A `Menu` holds what may be written next.
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn
from transformers import DynamicCache, PreTrainedConfig, PreTrainedModel

from foldblend.errors import UserError
from foldblend.learners.tokens.prompts import split_prompt
from foldblend.learners.tokens.tokens import encode_data
from foldblend.settings.nets import AnswerSettings, PromptSettings


@dataclass(frozen=True)
class Menu:
    """Token ids of what may come next in an answer: `shared`, and then one of the entries."""

    shared: tuple[int, ...]
    """How all entries begin."""
    entries: tuple[tuple[int, ...], ...]
    """What follows in each; never empty, all different."""
    ends: tuple[int, ...]
    """Tokens that may follow an entry."""
    end: int | None = None
    """The token that ends the answer here, or None if it may not end here."""

    @property
    def rivals(self) -> list[tuple[int, ...]]:
        """For each entry, the tokens by which longer entries go on from it: `ful` for `joy`, if `joyful` is one too."""
        return [self._continuations(entry) for entry in self.entries]

    def _continuations(self, entry: tuple[int, ...]) -> tuple[int, ...]:
        """The next tokens of the other entries that begin with `entry`, rising."""
        n = len(entry)
        return tuple(sorted({other[n] for other in self.entries if other != entry and other[:n] == entry}))


def build_menu(pieces: list[list[int]], ends: tuple[int, ...], end: int | None = None) -> Menu:
    """Build a menu of whole pieces.

    Raises: UserError: two pieces are the same tokens, or one goes on with a token that may end another.
    """
    n_shared = _count_shared(pieces)
    entries = tuple(tuple(piece[n_shared:]) for piece in pieces)
    if len(set(entries)) < len(entries):
        raise UserError("two labels (or the answers to them) are the same tokens; give them names that differ")
    menu = Menu(tuple(pieces[0][:n_shared]), entries, ends, end)
    # the next token would then mean two things: the label goes on, or it has ended
    if any(set(rivals) & set(ends) for rivals in menu.rivals):
        raise UserError("a label continues with what may follow another label; set another answer.separator")
    return menu


def answer_lead(tokenizer, prompt: PromptSettings, label_names: tuple[str, ...]) -> str:
    """Return what goes between prompt and answer: a space, unless the prompt ends with one or with a new line.

    Raises: UserError: nothing follows the text, so nothing asks for the answer.
    """
    after = split_prompt(tokenizer, prompt, label_names)[1]
    if not after.strip():
        fix = 'such as --prompt.template "{text}\\nLabels:"'
        raise UserError(f"prompt.template ends with the text; a generator needs words after it, {fix}")
    return "" if after[-1:].isspace() else " "


def end_token(tokenizer) -> int:
    """Return the token that ends an answer. Raises: UserError: the tokenizer names none."""
    if tokenizer.eos_token_id is None:
        raise UserError(f"{tokenizer.name_or_path}: the tokenizer has no end token, so an answer could not end")
    return tokenizer.eos_token_id


class ListAnswers:
    """Lists of labels in submission order; with `one_label` (multiclass) the list is the one label.

    Raises: UserError: labels that cannot be told from each other, from `none` or from the separator.
    """

    def __init__(self, tokenizer, answer: AnswerSettings, label_names: tuple[str, ...], lead: str, one_label: bool):
        wrong = [name for name in label_names if answer.separator in name or name == answer.none]
        if wrong and not one_label:
            fix = "set another answer.separator or answer.none"
            raise UserError(f"label {wrong[0]!r} holds the separator, or is the answer for no label; {fix}")
        self.eos, self.one_label = end_token(tokenizer), one_label
        names = label_names if one_label else (*label_names, answer.none)
        self.first = encode_data(tokenizer, [lead + name for name in names])
        # with their separator, as a tokenizer may join it with the name's first letters
        self.later = encode_data(tokenizer, [answer.separator + name for name in label_names])
        if _count_shared(self.later) < 1:
            raise UserError(f"answer.separator {answer.separator!r} melts into the label's tokens; set another")
        self.follow = (self.eos, self.later[0][0])  # what may follow a label: the end, or a separator

    def written(self, labels: tuple[int, ...]) -> list[int]:
        """Write a list of these labels, given in rising order, as token ids without its end."""
        pieces = [self.first[labels[0]], *(self.later[label] for label in labels[1:])]
        return [i for piece in pieces for i in piece]

    def whole(self, row: np.ndarray) -> list[int]:
        """Write the whole answer for a row of labels, bool (L,), as token ids."""
        labels = np.flatnonzero(row)
        return [*(self.written(labels) if len(labels) else self.first[-1]), self.eos]

    def opening(self) -> Menu:
        """The menu of the first label; `none` is the last entry if a row may have no label."""
        return build_menu(self.first, (self.eos,) if self.one_label else self.follow)

    def after(self, last: int) -> Menu:
        """The menu after label `last`, which is not the last of all: a later label, or the end."""
        return build_menu(self.later[last + 1 :], self.follow, end=self.eos)

    def count_tokens(self, n_histories: int) -> int:
        """Most branch tokens of a row, unless a list so far has more than four labels."""
        longest = max(map(len, self.later))
        return n_histories * (4 * longest + sum(len(piece) - 1 for piece in self.later))


class YesNoAnswers:
    """A question for every label and one menu for all of them: entry 0 is yes, entry 1 is no."""

    def __init__(self, tokenizer, answer: AnswerSettings, label_names: tuple[str, ...], lead: str):
        asked = [lead + answer.question.replace("{label}", name) for name in label_names]
        self.questions = encode_data(tokenizer, asked)
        # one space between question and answer, whichever of them brings it
        words = [answer.yes, answer.no] if asked[0][-1:].isspace() else [f" {answer.yes}", f" {answer.no}"]
        self.menu = build_menu(encode_data(tokenizer, words), (end_token(tokenizer),))

    def count_tokens(self, n_histories: int) -> int:
        """Branch tokens of a row."""
        return len(self.questions) * (max(map(len, self.questions)) + sum(map(len, self.menu.entries)))


def _count_shared(pieces: list[list[int]]) -> int:
    """Count the tokens that all pieces begin with, leaving at least one to each."""
    # at most all but the last token: an entry without a token of its own has no likelihood to read
    n_shared = min(map(len, pieces)) - 1
    return next((i for i in range(n_shared) if len({piece[i] for piece in pieces}) > 1), n_shared)


# Reading: likelihoods of continuations of one prompt, many at a time. The prompt is read once; each branch sees the
# prompt and itself, and no other branch.

ALL_LAYERS = "all layers"


@dataclass(frozen=True)
class Prompts:
    """Prompts padded on the left, so that their last tokens share a column."""

    ids: torch.Tensor
    """int64 (B, T)."""
    mask: torch.Tensor
    """bool (B, T)."""
    cache: DynamicCache | None = None
    """Keys and values of the prompts, if they were read before."""
    last_logits: torch.Tensor | None = None
    """(B, 1, V), after the prompts; there if the cache is."""


def align_left_padded(input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Prompts:
    """Turn rows padded on the right, int64 (B, T), into rows padded on the left."""
    # (B, 1)
    length = attention_mask.sum(1, keepdim=True)
    columns = torch.arange(input_ids.shape[1], device=input_ids.device)
    source = (columns + length) % input_ids.shape[1]  # column T - 1 takes the row's last token
    return Prompts(input_ids.gather(1, source), columns >= input_ids.shape[1] - length)


def read_prompts(lm: nn.Module, prompts: Prompts) -> Prompts:
    """Read the prompts and keep their keys and values, for branches that are read later."""
    cache = DynamicCache()  # without the config, so that no layer drops what left its window: masks do
    output = lm(
        input_ids=prompts.ids,
        attention_mask=_attention_mask(lm, _causal(prompts.mask), _positions(prompts.mask)),
        position_ids=_positions(prompts.mask),
        use_cache=True,
        logits_to_keep=1,
        **{_cache_argument(lm): cache},  # filled in place
    )
    return replace(prompts, cache=cache, last_logits=output.logits)


def _cache_argument(lm: nn.Module) -> str:
    """What the model calls its keys and values: newer versions of transformers renamed `past_key_values`."""
    pretrained = next((module for module in lm.modules() if isinstance(module, PreTrainedModel)), lm)
    known = inspect.signature(inspect.unwrap(pretrained.forward)).parameters
    return "cache" if "cache" in known else "past_key_values"


def branch_logits(
    lm: nn.Module, prompts: Prompts, ids: torch.Tensor, depths: torch.Tensor, visible: torch.Tensor
) -> torch.Tensor:
    """Compute next-token logits after the prompt and after every branch token.

    Args:    ids, depths: int64 (B, S), branch tokens and how many tokens stand between each and the prompt.
             visible: bool (B, S, S), which branch tokens each one sees.
    Returns: (B, 1 + S, V).
    """
    n_branch = ids.shape[1]
    if not n_branch and prompts.cache is not None:
        return prompts.last_logits
    # branch tokens stand side by side in one row, but none sees another branch: the mask makes a tree of the row
    seen = torch.cat([prompts.mask.unsqueeze(1).expand(-1, n_branch, -1), visible], 2)  # (B, S, T + S)
    # a token's position is its depth in the tree, not its column: to the model every branch follows the prompt directly
    positions = prompts.mask.sum(1, keepdim=True) + depths  # (B, S)
    all_positions = torch.cat([_positions(prompts.mask), positions], 1)  # (B, T + S)
    if prompts.cache is None:
        prompt_seen = nn.functional.pad(_causal(prompts.mask), (0, n_branch))  # (B, T, T + S)
        return lm(
            input_ids=torch.cat([prompts.ids, ids], 1),
            attention_mask=_attention_mask(lm, torch.cat([prompt_seen, seen], 1), all_positions),
            position_ids=all_positions,
            use_cache=False,
            logits_to_keep=n_branch + 1,
        ).logits
    output = lm(
        input_ids=ids,
        attention_mask=_attention_mask(lm, seen, all_positions),
        position_ids=positions,
        use_cache=True,
        **{_cache_argument(lm): prompts.cache},
    )
    # the cache was extended in place by this call
    prompts.cache.crop(-n_branch)  # the next branches start from the prompt again
    return torch.cat([prompts.last_logits, output.logits], 1)


def score_menu(
    lm: nn.Module, prompts: Prompts, stems: torch.Tensor, stem_lengths: torch.Tensor, menu: Menu
) -> torch.Tensor:
    """Compute the log-likelihood of every entry of `menu` after every stem.

    Args:    stems: int64 (B, K, H), padded on the left.   stem_lengths: int64 (B, K), at least 1 unless H is 0.
    Returns: float32 (B, K, E), and the menu's end as one more entry if it has one. An entry that a longer one begins
             with (`joy`, `joyful`) is multiplied by the chance that it ends there: the share of the tokens that may
             follow an entry among those and the tokens that go on.
    """
    layout = _Layout(menu, stems.shape[2], stems.device)
    n_rows, n_stems, width = stems.shape[0], stems.shape[1], layout.width
    # (B, K, W - H): after each stem the same columns for the menu
    tail = layout.tail.expand(n_rows, n_stems, -1)
    ids = torch.cat([stems, tail], 2)
    missing = (stems.shape[2] - stem_lengths).unsqueeze(2)  # (B, K, 1)
    present = torch.arange(width, device=ids.device) >= missing  # (B, K, W)
    # padding on the left of a short stem takes no position
    depths = (layout.depths - missing).clamp_min(0)
    # each of the K branches sees itself only
    blocks = torch.block_diag(*[layout.visible] * n_stems) if width else layout.visible  # (K W, K W)
    present, itself = present.flatten(1).unsqueeze(1), torch.eye(n_stems * width, dtype=torch.bool, device=ids.device)
    # a padding token sees at least itself: a softmax over nothing would be NaN, and spread to every gradient
    visible = blocks.bool() & present | itself  # (B, K W, K W)
    logits = branch_logits(lm, prompts, ids.flatten(1), depths.flatten(1), visible)
    return layout.score(logits, n_stems)


class _Layout:
    """The columns of one branch: the stem, the shared tokens, and the entries' inputs side by side."""

    def __init__(self, menu: Menu, n_slots: int, device):
        self.menu, rivals = menu, menu.rivals
        # tokens that all entries begin with are read once, as the trunk of the tree
        n_trunk = n_slots + len(menu.shared)
        # the last token of an entry predicts nothing that is needed, unless a longer entry goes on from it
        inputs = [e if rival else e[:-1] for e, rival in zip(menu.entries, rivals)]
        owner = torch.tensor([-1] * n_trunk + [i for i, tokens in enumerate(inputs) for _ in tokens], device=device)
        place = torch.arange(len(owner), device=device)
        # a token sees the trunk (owner -1) and the earlier tokens of its own entry
        same = (owner == owner.unsqueeze(1)) | (owner == -1)
        self.width, self.visible = len(owner), same & (place <= place.unsqueeze(1))
        # every entry starts at the depth at which the trunk ends
        offsets = [*range(n_trunk), *(n_trunk + o for tokens in inputs for o in range(len(tokens)))]
        self.depths = torch.tensor(offsets, dtype=torch.int64, device=device)
        tail = [*menu.shared, *(i for tokens in inputs for i in tokens)]
        self.tail = torch.tensor(tail, dtype=torch.int64, device=device)
        self.stem_end, self.trunk_end = n_slots - 1, n_trunk - 1
        starts = [n_trunk + sum(map(len, inputs[:e])) for e in range(len(inputs))]
        self.steps = [self._steps(entry, start) for entry, start in zip(menu.entries, starts)]
        self.forks = [(start + len(e) - 1, rival) for start, e, rival in zip(starts, menu.entries, rivals)]

    def _steps(self, entry, start) -> list[tuple[int, int]]:
        """(column that predicts, token) for each token of an entry after the stem; -1 is the prompt's last token."""
        # a token is predicted by the one before it: the column to read is one to the left
        steps = [(self.stem_end + i, token) for i, token in enumerate(self.menu.shared)]
        return steps + [(start + i - 1 if i else self.trunk_end, token) for i, token in enumerate(entry)]

    def score(self, logits: torch.Tensor, n_stems: int) -> torch.Tensor:
        """logits (B, 1 + K W, V) -> float32 (B, K, E)."""
        logits = logits.float()
        # of all columns at once; log_softmax would write (B, 1 + K W, V) a second time
        totals = logits.logsumexp(2)  # (B, 1 + K W)

        first = torch.arange(n_stems, device=logits.device).unsqueeze(1) * self.width + 1  # (K, 1)

        def read(place: int, tokens) -> torch.Tensor:
            """Log-probabilities (B, K, n) of n tokens at a place of every branch."""
            # column 0 is the prompt's last token, which all branches share
            columns = first + place if place >= 0 else torch.zeros_like(first)
            return logits[:, columns, torch.tensor(tokens, device=logits.device)] - totals[:, columns]

        scores = [sum(read(place, [token]) for place, token in steps) for steps in self.steps]
        for i, (place, rivals) in enumerate(self.forks):
            if rivals:
                ending = read(place, self.menu.ends).logsumexp(2, keepdim=True)
                # P(joy) is P("joy") times the chance that it ends there and does not go on to "joyful"
                scores[i] = scores[i] + ending - read(place, [*self.menu.ends, *rivals]).logsumexp(2, keepdim=True)
        if self.menu.end is not None:
            scores.append(read(self.stem_end, [self.menu.end]))
        return torch.cat(scores, 2)


def score_answers(lm: nn.Module, prompts: Prompts, answers: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Compute the log-likelihood of one answer per prompt, summed over the answer's tokens; float32 (B,).

    Args: answers: int64 (B, A), padded on the right.   mask: bool (B, A).
    """
    n_tokens = answers.shape[1]
    depths = torch.arange(n_tokens, device=answers.device)
    visible = (depths <= depths.unsqueeze(1)).expand(len(answers), -1, -1)
    logits = branch_logits(lm, prompts, answers, depths.expand_as(answers), visible)[:, :-1].float()
    log_probs = -nn.functional.cross_entropy(logits.transpose(1, 2), answers, reduction="none")  # (B, A)
    return (log_probs * mask).sum(1)


def _causal(mask: torch.Tensor) -> torch.Tensor:
    """bool (B, T, T): each token sees itself and the present ones before it."""
    n = mask.shape[1]
    causal = torch.ones(n, n, dtype=torch.bool, device=mask.device).tril()
    # the diagonal for padding, as above: a row of nothing but hidden columns has no softmax
    return causal & mask.unsqueeze(1) | torch.eye(n, dtype=torch.bool, device=mask.device)


def _positions(mask: torch.Tensor) -> torch.Tensor:
    """Positions of the prompts' tokens, int64 (B, T), counted from each row's first real one."""
    return (mask.cumsum(1) - 1).clamp_min(0)


def find_windows(config: PreTrainedConfig) -> dict[str, int | None]:
    """Find how many tokens back the layers see; it decides which masks they are given.

    Args:    config: of a causal language model.
    Returns: layer type -> tokens seen, the reading one included; None is all before it. A model that gives the same
             mask to all layers has the one key ALL_LAYERS.
    Raises:  UserError: layers that mix tokens in another way, where branches side by side would read each other.
    """
    config = config.get_text_config()
    layer_types = set(getattr(config, "layer_types", None) or ())
    local = {"local"} & set(getattr(config, "attention_layers", None) or ())  # GPT-Neo masks by column, not position
    unknown = layer_types - {"full_attention", "sliding_attention"} | local
    if unknown:
        raise UserError(
            f"a generator cannot read {config.model_type}: it has layers of type {', '.join(sorted(unknown))}; answers "
            "are scored side by side, which needs full or sliding attention. Choose another model.name, or "
            "--learner decoder"
        )
    window = getattr(config, "sliding_window", None)
    if not layer_types:
        return {ALL_LAYERS: window}
    return {kind: window if kind == "sliding_attention" else None for kind in sorted(layer_types)}


def _attention_mask(
    lm: nn.Module, seen: torch.Tensor, positions: torch.Tensor
) -> torch.Tensor | dict[str, torch.Tensor]:
    """Masks as the model takes them; a mask of four dimensions reaches its layers as it is, without their windows.

    Args:    seen: bool (B, Q, K), which columns each of the last Q columns may see.   positions: int64 (B, K).
    Returns: (B, 1, Q, K); one per layer type if a window leaves something out.
    """
    windows = find_windows(lm.config)
    if all(window is None or window >= seen.shape[2] for window in windows.values()):
        return _as_the_attention_takes_it(lm, seen)
    # by positions, as columns of other branches lie between
    back = positions[:, -seen.shape[1] :, None] - positions[:, None, :]  # (B, Q, K), how far back a column stands
    masks = {
        kind: _as_the_attention_takes_it(lm, seen if window is None else seen & (back < window))
        for kind, window in windows.items()
    }
    return masks.get(ALL_LAYERS, masks)


def _as_the_attention_takes_it(lm: nn.Module, seen: torch.Tensor) -> torch.Tensor:
    """(B, 1, Q, K): bool for torch's own attention, numbers to add to the scores for the eager one."""
    if lm.config._attn_implementation == "sdpa":
        return seen.unsqueeze(1)
    # not -inf: eager attention would make NaN of a row that hides all
    hidden = torch.zeros(seen.shape, device=seen.device).masked_fill(~seen, torch.finfo(torch.float32).min)
    return hidden.unsqueeze(1)


# From likelihoods of answers to probabilities of labels.

LARGEST_LOG_ODDS = 27.0
"""Beyond it, 1 - probability is only rounding."""
LEAST_LOG_ODDS = -80.0


class AnswerModel(nn.Module):
    """A causal language model that reads prompts and returns the labels' logits, or how likely given answers are."""

    def __init__(self, lm: nn.Module, answers: ListAnswers | YesNoAnswers, n_histories: int, multiclass: bool):
        """Raises UserError: the model's attention is none that answers can be scored with."""
        super().__init__()
        find_windows(lm.config)
        self.lm, self.answers, self.n_histories, self.multiclass = lm, answers, n_histories, multiclass

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        answers: torch.Tensor | None = None,
        answer_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """input_ids, attention_mask: int64 (B, T), padded on the right.

        Returns: float32 (B, L): log-odds of each label, or log-probabilities if each row has exactly one label; with
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
    """Compute log P(yes) - log P(no) of every label, each asked right after the prompt; float32 (B, L)."""
    stems, lengths = _pad_stems([answers.questions] * len(prompts.ids), prompts.ids.device)
    scores = score_menu(lm, prompts, stems, lengths, answers.menu)
    return scores[:, :, 0] - scores[:, :, 1]


def one_label_log_probs(lm: nn.Module, prompts: Prompts, answers: ListAnswers) -> torch.Tensor:
    """Compute log-probabilities of the one label among all; float32 (B, L)."""
    return _score_opening(lm, prompts, answers).log_softmax(1)


def list_log_odds(lm: nn.Module, prompts: Prompts, answers: ListAnswers, n_histories: int) -> torch.Tensor:
    """Compute log-odds that each label is in the list, float32 (B, L).

    The model of lists: after the labels so far, the likelihoods of each later label and of the end, divided by their
    sum. P(label i in the list) is the sum over all lists so far of their probability times that of i next, taken
    forward label by label. Of the lists that end in i only the `n_histories` most probable ones are continued; they
    take over the probability of all that end in i. That is exact if there are no more of them, or if what comes next
    depends on the last label alone; 2 ** (L - 2) histories are always exact.
    """
    n_labels = len(answers.later)
    # float64 on the CPU from here on: these are sums of many small probabilities, and no work for a GPU
    opening = _score_opening(lm, prompts, answers).double().log_softmax(1).cpu()  # (B, L + 1), `none` last
    ways = [[opening[:, i : i + 1]] for i in range(n_labels)]  # how the list so far may come to end in each label
    pasts: list[list[list[tuple]]] = [[[(i,)] for _ in opening] for i in range(n_labels)]
    inside = []
    for i in range(n_labels):
        # log-probabilities of all kept lists whose last label is i
        mass = torch.cat(ways[i], 1)  # (B, ways)
        inside.append(mass.logsumexp(1, keepdim=True))
        if i == n_labels - 1:
            break
        best = mass.topk(min(n_histories, mass.shape[1]), 1)
        # scaled up so that they sum to P(i): what is dropped is given to what is kept, in proportion
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
    """Compute log(p / (1 - p)) from log p, float64, within the bounds above."""
    # the upper bound is log p with 1 - p = exp(-27), below which float64 has only rounding
    log_probs = log_probs.clamp(LEAST_LOG_ODDS, -np.exp(-LARGEST_LOG_ODDS))
    return log_probs - torch.log(-torch.expm1(log_probs))


def _score_opening(lm, prompts, answers: ListAnswers) -> torch.Tensor:
    """Compute the log-likelihood of each first label, (B, L) or, with `none`, (B, L + 1)."""
    nothing = torch.zeros(len(prompts.ids), 1, 0, dtype=torch.int64, device=prompts.ids.device)
    return score_menu(lm, prompts, nothing, nothing.sum(2), answers.opening())[:, 0]


def _pad_stems(stems: Sequence[Sequence[list[int]]], device) -> tuple[torch.Tensor, torch.Tensor]:
    """Pad stems, given as [row][stem], on the left: ids int64 (B, K, H), and lengths, int64 (B, K)."""
    lengths = torch.tensor([[len(stem) for stem in row] for row in stems], device=device)
    width = int(lengths.max())
    ids = [[[0] * (width - len(stem)) + stem for stem in row] for row in stems]
    return torch.tensor(ids, device=device), lengths
