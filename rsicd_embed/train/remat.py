"""Blocks whose activations, or gathered parameters, are made again on the way back."""

from __future__ import annotations

from typing import Any

import jax
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from rsicd_embed.embedder.clip.model import Clip
from rsicd_embed.train.mesh import DeviceLayout

_GATHERED = "gathered"


class Remade(nnx.Module):
    """A block within `jax.checkpoint`: what its policy does not save is computed again."""

    def __init__(self, block: nnx.Module, layout: DeviceLayout, policy: Any) -> None:
        self.block = block
        self.layout = layout
        self.policy = policy

    def __call__(self, x: jax.Array, **how: Any) -> jax.Array:
        """What the block gives; `how` is passed on."""
        graph, params = nnx.split(self.block)

        def run(params: Any, x: jax.Array) -> jax.Array:
            whole = jax.tree.map(self._gather, params)
            block: Any = nnx.merge(graph, whole)
            found: jax.Array = block(x, **how)
            return found

        found: jax.Array = jax.checkpoint(run, policy=self.policy)(params, x)
        return found

    def _gather(self, value: jax.Array) -> jax.Array:
        whole: jax.Array = checkpoint_name(  # type: ignore[no-untyped-call]
            self.layout.gathered(value), _GATHERED
        )
        return whole


def remade(clip: Clip, remat: str, layout: DeviceLayout) -> Clip:
    """The model with its blocks made again as `step.remat` says.

    Sharded parameters are gathered block by block, and again on the way back, so that no device
    ever has all of them.
    """
    if remat == "none" and not layout.sharded:
        return clip
    policies = jax.checkpoint_policies
    policy = (
        policies.nothing_saveable
        if remat == "blocks"
        else policies.save_anything_except_these_names(_GATHERED)
    )

    def wrapped(blocks: Any) -> nnx.List[Any]:
        return nnx.List([Remade(block, layout, policy) for block in blocks])

    for tower in (clip.image, clip.text):
        if hasattr(tower, "blocks"):
            tower.blocks = wrapped(tower.blocks)
        elif hasattr(tower, "layers"):
            tower.layers = wrapped(tower.layers)
        else:
            tower.stages = nnx.List([wrapped(stage) for stage in tower.stages])
    return clip
