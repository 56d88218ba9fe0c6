"""Random patches, and the learnt vocabulary."""

from __future__ import annotations

import jax
import numpy as np

from rsicd_embed.train.initialization import learn_vocabulary
from rsicd_embed.train.input.augment import random_patches
from tests.conftest import CAPTIONS


def test_patches_are_drawn_without_repetition() -> None:
    patches = np.asarray(random_patches(jax.random.key(0), 5, 64, 32))
    assert patches.shape == (5, 32)
    assert all(len(set(row)) == 32 for row in patches)
    assert patches.min() >= 0
    assert patches.max() < 64


def test_any_text_can_be_encoded() -> None:
    tokenizer = learn_vocabulary(CAPTIONS, 1024)
    text = "naïve 日本 🛰 q"
    ids = tokenizer.encode(text).ids
    assert (ids[0], ids[-1]) == (1022, 1023)
    assert 1023 not in ids[1:-1]  # no unknown byte
    assert tokenizer.decode(ids).replace("</w>", " ").split() == text.split()
    assert len(tokenizer.encode("a desert").ids) == 4  # known words are one token each
    assert tokenizer.to_str() == learn_vocabulary(CAPTIONS, 1024).to_str()
