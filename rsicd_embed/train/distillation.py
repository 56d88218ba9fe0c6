"""What a student learns from a teacher's vectors: a function of the whole batch's embeddings."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rsicd_embed.train.config import TeacherConfig
from rsicd_embed.train.objective import Arrays, Embeddings, Metrics, Objective

# Names of a teacher's arrays in a batch: float32 (b, d′), of unit length.
IMAGES, TEXTS = "teacher_images", "teacher_texts"


def cosine_distance(student: Float[Array, "b d"], teacher: Float[Array, "b d"]) -> Float[Array, ""]:
    """Mean of 1 - cosine, of unit vectors; half the squared distance between them.

    Example:
        >>> import jax.numpy as jnp
        >>> float(cosine_distance(jnp.eye(2), jnp.eye(2)[::-1]))
        1.0
    """
    return 1 - jnp.mean(jnp.sum(student * teacher, axis=-1))


def affinity_divergence(
    student: Float[Array, "b b"], teacher: Float[Array, "b b"]
) -> Float[Array, ""]:
    """Kullback-Leibler divergence between softmaxes of logits, of rows and of columns, in nats.

    Contrastive relational distillation (Yang et al. 2023, CLIP-KD: arXiv:2307.12732).

    Args:
        student: logits of images (rows) and texts (columns).
        teacher: the same, of the teacher.
    """

    def rows(own: jax.Array, target: jax.Array) -> jax.Array:
        log_own, log_target = jax.nn.log_softmax(own, axis=1), jax.nn.log_softmax(target, axis=1)
        return jnp.mean(jnp.sum(jnp.exp(log_target) * (log_target - log_own), axis=1))

    return (rows(student, teacher) + rows(student.T, teacher.T)) / 2


def taught(objective: Objective, config: TeacherConfig, scale: float, dims: bool) -> Objective:
    """`objective`, and what a teacher says.

    Args:
        objective: of the captions alone.
        config: how much each part counts.
        scale: what the teacher's similarities are multiplied by.
        dims: whether student and teacher have the same dimension, so that features compare.
    """

    def loss(e: Embeddings, batch: Arrays) -> tuple[jax.Array, Metrics]:
        own, metrics = objective.loss(e, batch)
        images, texts = batch[IMAGES], batch[TEXTS]
        affinity = affinity_divergence(e.scale * e.images @ e.texts.T, scale * images @ texts.T)
        told = config.affinity * affinity
        metrics |= {"contrastive": own, "affinity": affinity}
        if dims:
            features = cosine_distance(e.images, images) + cosine_distance(e.texts, texts)
            told += config.features * features
            metrics["features"] = features
        return (1 - config.share) * own + config.share * told, metrics

    return Objective(loss, objective.own)
