"""Parameters by name: image.blocks.0.up.kernel. A dict sorts, splits and joins as it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import jax
from flax import nnx

from rsicd_embed.embedder.clip.weights import Params

Named: TypeAlias = dict[str, jax.Array]


def named(params: Params) -> Named:
    """Parameters of a `Clip`, in the order of their names."""
    flat = {
        ".".join(map(str, path)): variable.get_value()
        for path, variable in nnx.to_flat_state(params)
    }
    return {name: flat[name] for name in sorted(flat)}


def unnamed(values: Mapping[str, jax.Array]) -> Params:
    """What `named` was given."""
    return nnx.from_flat_state(
        [
            (tuple(int(one) if one.isdigit() else one for one in name.split(".")), nnx.Param(value))
            for name, value in values.items()
        ]
    )
