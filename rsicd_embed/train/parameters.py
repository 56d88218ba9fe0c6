"""Model parameters by name, such as image.blocks.0.up.kernel, and which of them are frozen."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

import jax
from flax import nnx

from rsicd_embed.embedder.clip.weights import Params
from rsicd_embed.errors import TrainError

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
