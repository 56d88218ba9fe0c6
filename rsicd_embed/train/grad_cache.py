"""The gradient of a whole batch's loss, with the activations of a part of it in memory.

GradCache (Gao et al. 2021, arXiv:2101.06983): embed all parts and keep the embeddings alone; take
the loss's gradient with respect to them; then embed each part again, and go back through it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax

from rsicd_embed.train.mesh import DeviceLayout

Embed = Callable[[Any, Any], Any]
Loss = Callable[[Any, Any], tuple[jax.Array, Any]]


@dataclass(frozen=True)
class BatchParts:
    """How rows are cut: into `count` parts, each with as many rows from every device."""

    count: int
    layout: DeviceLayout

    def cut(self, tree: Any) -> Any:
        """(b, …) → (count, b / count, …); no row leaves its device."""

        def one(array: jax.Array) -> jax.Array:
            rest, devices = array.shape[1:], self.layout.devices
            parts = array.reshape(devices, self.count, -1, *rest).swapaxes(0, 1)
            parts = parts.reshape(self.count, -1, *rest)
            return self.layout.split(parts, axis=1)

        return jax.tree.map(one, tree)

    def joined(self, tree: Any) -> Any:
        """What `cut` was given."""

        def one(array: jax.Array) -> jax.Array:
            rest, devices = array.shape[2:], self.layout.devices
            rows = array.reshape(self.count, devices, -1, *rest).swapaxes(0, 1)
            return self.layout.split(rows.reshape(-1, *rest), axis=0)

        return jax.tree.map(one, tree)


def value_and_grad(
    embed: Embed, loss: Loss, params: Any, rows: Any, parts: BatchParts
) -> tuple[tuple[jax.Array, Any], Any]:
    """What `jax.value_and_grad` gives of `loss(params, embed(params, rows))` with `has_aux`.

    Args:
        embed: parameters and some rows → arrays with as many rows, each a function of its own row.
        loss: parameters and the embeddings of all rows → a scalar, and what comes with it.
        params: what is differentiated with respect to.
        rows: a tree of arrays (b, …).
        parts: how they are cut.
    """
    cut = parts.cut(rows)
    embeddings = parts.joined(jax.lax.map(lambda part: embed(params, part), cut))
    value, (direct, by_embedding) = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(
        params, embeddings
    )

    def add(total: Any, one: tuple[Any, Any]) -> tuple[Any, None]:
        part, cotangent = one
        _, back = jax.vjp(lambda params: embed(params, part), params)
        (gradient,) = back(cotangent)
        return jax.tree.map(jax.numpy.add, total, gradient), None

    gradients, _ = jax.lax.scan(add, direct, (cut, parts.cut(by_embedding)))
    return value, gradients
