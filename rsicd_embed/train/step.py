"""The optimiser and the compiled training step, over every local device."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from rsicd_embed.embedder.clip.config import ClipConfig
from rsicd_embed.embedder.clip.devices import place_on
from rsicd_embed.embedder.clip.model import Clip, normalise
from rsicd_embed.embedder.clip.weights import Params
from rsicd_embed.embedder.preprocess import Preprocessor
from rsicd_embed.train.augment import random_patches, random_view
from rsicd_embed.train.config import TrainConfig
from rsicd_embed.train.data import Batch
from rsicd_embed.train.loss import symmetric_cross_entropy

MAX_LOGIT_SCALE = math.log(100.0)  # as in CLIP, so that training stays stable

Step = Callable[["State", Batch], tuple["State", dict[str, jax.Array]]]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class State:
    """What changes in training: parameters, the optimiser's memory, and the step number."""

    params: Any
    optimizer: Any
    step: jax.Array


def schedule(config: TrainConfig, steps: int) -> optax.Schedule:
    """Learning rate by step: linear warm-up, cosine decay to a hundredth."""
    return optax.warmup_cosine_decay_schedule(
        init_value=0.0,
        peak_value=config.optimizer.learning_rate,
        warmup_steps=max(1, int(config.optimizer.warmup * steps)),
        decay_steps=max(2, steps),
        end_value=config.optimizer.learning_rate / 100,
    )


def optimizer(config: TrainConfig, steps: int) -> optax.GradientTransformation:
    """AdamW with clipped gradients; decay on matrices only."""
    return optax.chain(
        optax.clip_by_global_norm(config.optimizer.clip_norm),
        optax.adamw(
            schedule(config, steps),
            b1=0.9,
            b2=0.98,
            eps=1e-6,
            weight_decay=config.optimizer.weight_decay,
            mask=decayed,
        ),
    )


def decayed(params: Params) -> Params:
    """True for the parameters that weight decay applies to: kernels and token embeddings."""
    flat = [
        (path, variable.replace(path[-1] in ("kernel", "embedding")))
        for path, variable in nnx.to_flat_state(params)
    ]
    return nnx.from_flat_state(flat)


def make_step(run: Any) -> Step:
    """What runs a `jitted_step` on batches, which it places on all local devices."""
    by_batch = place_on(jax.devices()).by_batch

    def step(state: State, batch: Batch) -> tuple[State, dict[str, jax.Array]]:
        arrays = jax.device_put((batch.pixels, batch.tokens, batch.groups), by_batch)
        new: tuple[State, dict[str, jax.Array]] = run(state, *arrays)
        return new

    return step


def jitted_step(
    graph: nnx.GraphDef[Clip],
    model: ClipConfig,
    config: TrainConfig,
    pixels_config: Preprocessor,
    steps: int,
    *,
    keep_patches: float,
) -> Any:
    """Augment, embed, loss over the global batch, update: what is compiled for the devices.

    It takes a State, on every device, and the arrays of a Batch, split over the devices, and gives
    the next State and the metrics. `lower` takes their shapes alone.
    """
    update = optimizer(config, steps)
    root = jax.random.key(config.seed)
    keep = max(1, round(keep_patches * model.patches))

    def loss_of(params: Any, pixels: Any, kept: Any, tokens: Any, groups: Any) -> jax.Array:
        clip = nnx.merge(graph, params)
        return symmetric_cross_entropy(
            clip.encode_image(pixels, kept),
            clip.encode_text(tokens),
            jnp.exp(clip.logit_scale[...]),
            groups,
        )

    @jax.jit
    def run(state: State, pixels: Any, tokens: Any, groups: Any) -> tuple[State, dict[str, Any]]:
        view_key, patch_key = jax.random.split(jax.random.fold_in(root, state.step))
        views = normalise(random_view(view_key, pixels, model.image_size), pixels_config)
        kept = None
        if keep < model.patches:
            kept = random_patches(patch_key, len(pixels), model.patches, keep)
        loss, gradients = jax.value_and_grad(loss_of)(state.params, views, kept, tokens, groups)
        updates, memory = update.update(gradients, state.optimizer, state.params)
        params = _clamp_logit_scale(optax.apply_updates(state.params, updates))
        return State(params, memory, state.step + 1), {"loss": loss}

    return run


def first_state(params: Any, config: TrainConfig, steps: int) -> State:
    """Before the first step."""
    return State(params, optimizer(config, steps).init(params), jnp.zeros((), jnp.int32))


def initial_state(params: Any, config: TrainConfig, steps: int) -> State:
    """Before the first step, replicated on every local device."""
    everywhere = place_on(jax.devices()).everywhere
    placed: State = jax.device_put(first_state(params, config, steps), everywhere)
    return placed


def _clamp_logit_scale(params: Any) -> Any:
    scale = params["logit_scale"]
    clamped = scale.replace(jnp.clip(scale[...], 0.0, MAX_LOGIT_SCALE))
    return nnx.from_flat_state(
        [
            (path, clamped if path == ("logit_scale",) else variable)
            for path, variable in nnx.to_flat_state(params)
        ]
    )
