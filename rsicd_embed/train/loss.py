"""Contrastive and distillation losses: pure functions of the whole batch's embeddings."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int


def positives(groups: Int[Array, "b 2"]) -> Bool[Array, "b b"]:
    """Marks the rows that describe each other because they share a caption or an image.

    Args:
        groups: numbers of each row's caption and image.

    Example:
        >>> import jax.numpy as jnp
        >>> positives(jnp.asarray([[0, 5], [1, 5], [1, 6]])).astype(int).tolist()
        [[1, 1, 0], [1, 1, 1], [0, 1, 1]]
    """
    equal: Array = groups[:, None, :] == groups[None, :, :]
    return equal.any(axis=-1)


def symmetric_cross_entropy(
    images: Float[Array, "b d"],
    texts: Float[Array, "b d"],
    scale: Float[Array, ""],
    groups: Int[Array, "b 2"],
    smoothing: float = 0.0,
) -> Float[Array, ""]:
    """CLIP's loss (arXiv:2103.00020, figure 3), with repeated captions and images as positives.

    Positives share the target's probability equally (UniCL, arXiv:2204.03610). In a batch without
    repetitions this is exactly CLIP's loss.

    Args:
        images: unit embeddings of images.
        texts: unit embeddings of their captions.
        scale: factor of the similarities, exp(logit_scale).
        groups: see `positives`.
        smoothing: fraction of the target spread over the batch (arXiv:1512.00567).

    Example:
        >>> import jax.numpy as jnp
        >>> eye, apart = jnp.eye(3), jnp.stack([jnp.arange(3)] * 2, axis=1)
        >>> float(symmetric_cross_entropy(eye, eye, jnp.float32(100.0), apart)) < 1e-6
        True
    """
    logits = _logits(images, texts, scale)
    same = positives(groups).astype(logits.dtype)
    shares = same.sum(axis=1)  # per row and per column, since `same` is symmetric

    def cross_entropy(axis: int) -> Array:
        target = (same * logits).sum(axis=axis) / shares
        target = (1 - smoothing) * target + smoothing * logits.mean(axis=axis)
        return jax.nn.logsumexp(logits, axis=axis) - target

    return jnp.mean(cross_entropy(1) + cross_entropy(0)) / 2


def sigmoid_cross_entropy(
    images: Float[Array, "b d"],
    texts: Float[Array, "b d"],
    scale: Float[Array, ""],
    bias: Float[Array, ""],
    groups: Int[Array, "b 2"],
    smoothing: float = 0.0,
) -> Float[Array, ""]:
    """SigLIP's loss (arXiv:2303.15343, algorithm 1): is each image and text a pair or not?

    Args:
        images: unit embeddings of images.
        texts: unit embeddings of their captions.
        scale: factor of the similarities.
        bias: added to the scaled similarities; trained, since most combinations are not pairs.
        groups: see `positives`.
        smoothing: fraction of the target spread over the two answers.

    Example:
        >>> import jax.numpy as jnp
        >>> eye, apart = jnp.eye(3), jnp.stack([jnp.arange(3)] * 2, axis=1)
        >>> scale, bias = jnp.float32(100.0), jnp.float32(-50.0)
        >>> float(sigmoid_cross_entropy(eye, eye, scale, bias, apart)) < 1e-6
        True
    """
    logits = _logits(images, texts, scale) + bias
    targets = positives(groups) * (1 - smoothing) + smoothing / 2
    losses: Array = optax.sigmoid_binary_cross_entropy(logits, targets)
    return losses.sum() / len(images)


def cosine_distance(student: Float[Array, "b d"], teacher: Float[Array, "b d"]) -> Float[Array, ""]:
    """Mean of 1 - cosine between unit vectors, which is half their squared distance.

    Example:
        >>> import jax.numpy as jnp
        >>> float(cosine_distance(jnp.eye(2), jnp.eye(2)[::-1]))
        1.0
    """
    return 1 - jnp.mean(jnp.sum(student * teacher, axis=-1))


def affinity_divergence(
    student: Float[Array, "b b"], teacher: Float[Array, "b b"]
) -> Float[Array, ""]:
    """Kullback-Leibler divergence, in nats, of the student's from the teacher's affinities.

    Affinities are softmaxes of logits, along rows and along columns. Contrastive relational
    distillation (Yang et al. 2023, CLIP-KD: arXiv:2307.12732).

    Args:
        student: logits of images (rows) and texts (columns).
        teacher: the teacher's logits for the same images and texts.
    """

    def divergence(own: jax.Array, target: jax.Array) -> jax.Array:
        log_own, log_target = jax.nn.log_softmax(own, axis=1), jax.nn.log_softmax(target, axis=1)
        return jnp.mean(jnp.sum(jnp.exp(log_target) * (log_target - log_own), axis=1))

    return (divergence(student, teacher) + divergence(student.T, teacher.T)) / 2


def _logits(images: Array, texts: Array, scale: Array) -> Array:
    # In full precision: a TPU's default, one bfloat16 pass, is off by 0.4 in a logit of 100.
    return scale * jnp.matmul(images, texts.T, precision=jax.lax.Precision.HIGHEST)
