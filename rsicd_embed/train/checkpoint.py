"""Orbax checkpoints of a run: written aside while training goes on, and checked when read."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from rsicd_embed.errors import TrainError, first_line
from rsicd_embed.files import Closing, storage_errors
from rsicd_embed.train.distributed import any_process
from rsicd_embed.train.mesh import abstract
from rsicd_embed.train.state import TrainState

_SUMS = "checksums"


class Checkpoints(Closing):
    """The last states of a run, each under the number of steps done.

    With several processes every one of them makes the same calls; each writes its own part.
    """

    def __init__(self, directory: Path, *, keep: int = 2) -> None:
        """Opens, or makes, a folder of checkpoints; the last `keep` are kept."""
        self._directory = directory
        self._passed_over: list[int] = []
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True)
        with _writing(directory):
            self._manager = ocp.CheckpointManager(
                directory.resolve(), options=options, item_handlers=ocp.StandardCheckpointHandler()
            )

    def restore(self, like: TrainState) -> tuple[TrainState, int]:
        """The newest state that can be read, and its step; `like` and 0 where there is none.

        What is damaged is passed over, with a warning. Arrays go where those of `like` are, on
        however many devices they were before; a `jax.eval_shape` with shardings will do.

        Raises:
            TrainError: there are some, but none can be read: the newest is of another model or
                optimiser, or damaged.
        """
        steps = sorted(self._manager.all_steps(), reverse=True)
        errors: list[TrainError] = []
        for step in steps:
            try:
                found = self._read(step, like)
            except TrainError as error:
                errors.append(error)
                continue
            for one in errors:
                warnings.warn(f"{one}; that of step {step} is taken", stacklevel=2)
            self._passed_over = steps[: len(errors)]
            return found, step
        if errors:
            raise errors[0]
        return like, 0

    def save(self, state: TrainState, step: int) -> None:
        """Begins to write; earlier checkpoints go only when this one is whole.

        It returns once the state is copied: the next step may write over it.

        Raises:
            StoreError: the disk refused this checkpoint, or the one before it.
        """
        tree = named_leaves(state)
        with _writing(self._directory):
            for damaged in self._passed_over:  # they would count among the newest
                self._manager.delete(damaged)
            self._passed_over = []
            self._manager.save(
                step, args=ocp.args.StandardSave(tree | {_SUMS: _checksums(tree)}), force=True
            )

    def close(self) -> None:
        """Waits until the last checkpoint is written."""
        with _writing(self._directory):
            self._manager.wait_until_finished()
        self._manager.close()

    def _read(self, step: int, like: TrainState) -> TrainState:
        wanted = named_leaves(like)
        item = {
            name: abstract(leaf.shape, leaf.dtype, leaf.sharding) for name, leaf in wanted.items()
        }
        item[_SUMS] = abstract((len(wanted),), jnp.uint32, like.step.sharding)  # on every device
        found: dict[str, Any] = {}
        reason = ""
        try:
            reason = self._mismatch(step, wanted)
            if not reason:
                found = self._manager.restore(step, args=ocp.args.StandardRestore(item))
        except Exception as error:  # whatever a library makes of damaged bytes
            reason = f"it is damaged: {first_line(error):.200}"
        if not any_process(bool(reason)):  # else some would wait here for the others
            expected = found.pop(_SUMS)
            if not bool(jnp.any(expected != _checksums(found))):
                leaves = [found[name] for name in wanted]
                state: TrainState = jax.tree.unflatten(jax.tree.structure(like), leaves)
                return state
            reason = "it is damaged: its numbers are not what was written"
        raise TrainError(
            f"the checkpoint of step {step} in {self._directory} cannot be taken up: "
            f"{reason or 'another process cannot read it'}"
        )

    def _mismatch(self, step: int, wanted: Mapping[str, Any]) -> str:
        """Why it cannot belong to this run; empty where it does."""
        metadata: Any = self._manager.item_metadata(step)
        there = {name: one.shape for name, one in metadata.items() if name != _SUMS}
        differences = [f"{name} is missing" for name in wanted if name not in there]
        differences += [f"{name} is unknown" for name in there if name not in wanted]
        differences += [
            f"{name} has shape {there[name]} instead of {leaf.shape}"
            for name, leaf in wanted.items()
            if name in there and there[name] != leaf.shape
        ]
        if not differences:
            return ""
        return (
            "it is of another model or optimiser "
            f"({differences[0]}; {len(differences)} differences); give another --out"
        )


def saved(directory: Path) -> bool:
    """Whether there is any checkpoint in a folder, or any was."""
    return directory.is_dir() and any(path.name.isdigit() for path in directory.iterdir())


@contextmanager
def _writing(directory: Path) -> Iterator[None]:
    """Errors of the disk in one line; those of the thread that writes come at the next call."""
    with storage_errors(f"cannot write a checkpoint to {directory}"):
        try:
            yield
        except ValueError as error:  # what tensorstore makes of them
            code = re.search(r"os_error_code='(\d+)'", str(error))
            number = int(code[1]) if code else 0
            reason = os.strerror(number) if number else first_line(error)
            raise OSError(number, reason) from error


def named_leaves(state: Any) -> dict[str, Any]:
    """Leaves by their path: trained/image.blocks.0.up.kernel, optimizer/1/nu/… ."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(state)
    }


@jax.jit
def _checksums(tree: Mapping[str, jax.Array]) -> jax.Array:
    """uint32 (leaves,): of each array's bits, in the order of names; alike on any devices."""
    return jnp.stack([_checksum(tree[name]) for name in sorted(tree)])


def _checksum(array: jax.Array) -> jax.Array:
    """Sum of the words, each times an odd number of its own, modulo 2³²."""
    words = jax.lax.bitcast_convert_type(array, jnp.uint32).reshape(-1)
    place = jax.lax.iota(jnp.uint32, len(words))
    return jnp.sum(words * (2 * place + 1), dtype=jnp.uint32)
