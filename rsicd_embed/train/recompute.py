"""Saves memory by computing parts of a step twice: gradient caching and rematerialised blocks.

GradCache (Gao et al. 2021, arXiv:2101.06983) embeds the batch in parts and keeps only the
embeddings, takes the loss's gradient with respect to them, then embeds each part again and
backpropagates through it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from rsicd_embed.embedder.clip.model import Clip
from rsicd_embed.train.distributed import DeviceLayout

Embed = Callable[[Any, Any], Any]
Loss = Callable[[Any, Any], tuple[jax.Array, Any]]

_GATHERED = "gathered"


@dataclass(frozen=True)
class BatchParts:
    """Divides a batch into `count` parts, each with equally many rows from every device."""

    count: int
    layout: DeviceLayout

    def cut(self, tree: Any) -> Any:
        """Reshapes arrays (b, …) to (count, b / count, …); no row leaves its device."""

        def cut(array: jax.Array) -> jax.Array:
            rest, devices = array.shape[1:], self.layout.devices
            parts = array.reshape(devices, self.count, -1, *rest).swapaxes(0, 1)
            return self.layout.split(parts.reshape(self.count, -1, *rest), axis=1)

        return jax.tree.map(cut, tree)

    def joined(self, tree: Any) -> Any:
        """Inverse of `cut`."""

        def join(array: jax.Array) -> jax.Array:
            rest, devices = array.shape[2:], self.layout.devices
            rows = array.reshape(self.count, devices, -1, *rest).swapaxes(0, 1)
            return self.layout.split(rows.reshape(-1, *rest), axis=0)

        return jax.tree.map(join, tree)


def value_and_grad(
    embed: Embed, loss: Loss, params: Any, rows: Any, parts: BatchParts
) -> tuple[tuple[jax.Array, Any], Any]:
    """`jax.value_and_grad(…, has_aux=True)` of `loss(params, embed(params, rows))`, in parts.

    Args:
        embed: maps parameters and b rows to arrays with b rows, each a function of its own row.
        loss: maps parameters and the embeddings of all rows to a scalar and auxiliary data.
        params: differentiated with respect to.
        rows: tree of arrays (b, …).
        parts: how the rows are divided.
    """
    cut = parts.cut(rows)
    embeddings = parts.joined(jax.lax.map(lambda part: embed(params, part), cut))
    value, (direct, by_embedding) = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(
        params, embeddings
    )

    def add(total: Any, part_and_cotangent: tuple[Any, Any]) -> tuple[Any, None]:
        part, cotangent = part_and_cotangent
        _, back = jax.vjp(lambda params: embed(params, part), params)
        (gradient,) = back(cotangent)
        return jax.tree.map(jax.numpy.add, total, gradient), None

    gradients, _ = jax.lax.scan(add, direct, (cut, parts.cut(by_embedding)))
    return value, gradients


class RecomputedBlock(nnx.Module):
    """A block inside `jax.checkpoint`: values that its policy does not save are recomputed."""

    def __init__(self, block: nnx.Module, layout: DeviceLayout, policy: Any) -> None:
        self.block = block
        self.layout = layout
        self.policy = policy

    def __call__(self, x: jax.Array, **options: Any) -> jax.Array:
        """Applies the block."""
        graph, params = nnx.split(self.block)

        def run(params: Any, x: jax.Array) -> jax.Array:
            block: Any = nnx.merge(graph, jax.tree.map(self._gather, params))
            y: jax.Array = block(x, **options)
            return y

        y: jax.Array = jax.checkpoint(run, policy=self.policy)(params, x)
        return y

    def _gather(self, value: jax.Array) -> jax.Array:
        whole: jax.Array = checkpoint_name(  # type: ignore[no-untyped-call]
            self.layout.gathered(value), _GATHERED
        )
        return whole


def recomputed(clip: Clip, remat: str, layout: DeviceLayout) -> Clip:
    """Wraps the model's blocks according to `step.remat`.

    Sharded parameters are gathered block by block, and again in the backward pass, so that no
    device ever has all of them.
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
        return nnx.List([RecomputedBlock(block, layout, policy) for block in blocks])

    for tower in (clip.image, clip.text):
        if hasattr(tower, "blocks"):
            tower.blocks = wrapped(tower.blocks)
        elif hasattr(tower, "layers"):
            tower.layers = wrapped(tower.layers)
        else:
            tower.stages = nnx.List([wrapped(stage) for stage in tower.stages])
    return clip
