"""How much of the texts a model reads: what is truncated, and what its tokenizer does not know."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from foldblend.errors import UserError
from foldblend.learners.tokens.tokens import Tokens

NEARLY_ALL = 0.95
"""A suggested length reads this share of the texts whole: the longest few would cost more than they bring."""
STEP = 32
"""A suggested length is a multiple of this."""
SAMPLE_CHARACTERS = 60

# 1. Truncated texts


@dataclass(frozen=True)
class Truncation:
    """What `max_length_tokens` leaves unread, over training and test texts; stored with a fold."""

    max_length_tokens: int
    texts_cut: float
    """Share of the texts that are longer."""
    tokens_cut: float
    """Share of all tokens that no model reads."""
    suggested_tokens: int
    """A length that reads nearly all texts whole, or the longest that the model can; the present one if nothing
    better is known."""
    texts_cut_then: float
    times_tokens: float
    """Tokens read at the suggested length, as a multiple of now: about the multiple of the time."""

    def record(self) -> dict[str, float]:
        """The values as a record holds them."""
        return {name: round(value, 4) for name, value in asdict(self).items()}

    def line(self, setting: str) -> str:
        """One sentence for a person; empty if no text is cut. Args: setting: `model.max_length_tokens`, or its like."""
        if not self.texts_cut:
            return ""
        said = (
            f"{_percent(self.texts_cut)} of the texts are longer than {setting} {self.max_length_tokens}; "
            f"{_percent(self.tokens_cut)} of all tokens are cut off and not read."
        )
        if self.suggested_tokens <= self.max_length_tokens:
            return said + " The model reads no longer texts; model.tail_fraction 0.5 reads their ends too"
        return (
            f"{said} --{setting} {self.suggested_tokens} reads {_percent(1 - self.texts_cut_then)} of the texts whole, "
            f"in about {self.times_tokens:.1f} times the time"
        )


def measure_truncation(tokens: Tokens, max_length_tokens: int, most_tokens: int | None) -> Truncation | None:
    """Measure what is cut, and find a length that cuts little.

    Args:    most_tokens: the longest rows that the model has positions for; None is any length.
    Returns: None if the tokens do not say how long their texts were.
    """
    if tokens.whole is None or not len(tokens.whole):
        return None
    whole, lengths = tokens.whole.astype(np.int64), tokens.lengths
    wanted = int(np.quantile(whole, NEARLY_ALL, method="higher"))
    wanted = -(-wanted // STEP) * STEP
    wanted = max(max_length_tokens, min(wanted, most_tokens or wanted))
    return Truncation(
        max_length_tokens=max_length_tokens,
        texts_cut=float((whole > lengths).mean()),
        tokens_cut=float(1 - lengths.sum() / whole.sum()),
        suggested_tokens=wanted,
        texts_cut_then=float((whole > wanted).mean()),
        times_tokens=float(np.minimum(whole, wanted).sum() / lengths.sum()),
    )


def most_positions(config) -> int | None:
    """The longest row that a model can read, from its config; None if it has no such limit or does not say."""
    config = getattr(config, "text_config", None) or config
    positions = getattr(config, "max_position_embeddings", None)
    if not isinstance(positions, int) or positions < 1:
        return None
    padding = getattr(config, "pad_token_id", None) or 0
    counts_from_padding = {
        "roberta",
        "xlm-roberta",
        "camembert",
        "xlm-roberta-xl",
        "longformer",
        "roberta-prelayernorm",
    }
    return positions - padding - 1 if config.model_type in counts_from_padding else positions


def _percent(share: float) -> str:
    """`35 %`; a share that is not 0 is never shown as 0."""
    if 0 < share < 0.001:
        return "under 0.1 %"
    return f"{share:.1%}".replace("%", " %") if share < 0.1 else f"{share:.0%}".replace("%", " %")


# 2. Unknown tokens


def unknown_share(tokens: Tokens, unknown: int | None) -> np.ndarray:
    """The share of each row's own tokens, its frame aside, that the tokenizer does not know: float64 (n_texts,)."""
    n_texts = len(tokens.lengths)
    if unknown is None or not n_texts:
        return np.zeros(n_texts)
    counts = np.concatenate([[0], np.cumsum(np.asarray(tokens.ids) == unknown)])
    before, after = tokens.frame
    starts, ends = tokens.starts[:-1] + before, tokens.starts[1:] - after
    ends = np.maximum(starts, ends)
    return (counts[ends] - counts[starts]) / np.maximum(ends - starts, 1)


def check_known(tokens: Tokens, tokenizer, texts: Sequence[str], most: float, setting: str) -> None:
    """Raise UserError if the tokenizer does not know more than a share `most` of the texts' tokens.

    Args: texts: as the tokens were made of, for an example.   setting: `model`, or the group that names the model.
    """
    shares, lengths = unknown_share(tokens, tokenizer.unk_token_id), tokens.lengths - sum(tokens.frame)
    share = float((shares * lengths).sum() / max(lengths.sum(), 1))
    if share <= most:
        return
    worst = texts[int(np.argmax(shares * (lengths > 0)))]
    shown = worst[:SAMPLE_CHARACTERS] + "..." * (len(worst) > SAMPLE_CHARACTERS)
    raise UserError(
        f"The tokenizer does not know {share:.0%} of the texts' tokens; {setting}.max_unknown_share allows {most:.0%}: "
        f"{tokenizer.name_or_path}, first example {shown!r}. The folder's tokenizer is of another model, or "
        f"the model does not know this language or script. Set {setting}.name to one that does, such as "
        f"xlm-roberta-base, or raise --{setting}.max_unknown_share"
    )
