"""Which tokens of a text spoke for a label: integrated gradients of a trained encoder.

Between a text of neutral tokens and the text itself, at points of a straight line, the gradient of the label's logit by
each token's embedding is averaged. A token's share is that mean times how far its embedding moved. Shares have the unit
of the logit and add up to the text's logit minus the neutral text's, but for the error of a sum for an integral.

Source: Sundararajan, Taly and Yan 2017, arXiv:1703.01365; the mask token as neutral input: Sturmfels et al. 2020.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from foldblend.learners.tokens.tokens import Tokens

N_STEPS, AT_ONCE = 64, 16
"""Points on the line, and how many of them one forward pass has."""


@dataclass(frozen=True)
class Attribution:
    """What one fold's model says of one text; T tokens of the text, A labels that were asked about."""

    pieces: list[str]
    """The tokens as words or parts of words; joined they are the text as the model read it."""
    shares: np.ndarray
    """float64 (T, A): how much of each label's logit each token is worth."""
    logits: np.ndarray
    """float64 (A,), of the text."""
    neutral: np.ndarray
    """float64 (A,), of the text with a neutral token in place of each."""


def attribute(model, tokenizer, tokens: Tokens, row: int, labels: Sequence[int], n_steps: int = N_STEPS) -> Attribution:
    """Integrated gradients of some labels' logits, by the embeddings of one text's tokens.

    Args: model: a TextClassifier whose word embeddings are a module of their own (no fused layers); it is not changed.
          row: of `tokens`.   labels: int (A,).   n_steps: more of them bring the sum nearer to the integral.
    """
    ids = tokens.row(row).astype(np.int64)
    before, after = tokens.frame
    place = np.arange(len(ids))
    names = ("cls_token_id", "sep_token_id", "bos_token_id", "eos_token_id")
    separators = [number for name in names if (number := getattr(tokenizer, name)) is not None]
    asked = (place >= before) & (place < len(ids) - after) & ~np.isin(ids, separators)  # a pair has one in its middle
    neutral_ids = np.where(asked, tokens.pad_id if tokens.mask_id is None else tokens.mask_id, ids)
    embedding = model.encoder.get_input_embeddings()
    device = embedding.weight.device
    inputs = {name: value.to(device) for name, value in tokens.batch(np.array([row])).items()}
    model.eval()
    model.requires_grad_(False)
    text, neutral = (embedding(torch.from_numpy(each).to(device)) for each in (ids, neutral_ids))  # (T, H) each
    total = torch.zeros(len(labels), *text.shape, dtype=torch.float64, device=device)

    def read(points: torch.Tensor) -> torch.Tensor:
        """Logits (S, A) of word embeddings (S, T, H) in place of the text's."""
        handle = embedding.register_forward_hook(lambda module, given, output: points)
        try:
            repeated = {name: value.expand(len(points), *value.shape[1:]) for name, value in inputs.items()}
            return model(**repeated)[:, list(labels)]
        finally:
            handle.remove()

    # middles of equal pieces of the line: the error falls with the square of their number
    for middles in ((torch.arange(n_steps, device=device) + 0.5) / n_steps).split(AT_ONCE):
        points = (neutral + middles[:, None, None] * (text - neutral)).requires_grad_(True)
        logits = read(points)
        for k in range(len(labels)):
            (gradient,) = torch.autograd.grad(logits[:, k].sum(), points, retain_graph=k + 1 < len(labels))
            total[k] += gradient.sum(dim=0).double()
    with torch.no_grad():
        ends = read(torch.stack([text, neutral])).double().cpu().numpy()
    shares = ((text - neutral).double() * total / n_steps).sum(dim=-1).T.cpu().numpy()  # (T, A)
    return Attribution(_pieces(tokenizer, ids[asked]), shares[asked], ends[0], ends[1])


def _pieces(tokenizer, ids: np.ndarray) -> list[str]:
    """What each token adds to the text: "un", "happ", "y", " day"."""
    said, pieces = "", []
    for k in range(len(ids)):
        longer = tokenizer.decode(ids[: k + 1].tolist(), clean_up_tokenization_spaces=False)
        # half of a character of several bytes is a sign of its own until the other half comes
        start = len(said) if longer.startswith(said) else max(len(said) - 1, 0)
        pieces.append(longer[start:])
        said = longer
    return pieces
