"""Random views of images, computed on the device: crops, flips, rotations and colour jitter."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, PRNGKeyArray, UInt8

from rsicd_embed.train.config import AugmentConfig

# In batches that specify their views: numbers of image and view, int32 (b, 2).
VIEWS = "views"


def view_keys(seed: int, views: Int[Array, "b 2"]) -> Key[Array, " b"]:
    """Returns random keys determined by the numbers of image and view."""
    images = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), views[:, 0])
    return jax.vmap(jax.random.fold_in)(images, views[:, 1])


def random_view(
    key: PRNGKeyArray,
    pixels: UInt8[Array, "b s s 3"],
    size: int,
    config: AugmentConfig,
) -> Float[Array, "b size size 3"]:
    """Makes a random view of each image: a square crop, resized, flipped, rotated and recoloured.

    With quarter turns and flips of probability 1/2 all eight symmetries of the square are equally
    likely. Values stay in [0, 255].
    """
    keys = jax.random.split(key, len(pixels))
    return jax.vmap(lambda k, image: _view(k, image, size, config))(keys, pixels)


def _view(
    key: PRNGKeyArray, image: UInt8[Array, "s s 3"], size: int, config: AugmentConfig
) -> Float[Array, "size size 3"]:
    crop, across, down, turn, colour = jax.random.split(key, 5)
    view = _cropped(crop, image, size, config)
    if config.horizontal_flip:
        mirrored = jax.random.bernoulli(across, config.horizontal_flip)
        view = jnp.where(mirrored, view[:, ::-1], view)
    if config.vertical_flip:
        view = jnp.where(jax.random.bernoulli(down, config.vertical_flip), view[::-1], view)
    if config.quarter_turns:
        quarter, half = jax.random.bernoulli(turn, shape=(2,))
        view = jnp.where(quarter, jnp.rot90(view), view)
        view = jnp.where(half, jnp.rot90(view, 2), view)
    return _recoloured(colour, view, config.jitter) if config.jitter else view


def _cropped(
    key: PRNGKeyArray, image: UInt8[Array, "s s 3"], size: int, config: AugmentConfig
) -> Float[Array, "size size 3"]:
    """A crop of a random area within a crop of a fixed side, both at random positions."""
    first, crop, second = jax.random.split(key, 3)
    side = image.shape[0]
    outer = side * config.crop_side
    least, most = config.crop_area
    span = outer * jnp.sqrt(jax.random.uniform(crop, minval=least, maxval=most))
    start = jax.random.uniform(first, (2,)) * (side - outer)
    start += jax.random.uniform(second, (2,)) * (outer - span)
    scale = size / span
    cropped: Array = jax.image.scale_and_translate(
        image.astype(jnp.float32),
        (size, size, 3),
        (0, 1),
        jnp.stack([scale, scale]),
        -start * scale,
        method="linear",
        antialias=True,
    )
    return cropped


def _recoloured(
    key: PRNGKeyArray, view: Float[Array, "h w 3"], jitter: float
) -> Float[Array, "h w 3"]:
    brightness, contrast, saturation = 1 + jitter * jax.random.uniform(
        key, (3,), minval=-1.0, maxval=1.0
    )
    view = view * brightness
    mean = view.mean()
    view = mean + (view - mean) * contrast
    grey = (view @ jnp.asarray([0.299, 0.587, 0.114]))[..., None]
    return jnp.clip(grey + (view - grey) * saturation, 0.0, 255.0)


def random_patches(key: PRNGKeyArray, batch: int, patches: int, keep: int) -> Int[Array, "b keep"]:
    """Draws the patches that each image keeps, without repetition."""
    noise = jax.random.uniform(key, (batch, patches))
    return jnp.argsort(noise, axis=1)[:, :keep]
