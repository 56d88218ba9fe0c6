"""Contrastive losses: pure functions of the whole batch's embeddings."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int


def positives(groups: Int[Array, "b 2"]) -> Bool[Array, "b b"]:
    """Which rows describe each other: those of one caption, and those of one image.

    Args:
        groups: a number for the caption and one for the image, equal where those are.

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

    Rows that describe each other share the target's probability equally (UniCL, arXiv:2204.03610).
    Where every caption and image occurs once it is CLIP's own loss.

    Args:
        images: unit embeddings of images.
        texts: unit embeddings of their captions.
        scale: what similarities are multiplied by, exp(logit_scale).
        groups: see `positives`.
        smoothing: fraction of the target that is spread over the batch (arXiv:1512.00567).

    Example:
        >>> import jax.numpy as jnp
        >>> eye, apart = jnp.eye(3), jnp.stack([jnp.arange(3)] * 2, axis=1)
        >>> float(symmetric_cross_entropy(eye, eye, jnp.float32(100.0), apart)) < 1e-6
        True
    """
    logits = _logits(images, texts, scale)
    same = positives(groups).astype(logits.dtype)
    shares = same.sum(axis=1)  # by row and by column, as `same` is symmetric

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
    """SigLIP's loss (arXiv:2303.15343, algorithm 1): each image and text a pair, or not one.

    Args:
        images: unit embeddings of images.
        texts: unit embeddings of their captions.
        scale: what similarities are multiplied by.
        bias: what is then added; learnt, since most are no pairs.
        groups: see `positives`.
        smoothing: fraction of the target that is spread over the two answers.

    Example:
        >>> import jax.numpy as jnp
        >>> eye, apart = jnp.eye(3), jnp.stack([jnp.arange(3)] * 2, axis=1)
        >>> scale, bias = jnp.float32(100.0), jnp.float32(-50.0)
        >>> float(sigmoid_cross_entropy(eye, eye, scale, bias, apart)) < 1e-6
        True
    """
    logits = _logits(images, texts, scale) + bias
    targets = positives(groups) * (1 - smoothing) + smoothing / 2
    each: Array = optax.sigmoid_binary_cross_entropy(logits, targets)
    return each.sum() / len(images)


def _logits(images: Array, texts: Array, scale: Array) -> Array:
    # In full precision: a TPU's default, one bfloat16 pass, errs by 0.4 in a logit of 100.
    return scale * jnp.matmul(images, texts.T, precision=jax.lax.Precision.HIGHEST)
