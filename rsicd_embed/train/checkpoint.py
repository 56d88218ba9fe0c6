"""Orbax checkpoints of a training run, written aside and kept until the next one is whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from rsicd_embed.closing import Closing
from rsicd_embed.errors import TrainError
from rsicd_embed.train.step import State


class Checkpoints(Closing):
    """The last two states of a run, each with the epoch that comes next."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        options = ocp.CheckpointManagerOptions(max_to_keep=2, create=True)
        self._manager = ocp.CheckpointManager(directory.resolve(), options=options)

    def restore(self, like: State) -> tuple[State, int]:
        """The newest state and its next epoch; `like` and 0 where there is none.

        Raises:
            TrainError: what is there belongs to another model or optimiser.
        """
        epoch = self._manager.latest_step()
        if epoch is None:
            return like, 0
        leaves, tree = jax.tree.flatten(like)
        try:
            restored: Any = self._manager.restore(
                epoch, args=ocp.args.StandardRestore(dict(enumerate_leaves(leaves)))
            )
        except (ValueError, KeyError, TypeError) as error:
            raise TrainError(
                f"{self._directory} holds another model's checkpoint "
                f"({str(error).splitlines()[0]}); give another --out"
            ) from error
        return jax.tree.unflatten(
            tree, [restored[key] for key, _ in enumerate_leaves(leaves)]
        ), epoch

    def save(self, state: State, next_epoch: int) -> None:
        """Begins to write; earlier checkpoints go only when this one is whole."""
        leaves = dict(enumerate_leaves(jax.tree.leaves(state)))
        self._manager.save(next_epoch, args=ocp.args.StandardSave(leaves))

    def close(self) -> None:
        """Waits until the last checkpoint is written."""
        self._manager.wait_until_finished()
        self._manager.close()


def enumerate_leaves(leaves: list[Any]) -> list[tuple[str, Any]]:
    """Leaves under names that do not depend on the library's containers."""
    return [(f"{i:05d}", leaf) for i, leaf in enumerate(leaves)]
