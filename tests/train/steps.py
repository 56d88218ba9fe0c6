"""A tiny model with its step and batches, for the tests in this folder."""

from __future__ import annotations

import functools
from typing import Any

import jax
import numpy as np
from flax import nnx

from rsicd_embed.embedder.clip.config import ClipConfig, TowerConfig
from rsicd_embed.embedder.clip.model import Clip
from rsicd_embed.embedder.clip.resnet_config import ResNetConfig
from rsicd_embed.embedder.preprocess import Preprocessor
from rsicd_embed.train.config import TrainConfig, parse
from rsicd_embed.train.distributed import layout
from rsicd_embed.train.objective import contrastive
from rsicd_embed.train.state import TrainState, initial_state
from rsicd_embed.train.step import Recipe

STEPS = 10
SIZE, VOCABULARY, CONTEXT = 16, 40, 6
VIT = ClipConfig(
    TowerConfig(32, 2, 2, 128), TowerConfig(32, 1, 2, 128), 16, SIZE, 8, VOCABULARY, CONTEXT,
    VOCABULARY - 1,
)  # fmt: skip
RESNET = ClipConfig(
    ResNetConfig((8, 8, 16, 16), (1, 1, 1, 1), 8), TowerConfig(32, 1, 2, 128), 16, 32, 0,
    VOCABULARY, CONTEXT, VOCABULARY - 1,
)  # fmt: skip


def config(**settings: Any) -> TrainConfig:
    """Makes settings; a double underscore separates the section: step__chunk=4."""
    named = {name.replace("__", "."): value for name, value in settings.items()}
    return parse.replaced(TrainConfig(batch_size=16), named)


def recipe(
    settings: TrainConfig, devices: Any = None, model: ClipConfig = VIT, keep: float = 1.0
) -> Recipe:
    where = layout(settings.step.shard, jax.devices()[:1] if devices is None else devices)
    pixels = Preprocessor(model.image_size, (model.image_size, model.image_size))
    return Recipe(model, settings, pixels, STEPS, contrastive(settings.step), where, keep)


@functools.cache
def _parameters(model: ClipConfig) -> Any:
    return nnx.state(Clip(model, rngs=nnx.Rngs(0)))


def begin(of: Recipe) -> TrainState:
    return initial_state(_parameters(of.model), of.config, of.steps, of.objective, of.layout)


def batch(number: int = 0, size: int = 16, side: int = SIZE) -> dict[str, np.ndarray]:
    """A batch in which two rows share a caption; a larger `side` makes the step crop views."""
    draw = np.random.default_rng(number)
    tokens = draw.integers(1, VOCABULARY - 1, (size, CONTEXT), dtype=np.int32)
    tokens[:, -1] = VOCABULARY - 1
    tokens[1] = tokens[0]
    groups = np.stack([np.arange(size)] * 2, axis=1).astype(np.int32)
    groups[1, 0] = 0
    pixels = draw.integers(0, 256, (size, side, side, 3), dtype=np.uint8)
    return {"pixels": pixels, "tokens": tokens, "groups": groups}


def flat(tree: Any) -> np.ndarray:
    """All numbers of a tree in one array."""
    return np.concatenate([np.ravel(np.asarray(leaf)) for leaf in jax.tree.leaves(tree)])
