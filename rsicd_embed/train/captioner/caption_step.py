"""The compiled step of a captioner's training: noise, logits of all words, smoothed loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from rsicd_embed.captioning.caption_config import CaptionerConfig
from rsicd_embed.captioning.caption_model import CaptionModel, Dropout
from rsicd_embed.errors import TrainError
from rsicd_embed.train.captioner.caption_settings import LIKELIHOOD, CaptionTrainConfig
from rsicd_embed.train.distributed import DeviceLayout, place
from rsicd_embed.train.objective import Metrics
from rsicd_embed.train.optimizers import Named, optimizer, schedule, unnamed
from rsicd_embed.train.state import TrainState
from rsicd_embed.train.step import Step, moved_average

VECTORS, TOKENS, WEIGHTS = "vectors", "tokens", "weights"
IMAGES = "images"  # numbers of the images of a batch, which the step does not need


@dataclass(frozen=True)
class CaptionRecipe:
    """Everything that a compiled step depends on.

    Attributes:
        model: shape of the captioner.
        config: settings of the run.
        steps: number of steps of the whole run, for the learning-rate schedule.
        layout: how the step is spread over devices.
    """

    model: CaptionerConfig
    config: CaptionTrainConfig
    steps: int
    layout: DeviceLayout

    def __post_init__(self) -> None:
        if self.config.batch_size % self.layout.devices:
            raise TrainError(
                f"expected a batch divisible by the {self.layout.devices} devices, found "
                f"{self.config.batch_size}; give another --batch-size"
            )


def smoothed_loss(
    logits: jax.Array, tokens: jax.Array, weights: jax.Array, smoothing: float
) -> jax.Array:
    """Weighted mean cross-entropy of tokens with label smoothing (arXiv:1512.00567).

    Args:
        logits: float (b, t, v).
        tokens: int (b, t), the targets.
        weights: float (b, t), 0 for padding; may be negative.
        smoothing: fraction of each target that is spread evenly over the vocabulary.

    Example:
        >>> import jax.numpy as jnp
        >>> loss = smoothed_loss(jnp.zeros((1, 1, 4)), jnp.array([[2]]), jnp.ones((1, 1)), 0.1)
        >>> round(float(loss), 4)  # log 4
        1.3863
    """
    known = jax.nn.log_softmax(logits)
    own = jnp.take_along_axis(known, tokens[..., None], axis=-1)[..., 0]
    each = (1 - smoothing) * own + smoothing * known.mean(axis=-1)
    return -jnp.sum(each * weights) / jnp.maximum(1, jnp.sum(weights != 0))


def first_caption_state(
    params: Named, config: CaptionTrainConfig, steps: int, layout: DeviceLayout
) -> TrainState:
    """Places the state before the first step on devices."""
    frozen = {n for n in params if config.decoder.freeze and n.startswith("decoder.")}

    def first(params: Named) -> TrainState:
        trained = {name: value for name, value in params.items() if name not in frozen}
        return TrainState(
            trained,
            {name: params[name] for name in params if name in frozen},
            jax.tree.map(jnp.copy, trained) if config.ema else {},
            optimizer(config.optimizer, steps).init(trained),
            jnp.zeros((), jnp.int32),
        )

    host = {name: np.array(value) for name, value in params.items()}
    shardings = layout.state(jax.eval_shape(first, host))
    state: TrainState = jax.jit(first, out_shardings=shardings)(host)
    return state


def make_caption_step(recipe: CaptionRecipe) -> Step:
    """Returns the step as a function of the state and this process's rows of a batch.

    It compiles for each length of the captions. The memory of the state passed in is reused.
    """
    config, layout = recipe.config, recipe.layout
    update = optimizer(config.optimizer, recipe.steps)
    rate = schedule(config.optimizer, recipe.steps)
    graph = nnx.graphdef(nnx.eval_shape(lambda: CaptionModel(recipe.model, rngs=nnx.Rngs(0))))
    smoothing = config.label_smoothing if config.objective == LIKELIHOOD else 0.0

    def loss(trained: Named, state: TrainState, batch: Mapping[str, jax.Array]) -> jax.Array:
        model = nnx.merge(graph, unnamed(state.frozen | trained))
        noise_key, dropout_key, _ = step_keys(config.seed, state.step)
        vectors = noisy(batch[VECTORS], config.noise, noise_key)
        dropout = Dropout(config.dropout, dropout_key) if config.dropout else None
        logits = model(vectors, batch[TOKENS], dropout)
        return smoothed_loss(logits, batch[TOKENS], batch[WEIGHTS], smoothing)

    @partial(jax.jit, donate_argnums=0, out_shardings=(None, layout.placement.everywhere))
    def run(state: TrainState, batch: Mapping[str, jax.Array]) -> tuple[TrainState, Metrics]:
        value, slope = jax.value_and_grad(loss)(state.trained, state, batch)
        updates, memory = update.update(slope, state.optimizer, state.trained)
        trained = optax.apply_updates(state.trained, updates)
        average = moved_average(state.average, trained, config.ema, state.step)
        new = TrainState(trained, state.frozen, average, memory, state.step + 1)
        return layout.pinned(new), {
            "loss": value,
            "grad_norm": optax.tree.norm(slope),
            "learning_rate": jnp.asarray(rate(state.step), jnp.float32),
        }

    def step(state: TrainState, arrays: Mapping[str, np.ndarray]) -> tuple[TrainState, Metrics]:
        inputs = {name: arrays[name] for name in (VECTORS, TOKENS, WEIGHTS)}
        new: tuple[TrainState, Metrics] = run(state, place(layout, inputs))
        return new

    return step


def step_keys(seed: int, step: jax.Array) -> jax.Array:
    """The random keys of a step's noise, dropout and sampling."""
    return jax.random.split(jax.random.fold_in(jax.random.key(seed), step), 3)


def noisy(vectors: jax.Array, norm: float, key: Any) -> jax.Array:
    """Adds Gaussian noise of a mean norm to unit vectors, and normalises them again."""
    if not norm:
        return vectors
    noise = jax.random.normal(key, vectors.shape) * norm * vectors.shape[-1] ** -0.5
    moved = vectors + noise
    unit: jax.Array = moved / jnp.linalg.norm(moved, axis=-1, keepdims=True)
    return unit
