"""Random views of aerial images, made on the device: crops, flips, quarter turns, colour jitter."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, UInt8

MIN_AREA = 0.5
JITTER = 0.25


def random_view(
    key: PRNGKeyArray, pixels: UInt8[Array, "b s s 3"], size: int
) -> Float[Array, "b size size 3"]:
    """A random square crop of at least MIN_AREA, resized, turned, mirrored and recoloured.

    Aerial images have no up: all eight symmetries of the square are equally likely. Values stay in
    [0, 255].
    """
    keys = jax.random.split(key, len(pixels))
    return jax.vmap(lambda k, image: _one(k, image, size))(keys, pixels)


def _one(key: PRNGKeyArray, image: UInt8[Array, "s s 3"], size: int) -> Float[Array, "size size 3"]:
    crop, place, turn, colour = jax.random.split(key, 4)
    side = image.shape[0]
    span = side * jnp.sqrt(jax.random.uniform(crop, minval=MIN_AREA, maxval=1.0))
    start = jax.random.uniform(place, (2,)) * (side - span)
    scale = size / span
    view = jax.image.scale_and_translate(
        image.astype(jnp.float32),
        (size, size, 3),
        (0, 1),
        jnp.stack([scale, scale]),
        -start * scale,
        method="linear",
        antialias=True,
    )
    transpose, up_down, left_right = jax.random.bernoulli(turn, shape=(3,))
    view = jnp.where(transpose, view.transpose(1, 0, 2), view)
    view = jnp.where(up_down, view[::-1], view)
    view = jnp.where(left_right, view[:, ::-1], view)
    return _recolour(colour, view)


def _recolour(key: PRNGKeyArray, view: Float[Array, "h w 3"]) -> Float[Array, "h w 3"]:
    brightness, contrast, saturation = 1 + JITTER * jax.random.uniform(
        key, (3,), minval=-1.0, maxval=1.0
    )
    view = view * brightness
    mean = view.mean()
    view = mean + (view - mean) * contrast
    grey = (view @ jnp.asarray([0.299, 0.587, 0.114]))[..., None]
    return jnp.clip(grey + (view - grey) * saturation, 0.0, 255.0)


def random_patches(key: PRNGKeyArray, batch: int, patches: int, keep: int) -> Int[Array, "b keep"]:
    """Which patches each image keeps, without repetition."""
    noise = jax.random.uniform(key, (batch, patches))
    return jnp.argsort(noise, axis=1)[:, :keep]
