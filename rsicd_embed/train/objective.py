"""The training objective: a function of the whole batch's embeddings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from rsicd_embed.train.config import StepConfig, TeacherConfig
from rsicd_embed.train.loss import (
    affinity_divergence,
    cosine_distance,
    sigmoid_cross_entropy,
    symmetric_cross_entropy,
)

# Arrays of a batch by name, with one row per image. Pixels, tokens and groups are always present
# (see `Batch`); only the objective reads any others.
Arrays: TypeAlias = Mapping[str, jax.Array]
Metrics: TypeAlias = dict[str, jax.Array]

# A teacher's vectors in a batch: float32 (b, d′), of unit length.
TEACHER_IMAGES, TEACHER_TEXTS = "teacher_images", "teacher_texts"


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Embeddings:
    """A student's embeddings of b images and texts.

    Attributes:
        images: float32 (b, d), of unit length.
        texts: float32 (b, d), of unit length.
        scale: float32 (), exp(logit_scale).
        own: current values of the objective's own parameters.
    """

    images: jax.Array
    texts: jax.Array
    scale: jax.Array
    own: Mapping[str, jax.Array]


@dataclass(frozen=True)
class Objective:
    """A loss and its own parameters.

    Attributes:
        loss: maps the embeddings and arrays of the global batch to a float32 scalar and metrics to
            log.
        own: initial values of the loss's parameters, float32; trained and checkpointed, but not
            exported.
    """

    loss: Callable[[Embeddings, Arrays], tuple[jax.Array, Metrics]]
    own: Mapping[str, np.ndarray] = field(default_factory=dict)


def contrastive(config: StepConfig) -> Objective:
    """Contrasts images and captions with the configured loss, which must not be `auto`."""
    smoothing = config.label_smoothing

    def softmax(e: Embeddings, batch: Arrays) -> tuple[jax.Array, Metrics]:
        groups = batch["groups"]
        return symmetric_cross_entropy(e.images, e.texts, e.scale, groups, smoothing), {}

    def sigmoid(e: Embeddings, batch: Arrays) -> tuple[jax.Array, Metrics]:
        bias, groups = jnp.asarray(e.own["bias"]), batch["groups"]
        loss = sigmoid_cross_entropy(e.images, e.texts, e.scale, bias, groups, smoothing)
        return loss, {"bias": bias}

    objectives = {
        "sigmoid": Objective(sigmoid, {"bias": np.asarray(config.bias, np.float32)}),
        "softmax": Objective(softmax),
    }
    return objectives[config.loss]


def distilled(
    objective: Objective, config: TeacherConfig, scale: float, same_dimension: bool
) -> Objective:
    """Adds distillation to an objective; `scale` multiplies the teacher's similarities.

    Vectors are compared directly only if student and teacher have the same dimension.
    """

    def loss(e: Embeddings, batch: Arrays) -> tuple[jax.Array, Metrics]:
        own, metrics = objective.loss(e, batch)
        images, texts = batch[TEACHER_IMAGES], batch[TEACHER_TEXTS]
        affinity = affinity_divergence(e.scale * e.images @ e.texts.T, scale * images @ texts.T)
        distillation = config.affinity * affinity
        metrics |= {"contrastive": own, "affinity": affinity}
        if same_dimension:
            features = cosine_distance(e.images, images) + cosine_distance(e.texts, texts)
            distillation += config.features * features
            metrics["features"] = features
        return (1 - config.share) * own + config.share * distillation, metrics

    return Objective(loss, objective.own)
