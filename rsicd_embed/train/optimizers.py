"""Optimisers and learning-rate schedules over named parameters, built with optax."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import optax

from rsicd_embed.train.config import OptimizerConfig
from rsicd_embed.train.parameters import Named


def schedule(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """Learning rate by step: linear warm-up, then `config.schedule`."""
    peak = config.learning_rate
    warmup = max(1, int(config.warmup * steps)) if config.warmup else 0
    rest = max(1, max(2, steps) - warmup)
    after = {
        "constant": optax.constant_schedule(peak),
        "linear": optax.linear_schedule(peak, peak * config.final, rest),
        "cosine": optax.cosine_decay_schedule(peak, rest, config.final),
    }[config.schedule]
    if not warmup:
        return after
    return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), after], [warmup])


def optimizer(config: OptimizerConfig, steps: int) -> optax.GradientTransformation:
    """Builds the optimiser: clipping, scaling, weight decay, and learning rates by tower.

    Weight decay is always decoupled: learning rate × decay × parameter.
    """
    adam = optax.scale_by_adam(config.beta1, config.beta2, config.eps)
    scaling = {
        "adam": [adam],
        "adamw": [adam],
        "lion": [optax.scale_by_lion(config.beta1, config.beta2)],
        # As in optax.adafactor, which would not scale the decay by the learning rate.
        "adafactor": [
            optax.scale_by_factored_rms(),
            optax.clip_by_block_rms(1.0),
            optax.scale_by_param_block_rms(),
        ],
    }[config.name]
    clipping = [optax.clip_by_global_norm(config.clip_norm)] if config.clip_norm else []
    return optax.chain(
        *clipping,
        *scaling,
        optax.add_decayed_weights(config.weight_decay, mask=decayed),
        optax.stateless(lambda updates, _: _scaled_by_tower(config, updates)),
        optax.scale_by_learning_rate(schedule(config, steps)),
    )


def decayed(params: Mapping[str, Any]) -> dict[str, bool]:
    """Marks the parameters with weight decay: kernels and token embeddings."""
    return {name: name.rpartition(".")[2] in ("kernel", "embedding") for name in params}


def _scaled_by_tower(config: OptimizerConfig, updates: Named) -> Named:
    factors = {"image": config.image_lr, "text": config.text_lr}

    def scaled(name: str, update: jax.Array) -> jax.Array:
        factor = factors.get(name.partition(".")[0], config.head_lr)
        return update if factor == 1 else factor * update

    return {name: scaled(name, update) for name, update in updates.items()}
