"""What changes in training, and what never does: all that a checkpoint holds."""

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
from rsicd_embed.train.freezing import frozen
from rsicd_embed.train.mesh import DeviceLayout
from rsicd_embed.train.objective import Objective
from rsicd_embed.train.optimizers import optimizer
from rsicd_embed.train.parameters import Named, named, unnamed

_MOST = float(np.finfo(np.float16).max)
_OWN = "loss."  # what the names of an objective's own parameters begin with


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """A run between two steps.

    Attributes:
        trained: parameters that are updated, the objective's own among them.
        frozen: the other parameters, for which there is no memory of the optimiser.
        average: of `trained`, with `step.ema`; else empty.
        optimizer: the optimiser's memory.
        step: int32 (), number of steps done.
    """

    trained: Named
    frozen: Named
    average: Named
    optimizer: Any
    step: jax.Array


def first_state(params: Named, config: TrainConfig, steps: int) -> TrainState:
    """Before the first step. A pure function: of arrays, or of their shapes by `jax.eval_shape`.

    Args:
        params: of the model, and an objective's own.
        config: of the run.
        steps: of the whole run.

    Raises:
        TrainError: `step.freeze` names what is not there, or leaves nothing to train.
    """
    kept = frozen(split_own(params)[0], config.step.freeze)
    trained = {name: value for name, value in params.items() if name not in kept}
    return TrainState(
        trained,
        {name: params[name] for name in params if name in kept},
        jax.tree.map(jnp.copy, trained) if config.step.ema else {},
        optimizer(config.optimizer, steps).init(trained),
        jnp.zeros((), jnp.int32),
    )


def every_parameter(params: Params, objective: Objective) -> Named:
    """Parameters of the model, and the objective's own."""
    return named(params) | {f"{_OWN}{name}": jnp.asarray(v) for name, v in objective.own.items()}


def split_own(params: Named) -> tuple[Named, Named]:
    """What `every_parameter` joined: the model's, and the objective's own by its own names."""
    model = {name: value for name, value in params.items() if not name.startswith(_OWN)}
    own = {name.removeprefix(_OWN): params[name] for name in params if name.startswith(_OWN)}
    return model, own


def initial_state(
    params: Params, config: TrainConfig, steps: int, objective: Objective, layout: DeviceLayout
) -> TrainState:
    """Before the first step, on devices; `params` stay as they are.

    Every process must call it, with the same parameters.

    Raises:
        TrainError: see `first_state`.
    """
    host = {name: np.array(one) for name, one in every_parameter(params, objective).items()}
    first = partial(first_state, config=config, steps=steps)
    where = layout.state(jax.eval_shape(first, host))
    placed = {name: _placed(one, layout) for name, one in host.items()}
    state: TrainState = jax.jit(first, out_shardings=where)(placed)
    return state


def averaged(state: TrainState, layout: DeviceLayout) -> Params:
    """The parameters to evaluate and export: copies on the host, the average where there is one.

    Every process must call it.
    """
    model, _ = split_own(state.frozen | state.trained | state.average)
    whole = jax.jit(lambda tree: tree, out_shardings=layout.placement.everywhere)(model)
    # Copies, since the next step writes over the state's arrays.
    return unnamed({name: np.array(value) for name, value in whole.items()})  # type: ignore[misc]


def require_sound(state: TrainState, done: int) -> None:
    """Refuses parameters that float16 has no finite number for; every process must call it.

    Models are exported in float16, and no CLIP comes near its bounds.

    Raises:
        TrainError: saying after which step.
    """
    if not bool(_sound(state.trained | state.average)):
        raise diverged(f"a parameter is not finite, or beyond {_MOST:,.0f}", done)


def diverged(what: str, step: int) -> TrainError:
    """What a run that has gone wrong is stopped with."""
    return TrainError(
        f"{what} at step {step}; what was checkpointed before it, and the best model so far, are "
        "kept: give a lower --learning-rate, and another --out"
    )


@jax.jit
def _sound(params: Named) -> jax.Array:
    # A NaN is neither less nor more.
    return jnp.all(jnp.stack([jnp.all(jnp.abs(one) <= _MOST) for one in params.values()]))


def _placed(value: np.ndarray, layout: DeviceLayout) -> jax.Array:
    where = layout.parameter(value.shape)
    return jax.make_array_from_callback(value.shape, where, lambda index: value[index])
