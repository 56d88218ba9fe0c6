"""Optimisers compared with optax, and learning rates by step and by tower."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rsicd_embed.errors import TrainError
from rsicd_embed.train.config import OptimizerConfig
from rsicd_embed.train.optimizers import decayed, optimizer, schedule

RNG = np.random.default_rng(0)
PARAMS = {
    name: jnp.asarray(RNG.normal(size=shape), jnp.float32)
    for name, shape in {
        "image.blocks.0.up.kernel": (130, 140),  # adafactor factors sides of 128 or more
        "image.blocks.0.up.bias": (140,),
        "image.class_embed": (8,),
        "image.norm_pre.scale": (8,),
        "image.position_embed": (3, 8),
        "image_projection.kernel": (8, 4),
        "logit_scale": (),
        "loss.bias": (),
        "text.token_embed.embedding": (20, 8),
    }.items()
}
GRADIENTS = jax.tree.map(lambda x: jnp.asarray(RNG.normal(size=x.shape), jnp.float32), PARAMS)
DECAYED = {"image.blocks.0.up.kernel", "image_projection.kernel", "text.token_embed.embedding"}


def stepped(transformation: optax.GradientTransformation, count: int = 3) -> dict[str, jax.Array]:
    @jax.jit
    def step(params: Any, memory: Any) -> Any:
        updates, memory = transformation.update(GRADIENTS, memory, params)
        return optax.apply_updates(params, updates), memory

    params, memory = PARAMS, jax.jit(transformation.init)(PARAMS)
    for _ in range(count):
        params, memory = step(params, memory)
    return params


def ours(**settings: Any) -> dict[str, jax.Array]:
    given = {"learning_rate": 0.01, "schedule": "constant", "warmup": 0.0, "clip_norm": 0.0}
    return stepped(optimizer(OptimizerConfig(**{**given, **settings}), 10))


@pytest.mark.parametrize(
    ("settings", "reference"),
    [
        (
            {"name": "adamw", "weight_decay": 0.1},
            optax.adamw(0.01, 0.9, 0.98, 1e-6, weight_decay=0.1, mask=decayed),
        ),
        ({"name": "adam", "weight_decay": 0.0}, optax.adam(0.01, 0.9, 0.98, 1e-6)),
        (
            {"name": "lion", "weight_decay": 0.1, "beta2": 0.99},
            optax.lion(0.01, 0.9, 0.99, weight_decay=0.1, mask=decayed),
        ),
        ({"name": "adafactor", "weight_decay": 0.0}, optax.adafactor(0.01)),
        (
            {"name": "adamw", "clip_norm": 1.0},
            optax.chain(
                optax.clip_by_global_norm(1.0),
                optax.adamw(0.01, 0.9, 0.98, 1e-6, weight_decay=0.1, mask=decayed),
            ),
        ),
    ],
)
def test_optimisers_match_optax(settings: dict[str, Any], reference: Any) -> None:
    result, expected = ours(**settings), stepped(reference)
    for name in PARAMS:
        np.testing.assert_allclose(result[name], expected[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["adamw", "lion", "adafactor"])
def test_decay_applies_to_matrices_only(name: str) -> None:
    assert {name for name, on in decayed(PARAMS).items() if on} == DECAYED
    without, with_decay = ours(name=name, weight_decay=0.0), ours(name=name, weight_decay=0.5)
    for parameter in PARAMS:
        decays = not np.array_equal(without[parameter], with_decay[parameter])
        assert decays == (parameter in DECAYED), parameter


def test_towers_have_their_own_learning_rates() -> None:
    def moved(**settings: Any) -> dict[str, float]:
        after = stepped(
            optimizer(OptimizerConfig(warmup=0.0, weight_decay=0.0, **settings), 10), count=1
        )
        return {name: float(jnp.abs(after[name] - PARAMS[name]).max()) for name in PARAMS}

    plain, scaled = moved(), moved(image_lr=0.1, text_lr=0.5, head_lr=2.0)
    factors = {"image": 0.1, "text": 0.5}
    for name in PARAMS:
        factor = factors.get(name.partition(".")[0], 2.0)
        assert scaled[name] == pytest.approx(factor * plain[name], rel=1e-2), name


def test_adafactor_has_a_small_state() -> None:
    def size(name: str) -> int:
        memory = optimizer(OptimizerConfig(name=name, weight_decay=0.0), 10).init(PARAMS)
        return sum(leaf.size for leaf in jax.tree.leaves(memory))

    assert size("adafactor") < 0.1 * size("adamw")
    assert size("lion") == pytest.approx(size("adamw") / 2, rel=0.01)


def rates(steps: int = 100, **settings: Any) -> list[float]:
    rate = schedule(OptimizerConfig(learning_rate=1.0, **settings), steps)
    return [float(rate(step)) for step in range(steps + 1)]


def test_schedules() -> None:
    for name in ("constant", "linear", "cosine"):
        warm = rates(schedule=name, warmup=0.1)
        np.testing.assert_allclose(warm[:11], np.arange(11) / 10, atol=1e-6)
        assert rates(schedule=name, warmup=0.0)[0] == 1.0
    assert set(rates(schedule="constant", warmup=0.0)) == {1.0}
    linear = rates(schedule="linear", warmup=0.0, final=0.2)
    np.testing.assert_allclose(linear, np.linspace(1, 0.2, 101), atol=1e-5)
    cosine = rates(schedule="cosine", warmup=0.1, final=0.01)
    expected = optax.warmup_cosine_decay_schedule(0.0, 1.0, 10, 100, 0.01)
    np.testing.assert_allclose(cosine, [float(expected(n)) for n in range(101)], atol=1e-6)
    assert rates(steps=1, schedule="cosine")[0] == 0.0


def test_adam_has_no_decay() -> None:
    with pytest.raises(
        TrainError, match=r"expected optimizer.weight_decay to be 0 with adam, found 0\.1"
    ):
        OptimizerConfig(name="adam")
