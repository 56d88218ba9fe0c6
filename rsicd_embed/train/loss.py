"""Contrastive losses: pure functions of the whole batch's embeddings."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def symmetric_cross_entropy(
    images: Float[Array, "b d"],
    texts: Float[Array, "b d"],
    scale: Float[Array, ""],
    groups: Int[Array, " b"],
) -> Float[Array, ""]:
    """CLIP's loss (arXiv:2103.00020, figure 3), with repeated captions as positives.

    Pairs whose `groups` are equal describe each other as well as themselves: their targets share
    the probability equally (UniCL, arXiv:2204.03610). With distinct groups it is CLIP's own loss.

    Args:
        images: unit embeddings of images.
        texts: unit embeddings of their captions.
        scale: what similarities are multiplied by, exp(logit_scale).
        groups: equal numbers for equal captions.

    Example:
        >>> import jax.numpy as jnp
        >>> eye = jnp.eye(3)
        >>> float(symmetric_cross_entropy(eye, eye, jnp.float32(100.0), jnp.arange(3))) < 1e-6
        True
    """
    logits = scale * images @ texts.T
    same = (groups[:, None] == groups[None, :]).astype(logits.dtype)
    targets = same / same.sum(axis=1, keepdims=True)
    by_image = -(targets * jax.nn.log_softmax(logits, axis=1)).sum(axis=1)
    by_text = -(targets * jax.nn.log_softmax(logits.T, axis=1)).sum(axis=1)
    return jnp.mean(by_image + by_text) / 2
