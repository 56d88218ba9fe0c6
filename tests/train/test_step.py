"""The compiled step: state, metrics, frozen parameters, and memory."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from rsicd_embed.embedder.clip.model import Clip
from rsicd_embed.errors import TrainError
from rsicd_embed.train.input.augment import random_patches
from rsicd_embed.train.objective import Embeddings, Objective
from rsicd_embed.train.optimizers import named, unnamed
from rsicd_embed.train.state import averaged
from rsicd_embed.train.step import MAX_LOGIT_SCALE, gradients, jitted_step, make_step

from .steps import RESNET, SIZE, VIT, batch, begin, config, flat, recipe


def run_steps(of: Any, count: int = 1) -> tuple[Any, list[dict[str, float]]]:
    """State and metrics after some steps on the same images."""
    step, state, seen = make_step(of), begin(of), []
    for _ in range(count):
        state, metrics = step(state, batch(side=of.model.image_size))
        seen.append({name: float(value) for name, value in metrics.items()})
    return state, seen


def gradient(of: Any) -> Any:
    state = begin(of)
    return jax.jit(lambda s, b: gradients(of, s, b))(state, batch(side=of.model.image_size))


def test_parameters_keep_their_names() -> None:
    params = nnx.state(Clip(VIT, rngs=nnx.Rngs(0)))
    values = named(params)
    assert {"image.blocks.1.up.kernel", "text.token_embed.embedding", "logit_scale"} <= set(values)
    assert list(values) == sorted(values)
    back = unnamed(values)
    assert jax.tree.structure(back) == jax.tree.structure(params)
    np.testing.assert_array_equal(flat(back), flat(params))


@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
def test_the_loss_falls(loss: str) -> None:
    of = recipe(config(step__loss=loss, step__bias=-3.0, optimizer__learning_rate=3e-3))
    state, seen = run_steps(of, 8)
    assert seen[-1]["loss"] < seen[0]["loss"] - 0.2
    assert set(seen[0]) >= {"loss", "grad_norm", "logit_scale", "learning_rate"}
    assert seen[0]["learning_rate"] == 0.0  # warm-up
    assert seen[1]["learning_rate"] == pytest.approx(3e-3)
    assert seen[0]["grad_norm"] > 0
    assert seen[0]["logit_scale"] == pytest.approx(1 / 0.07)
    assert int(state.step) == 8
    own = {"loss.bias"} if loss == "sigmoid" else set()
    assert set(state.trained) - set(named(averaged(state, of.layout))) == own
    if own:
        assert seen[0]["bias"] == -3.0 != seen[-1]["bias"]


def test_initial_parameters_are_not_modified() -> None:
    """The memory of states is reused; that of the initial parameters is not."""
    of = recipe(config())
    params = nnx.state(Clip(VIT, rngs=nnx.Rngs(0)))
    before = flat(params).copy()
    state, _ = run_steps(of, 2)
    exported = averaged(state, of.layout)
    values = flat(exported).copy()
    make_step(of)(state, batch())
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state.trained))
    np.testing.assert_array_equal(flat(exported), values)
    np.testing.assert_array_equal(flat(params), before)


@pytest.mark.parametrize(
    ("freeze", "trained"),
    [
        (("image", "text"), {"image_projection", "text_projection", "logit_scale"}),
        (("image:2", "text", "logit_scale"), {"image", "image_projection", "text_projection"}),
    ],
)
def test_frozen_parameters_cost_nothing(freeze: tuple[str, ...], trained: set[str]) -> None:
    of = recipe(config(step__freeze=freeze))
    state = begin(of)
    before = {name: np.array(value) for name, value in (state.trained | state.frozen).items()}
    sizes = {leaf.shape for leaf in jax.tree.leaves(state.optimizer)}
    assert {name.partition(".")[0] for name in state.trained} == trained
    if "image" in freeze:
        assert sizes == {(), (32, 16)}  # the projections' moments and counters
    step = make_step(of)
    for _ in range(2):
        state, _ = step(state, batch())
    for name, value in (state.trained | state.frozen).items():
        assert np.array_equal(before[name], value) == (name in state.frozen), name


def test_no_gradients_for_frozen_parameters() -> None:
    def flops(*freeze: str) -> float:
        of = recipe(config(step__freeze=freeze))
        return float(jitted_step(of).lower(begin(of), batch()).cost_analysis()["flops"])

    assert flops("image", "text") < 0.5 * flops()
    assert flops("image", "text") < flops("image:1", "text:1") < flops()


def test_the_average_follows_and_is_exported() -> None:
    of = recipe(config(step__ema=0.5))
    state, seen = begin(of), []
    step = make_step(of)
    expected = np.array(state.trained["image_projection.kernel"])
    for n in range(4):
        state, _ = step(state, batch(n))
        decay = min(0.5, (1 + n) / (10 + n))
        seen.append(np.array(state.trained["image_projection.kernel"]))
        expected = decay * expected + (1 - decay) * seen[-1]
    out = named(averaged(state, of.layout))["image_projection.kernel"]
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-7)
    assert np.abs(out - seen[-1]).max() > 1e-5


@pytest.mark.parametrize("model", [VIT, RESNET], ids=["vit", "resnet"])
def test_recomputed_blocks_give_the_same_gradient(model: Any) -> None:
    plain = gradient(recipe(config(), model=model))
    again = gradient(recipe(config(step__remat="blocks"), model=model))
    largest = np.abs(flat(plain)).max()
    np.testing.assert_allclose(flat(again), flat(plain), atol=1e-5 * largest)


def test_bfloat16_computes_and_float32_is_stored() -> None:
    of = recipe(config(step__precision="bfloat16"))
    text = jitted_step(of).lower(begin(of), batch()).as_text()
    assert "bf16" in text
    (loss, _), gradient_tree = gradient(of)
    assert {leaf.dtype for leaf in jax.tree.leaves(gradient_tree)} == {jnp.dtype("float32")}
    (exact, _), _ = gradient(recipe(config()))
    assert float(loss) == pytest.approx(float(exact), abs=0.05)
    assert float(loss) != float(exact)


def test_the_logit_scale_is_kept_in_range() -> None:
    of = recipe(
        config(optimizer__learning_rate=100.0, optimizer__warmup=0.0, step__freeze=["image"])
    )
    state, _ = run_steps(of, 1)
    assert float(state.trained["logit_scale"]) in (0.0, pytest.approx(MAX_LOGIT_SCALE))


def test_images_of_the_models_size_are_only_normalised() -> None:
    of = recipe(config())
    run = jax.jit(lambda s, b: gradients(of, s, b)[0][0])
    state, arrays = begin(of), batch(side=SIZE)
    once = float(run(state, arrays))
    assert float(run(dataclasses.replace(state, step=state.step + 1), arrays)) == once
    larger = batch(side=SIZE + 2)
    assert float(run(state, larger)) != float(
        run(dataclasses.replace(state, step=state.step + 1), larger)
    )
    with pytest.raises(TrainError, match="expected images of at least 16 pixels a side, found 8"):
        run(state, batch(side=8))


def test_each_step_drops_other_patches() -> None:
    of = recipe(config(), keep=0.5)
    state, arrays = begin(of), batch(side=SIZE)
    run = jax.jit(lambda s, b: gradients(of, s, b)[0][0])
    later = dataclasses.replace(state, step=state.step + 1)
    assert float(run(state, arrays)) != float(run(later, arrays))


def test_an_objective_may_have_its_own_arrays_and_parameters() -> None:
    def loss(e: Embeddings, arrays: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
        projected = e.images @ e.own["kernel"]
        distance = jnp.mean((projected - arrays["teacher"]) ** 2)
        return distance, {"distance": distance}

    objective = Objective(loss, {"kernel": np.zeros((16, 3), np.float32)})
    of = dataclasses.replace(recipe(config()), objective=objective)
    step, state = make_step(of), begin(of)
    arrays = batch() | {"teacher": np.ones((16, 3), np.float32)}
    for _ in range(3):
        state, metrics = step(state, arrays)
    assert float(metrics["distance"]) < 1
    assert np.abs(state.trained["loss.kernel"]).max() > 0
    assert "loss.kernel" not in named(averaged(state, of.layout))


def test_patches_are_drawn_without_repetition() -> None:
    patches = np.asarray(random_patches(jax.random.key(0), 5, 64, 32))
    assert patches.shape == (5, 32)
    assert all(len(set(row)) == 32 for row in patches)
    assert patches.min() >= 0
    assert patches.max() < 64
