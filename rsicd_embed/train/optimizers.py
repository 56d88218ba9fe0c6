"""Parameters by name, such as image.blocks.0.up.kernel: their optimiser, and the frozen ones."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import jax
import optax
from flax import nnx

from rsicd_embed.embedder.clip.weights import Params
from rsicd_embed.errors import TrainError
from rsicd_embed.train.config import OptimizerConfig


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


Named: TypeAlias = dict[str, jax.Array]

_BLOCK = re.compile(r"\w+\.(?:blocks|layers|stages)\.(\d+)\.")


def named(params: Params) -> Named:
    """Parameters of a `Clip`, sorted by name."""
    flat = {
        ".".join(map(str, path)): variable.get_value()
        for path, variable in nnx.to_flat_state(params)
    }
    return {name: flat[name] for name in sorted(flat)}


def unnamed(values: Mapping[str, jax.Array]) -> Params:
    """Inverse of `named`."""
    return nnx.from_flat_state(
        [
            (tuple(int(k) if k.isdigit() else k for k in name.split(".")), nnx.Param(value))
            for name, value in values.items()
        ]
    )


def frozen(names: Iterable[str], freeze: Sequence[str]) -> frozenset[str]:
    """Returns the names of the parameters that `step.freeze` excludes from training."""
    every = tuple(names)
    chosen: set[str] = set()
    for text in freeze:
        part, _, count = text.partition(":")
        members = [name for name in every if name.partition(".")[0] == part]
        if count:
            depth = max((_block(n) for n in members if _block(n) < math.inf), default=-1) + 1
            if int(count) > depth:
                raise TrainError(
                    f"expected at most {depth} blocks or stages of the {part} tower to freeze, "
                    f"found {count}"
                )
            members = [name for name in members if _block(name) < int(count)]
        chosen.update(members)
    if len(chosen) == len(every):
        raise TrainError(f"expected something left to train, found all of it in freeze {freeze}")
    return frozenset(chosen)


def _block(name: str) -> float:
    """Index of the block a tower's parameter is in; -1 before the blocks, infinity after them."""
    match = _BLOCK.match(name)
    if match:
        return int(match[1])
    return math.inf if name.split(".")[1] == "norm_post" else -1
