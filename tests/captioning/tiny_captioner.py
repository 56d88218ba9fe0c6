"""A tiny random captioner."""

from __future__ import annotations

import functools

import jax
import numpy as np
from flax import nnx

from rsicd_embed.captioning.caption_config import CaptionerConfig, DecoderConfig
from rsicd_embed.captioning.caption_model import CaptionModel
from rsicd_embed.captioning.captioner_files import CaptionerParts
from rsicd_embed.captioning.vocabulary import Words
from rsicd_embed.records import Provenance

WORDS = Words(["many", "green", "trees", "are", "around", "a", "port", "with", "boats", "'s"])
DIM = 8
CONFIG = CaptionerConfig(
    DecoderConfig(WORDS.size, positions=14, width=16, layers=2, heads=2, mlp_width=32),
    DIM,
    prefix=2,
    mapping_width=12,
)
MADE_BY = Provenance("test-model", "weights:test/dim:8", DIM)


@functools.cache
def tiny_parts(seed: int = 0, made_by: Provenance = MADE_BY) -> CaptionerParts:
    """A captioner with large random weights, whose captions vary with the vector."""
    state = nnx.state(CaptionModel(CONFIG, rngs=nnx.Rngs(seed)))
    params = jax.tree.map(lambda x: x * 12 if x.ndim > 1 else x, state)
    return CaptionerParts(CONFIG, params, WORDS, made_by, "tiny")


def unit_vectors(count: int, seed: int = 0) -> np.ndarray:
    """float32 (count, DIM) random unit vectors."""
    vectors = np.random.default_rng(seed).standard_normal((count, DIM))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
