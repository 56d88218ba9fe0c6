"""The patches and the vocabulary, each alone."""

from __future__ import annotations

import jax
import numpy as np

from rsicd_embed.train.initialization import learn_vocabulary
from rsicd_embed.train.input.augment import random_patches
from tests.conftest import CAPTIONS


def test_patches_are_drawn_without_repetition() -> None:
    kept = np.asarray(random_patches(jax.random.key(0), 5, 64, 32))
    assert kept.shape == (5, 32)
    assert all(len(set(row)) == 32 for row in kept)
    assert kept.min() >= 0
    assert kept.max() < 64


def test_any_text_can_be_spelt() -> None:
    tokenizer = learn_vocabulary(CAPTIONS, 1024)
    text = "naïve 日本 🛰 q"
    ids = tokenizer.encode(text).ids
    assert (ids[0], ids[-1]) == (1022, 1023)
    assert 1023 not in ids[1:-1]  # no byte is unknown
    assert tokenizer.decode(ids).replace("</w>", " ").split() == text.split()
    assert len(tokenizer.encode("a desert").ids) == 4  # seen words are one token each
    assert tokenizer.to_str() == learn_vocabulary(CAPTIONS, 1024).to_str()
