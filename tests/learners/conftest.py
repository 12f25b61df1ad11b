"""Tiny pretrained models that several test files of learners share."""

from functools import cache

import pytest


@pytest.fixture(autouse=True)
def blend_quickly(quick_blends):
    """A learner's tests blend to see that its predictions can be."""


@pytest.fixture(scope="session")
def tiny_decoder(tmp_path_factory):
    """kind -> folder of a tiny decoder, made at the first call (tiny_decoders.py names the kinds)."""
    from tiny_decoders import save_tiny_decoder

    return cache(lambda kind: save_tiny_decoder(tmp_path_factory.mktemp(kind), kind))


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory):
    """architecture -> folder of a tiny encoder, made at the first call (tiny_encoders.py names them)."""
    from tiny_encoders import save_encoder

    return cache(lambda architecture: save_encoder(architecture, tmp_path_factory.mktemp(architecture)))
