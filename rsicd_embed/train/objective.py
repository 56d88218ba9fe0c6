"""What a step makes small: a function of the whole batch's embeddings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from rsicd_embed.train.config import StepConfig
from rsicd_embed.train.loss import sigmoid_cross_entropy, symmetric_cross_entropy

# Arrays of a step, by name, all with a row for each image; pixels, tokens and groups are always
# there (see `data.Batch`), others are for the objective alone.
Arrays: TypeAlias = Mapping[str, jax.Array]
Metrics: TypeAlias = dict[str, jax.Array]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Embeddings:
    """What an objective is a function of; b images and texts, d joint.

    Attributes:
        images: float32 (b, d), of unit length.
        texts: float32 (b, d), of unit length.
        scale: float32 (), exp(logit_scale).
        own: the objective's own parameters, as they stand.
    """

    images: jax.Array
    texts: jax.Array
    scale: jax.Array
    own: Mapping[str, jax.Array]


@dataclass(frozen=True)
class Objective:
    """A loss with the parameters that it alone has.

    Attributes:
        loss: the embeddings and arrays of the global batch → float32 (), and what is to be logged.
        own: its parameters at the start, float32; trained and kept in checkpoints, not exported.
    """

    loss: Callable[[Embeddings, Arrays], tuple[jax.Array, Metrics]]
    own: Mapping[str, np.ndarray] = field(default_factory=dict)


def contrastive(config: StepConfig) -> Objective:
    """The loss that the settings name."""
    smoothing = config.label_smoothing

    def softmax(e: Embeddings, batch: Arrays) -> tuple[jax.Array, Metrics]:
        groups = batch["groups"]
        return symmetric_cross_entropy(e.images, e.texts, e.scale, groups, smoothing), {}

    def sigmoid(e: Embeddings, batch: Arrays) -> tuple[jax.Array, Metrics]:
        bias, groups = jnp.asarray(e.own["bias"]), batch["groups"]
        loss = sigmoid_cross_entropy(e.images, e.texts, e.scale, bias, groups, smoothing)
        return loss, {"bias": bias}

    if config.loss == "sigmoid":
        return Objective(sigmoid, {"bias": np.asarray(config.bias, np.float32)})
    return Objective(softmax)
