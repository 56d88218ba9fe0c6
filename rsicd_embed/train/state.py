"""The state of a run between two steps: everything that a checkpoint stores."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rsicd_embed.embedder.clip.weights import Params
from rsicd_embed.errors import TrainError
from rsicd_embed.train.config import TrainConfig
from rsicd_embed.train.distributed import DeviceLayout
from rsicd_embed.train.objective import Objective
from rsicd_embed.train.optimizers import Named, frozen, named, optimizer, unnamed

_LARGEST = float(np.finfo(np.float16).max)
_OWN = "loss."  # prefix of the names of an objective's own parameters


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """A run between two steps.

    Attributes:
        trained: parameters that are updated, including the objective's own.
        frozen: all other parameters, which have no optimiser state.
        average: moving average of `trained`; empty without `step.ema`.
        optimizer: the optimiser's state.
        step: int32 (), number of steps done.
    """

    trained: Named
    frozen: Named
    average: Named
    optimizer: Any
    step: jax.Array


def first_state(params: Named, config: TrainConfig, steps: int) -> TrainState:
    """The state before the first step; a pure function, so that `jax.eval_shape` applies."""
    names = frozen(split_own(params)[0], config.step.freeze)
    trained = {name: value for name, value in params.items() if name not in names}
    return TrainState(
        trained,
        {name: params[name] for name in params if name in names},
        jax.tree.map(jnp.copy, trained) if config.step.ema else {},
        optimizer(config.optimizer, steps).init(trained),
        jnp.zeros((), jnp.int32),
    )


def every_parameter(params: Params, objective: Objective) -> Named:
    """Joins the parameters of the model and of the objective."""
    return named(params) | {f"{_OWN}{name}": jnp.asarray(v) for name, v in objective.own.items()}


def split_own(params: Named) -> tuple[Named, Named]:
    """Inverse of `every_parameter`: returns the parameters of the model, and of the objective."""
    model = {name: value for name, value in params.items() if not name.startswith(_OWN)}
    own = {name.removeprefix(_OWN): params[name] for name in params if name.startswith(_OWN)}
    return model, own


def initial_state(
    params: Params, config: TrainConfig, steps: int, objective: Objective, layout: DeviceLayout
) -> TrainState:
    """Places the state before the first step on devices; `params` are copied.

    Every process must call it, with the same parameters.
    """
    host = {name: np.array(array) for name, array in every_parameter(params, objective).items()}
    first = partial(first_state, config=config, steps=steps)
    shardings = layout.state(jax.eval_shape(first, host))
    placed = {name: _placed(array, layout) for name, array in host.items()}
    state: TrainState = jax.jit(first, out_shardings=shardings)(placed)
    return state


def averaged(state: TrainState, layout: DeviceLayout) -> Params:
    """Copies the parameters to evaluate and export to the host: the average if there is one.

    Every process must call it.
    """
    model, _ = split_own(state.frozen | state.trained | state.average)
    whole = jax.jit(lambda tree: tree, out_shardings=layout.placement.everywhere)(model)
    # Copies, since the next step writes over the state's arrays.
    return unnamed({name: np.array(value) for name, value in whole.items()})  # type: ignore[misc]


def require_sound(state: TrainState, done: int) -> None:
    """Raises if a parameter is not finite in float16, the dtype of exported models.

    Every process must call it. No healthy CLIP comes near float16's bounds.
    """
    if not bool(_sound(state.trained | state.average)):
        raise diverged(f"a parameter is not finite, or exceeds {_LARGEST:,.0f}", done)


def diverged(problem: str, step: int) -> TrainError:
    """The error that stops a run whose numbers are no longer sound."""
    return TrainError(
        f"{problem} at step {step}; earlier checkpoints and the best model so far are kept: "
        "give a lower --learning-rate and another --out"
    )


@jax.jit
def _sound(params: Named) -> jax.Array:
    # Comparisons with NaN are false.
    return jnp.all(jnp.stack([jnp.all(jnp.abs(array) <= _LARGEST) for array in params.values()]))


def _placed(value: np.ndarray, layout: DeviceLayout) -> jax.Array:
    sharding = layout.parameter(value.shape)
    return jax.make_array_from_callback(value.shape, sharding, lambda index: value[index])
