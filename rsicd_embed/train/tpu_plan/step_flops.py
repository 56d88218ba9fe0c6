"""A step's arguments as shapes alone, and what a step costs, counted by XLA before it compiles."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from rsicd_embed.embedder.clip.model import Clip
from rsicd_embed.train.input.captioned_images import batch_side
from rsicd_embed.train.mesh import abstract, layout
from rsicd_embed.train.state import TrainState, every_parameter, first_state
from rsicd_embed.train.step import Recipe, embed, jitted_step, rows_of

Shapes = dict[str, jax.ShapeDtypeStruct]


def abstract_arguments(recipe: Recipe) -> tuple[TrainState, Shapes]:
    """What a `jitted_step` can be lowered with: shapes, dtypes, and where they lie.

    Arrays that the objective alone looks at are not there.
    """
    params = nnx.eval_shape(lambda: nnx.state(Clip(recipe.model, rngs=nnx.Rngs(0))))
    named = jax.eval_shape(partial(every_parameter, objective=recipe.objective), params)
    state = jax.eval_shape(partial(first_state, config=recipe.config, steps=recipe.steps), named)
    size, side = (
        recipe.config.batch_size,
        batch_side(recipe.model.image_size, recipe.config.augment),
    )
    batch = {
        "pixels": ((size, side, side, 3), jnp.uint8),
        "tokens": ((size, recipe.model.context_length), jnp.int32),
        "groups": ((size, 2), jnp.int32),
    }
    where = recipe.layout.state(state)
    return (
        jax.tree.map(lambda one, there: abstract(one.shape, one.dtype, there), state, where),
        {name: abstract(*one, recipe.layout.rows(0)) for name, one in batch.items()},
    )


def step_flops(recipe: Recipe) -> float:
    """Floating-point operations of a step over all devices, nothing computed twice.

    What `step.remat` and `step.chunk` compute again is not counted: divided by the seconds of a
    step and the devices' peak this is the model FLOPs utilisation (PaLM, arXiv:2204.02311,
    appendix B). The objective should look at no arrays but the batch's own; others cost little.
    """
    step = dataclasses.replace(recipe.config.step, remat="none", chunk=0)
    plain = _on_one_device(recipe, dataclasses.replace(recipe.config, step=step))
    return _counted(jitted_step(plain).lower(*abstract_arguments(plain)))


def embedding_flops(recipe: Recipe) -> float:
    """Operations of a step with `step.chunk` in the towers: forth, and then forth and back."""
    one = _on_one_device(recipe, recipe.config)
    state, batch = abstract_arguments(one)

    def forth(trained: Any, state: TrainState, batch: Any) -> Any:
        return embed(one, state, trained, rows_of(one, state, batch))

    def back(state: TrainState, batch: Any) -> Any:
        found, back = jax.vjp(lambda trained: forth(trained, state, batch), state.trained)
        return back(found)

    once = jax.jit(forth).lower(state.trained, state, batch)
    return _counted(once) + _counted(jax.jit(back).lower(state, batch))


def _on_one_device(recipe: Recipe, config: Any) -> Recipe:
    """A program for one device is counted as it is; XLA counts for CPUs on every machine."""
    try:
        devices = jax.devices("cpu")[:1]
    except RuntimeError:
        devices = jax.local_devices()[:1]
    return dataclasses.replace(recipe, config=config, layout=layout("data", devices))


def _counted(lowered: jax.stages.Lowered) -> float:
    costs: Any = lowered.cost_analysis()
    return float(costs["flops"])
