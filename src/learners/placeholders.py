"""Placeholders that cleaning writes (`<URL>`) as tokens of their own, and embeddings for them."""

from collections.abc import Sequence

from torch import nn
from transformers import AddedToken


def add_placeholders(tokenizer, placeholders: Sequence[str]) -> int:
    """Teach the tokenizer that each placeholder is one token, in exactly this spelling; before texts are tokenized.

    Returns: how many were not known to it; the model then needs `fit_embeddings`.
    """
    # not normalised: an uncased tokenizer would look for `<url>`; lstrip: the space before it leaves no token behind
    return tokenizer.add_tokens([AddedToken(name, normalized=False, lstrip=True) for name in placeholders])


def fit_embeddings(model: nn.Module, tokenizer) -> int:
    """Give the model an embedding for every token; a matrix that is large enough stays as it is.

    New rows are drawn around the mean of the known ones: seed torch before. Where the model is frozen under adapters,
    they stay as drawn unless the embedding matrix is trained too.
    Returns: how many embeddings were added.
    """
    n_known = model.get_input_embeddings().num_embeddings
    if len(tokenizer) > n_known:
        model.resize_token_embeddings(len(tokenizer))
    return max(0, len(tokenizer) - n_known)
