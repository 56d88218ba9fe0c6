"""Gradients of a batch embedded in parts: equal to those of the whole, in less memory."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest

from rsicd_embed.train.step import gradients, jitted_step
from rsicd_embed.train.tpu_plan.step_costs import abstract_arguments

from .steps import RESNET, VIT, batch, begin, config, flat, recipe


def loss_and_gradient(of: Any, views: bool = False) -> Any:
    """Loss and gradient of a batch; `views` draws random views of its images."""
    state, arrays = begin(of), batch(side=of.model.image_size + 2 * views)
    return jax.jit(lambda s, b: gradients(of, s, b))(state, arrays)


def assert_close(first: Any, second: Any) -> None:
    """Compares losses to 1e-5, and gradients to 1e-5 of their largest value."""
    assert float(first[0][0]) == pytest.approx(float(second[0][0]), abs=1e-5)
    largest = np.abs(flat(second[1])).max()
    np.testing.assert_allclose(flat(first[1]), flat(second[1]), atol=1e-5 * largest)


@pytest.mark.parametrize(
    ("loss", "views"), [pytest.param("softmax", True, marks=pytest.mark.slow), ("sigmoid", False)]
)
def test_parts_give_the_gradient_of_the_whole(loss: str, views: bool) -> None:
    """Dropped patches too, and random views."""
    whole = loss_and_gradient(recipe(config(step__loss=loss), keep=0.5), views)
    parts = loss_and_gradient(recipe(config(step__loss=loss, step__chunk=4), keep=0.5), views)
    assert_close(parts, whole)


@pytest.mark.parametrize(
    ("model", "more"),
    [(VIT, {"step__remat": "blocks", "step__freeze": ["image:1", "text"]}), (RESNET, {})],
)
def test_parts_with_other_models_and_settings(model: Any, more: dict[str, Any]) -> None:
    whole = loss_and_gradient(recipe(config(**more), model=model))
    parts = loss_and_gradient(recipe(config(step__chunk=4, **more), model=model))
    assert_close(parts, whole)


@pytest.mark.slow
def test_parts_need_less_memory() -> None:
    def temporary(**settings: Any) -> int:
        of = recipe(config(batch_size=256, **settings))
        compiled = jitted_step(of).lower(*abstract_arguments(of)).compile()
        return int(compiled.memory_analysis().temp_size_in_bytes)

    assert temporary(step__chunk=16) < 0.4 * temporary()
