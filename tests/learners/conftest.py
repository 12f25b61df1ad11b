"""Tiny pretrained models that several test files of learners share."""

import pytest


@pytest.fixture(scope="session")
def tiny_decoder(tmp_path_factory):
    """kind -> folder of a tiny decoder, made at the first call (tiny_decoders.py names the kinds)."""
    from tiny_decoders import save_tiny_decoder

    made = {}

    def get(kind):
        if kind not in made:
            made[kind] = save_tiny_decoder(tmp_path_factory.mktemp(kind), kind)
        return made[kind]

    return get
