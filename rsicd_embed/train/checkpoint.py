"""Orbax checkpoints of a run, written in the background and verified when they are read."""

from __future__ import annotations

import os
import re
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from rsicd_embed.errors import TrainError, first_line
from rsicd_embed.files import Closing, storage_errors
from rsicd_embed.train.distributed import abstract, any_process
from rsicd_embed.train.state import TrainState

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

_SUMS = "checksums"
_ABANDONED = ("Event loop is closed", "Encountered error while reading array index")


class Checkpoints(Closing):
    """The last states of a run, by the number of steps done.

    With several processes all of them make the same calls; each writes its own part.
    """

    def __init__(self, directory: Path, *, keep: int = 2) -> None:
        """Opens or creates a folder of checkpoints that keeps the last `keep`."""
        self._directory = directory
        self._damaged: list[int] = []
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True)
        with _writing(directory):
            self._manager = ocp.CheckpointManager(
                directory.resolve(), options=options, item_handlers=ocp.StandardCheckpointHandler()
            )

    def restore(self, like: TrainState) -> tuple[TrainState, int]:
        """Returns the newest readable state and its step, or `like` and 0 if there is none.

        Damaged checkpoints are skipped with a warning. Arrays are placed like those of `like`,
        regardless of the devices they were saved from.
        """
        steps = sorted(self._manager.all_steps(), reverse=True)
        errors: list[TrainError] = []
        for step in steps:
            try:
                state = self._read(step, like)
            except TrainError as error:
                errors.append(error)
                continue
            for problem in errors:
                warnings.warn(f"{problem}; resuming from that of step {step}", stacklevel=2)
            self._damaged = steps[: len(errors)]
            return state, step
        if errors:
            raise errors[0]
        return like, 0

    def save(self, state: TrainState, step: int) -> None:
        """Starts writing a checkpoint; earlier ones are deleted only when it is complete.

        Returns once the state is copied, so that the next step may reuse its memory.
        """
        tree = named_leaves(state)
        with _writing(self._directory):
            for damaged in self._damaged:  # they would be kept as the newest
                self._manager.delete(damaged)
            self._damaged = []
            self._manager.save(
                step, args=ocp.args.StandardSave(tree | {_SUMS: _checksums(tree)}), force=True
            )

    def close(self) -> None:
        """Waits until the last checkpoint is written."""
        with _writing(self._directory):
            self._manager.wait_until_finished()
        self._manager.close()

    def _read(self, step: int, like: TrainState) -> TrainState:
        expected = named_leaves(like)
        item = {
            name: abstract(leaf.shape, leaf.dtype, leaf.sharding) for name, leaf in expected.items()
        }
        item[_SUMS] = abstract((len(expected),), jnp.uint32, like.step.sharding)  # replicated
        leaves: dict[str, Any] = {}
        reason = ""
        try:
            reason = self._mismatch(step, expected)
            if not reason:
                leaves = self._manager.restore(step, args=ocp.args.StandardRestore(item))
        except Exception as error:  # damaged bytes raise all kinds of errors
            ignore_abandoned_tasks()
            reason = f"it is damaged: {first_line(error):.200}"
        if not any_process(bool(reason)):  # processes must agree before they compute together
            sums = leaves.pop(_SUMS)
            if not bool(jnp.any(sums != _checksums(leaves))):
                state: TrainState = jax.tree.unflatten(
                    jax.tree.structure(like), [leaves[name] for name in expected]
                )
                return state
            reason = "it is damaged: its checksums do not match"
        raise TrainError(
            f"the checkpoint of step {step} in {self._directory} cannot be resumed from: "
            f"{reason or 'another process cannot read it'}"
        )

    def _mismatch(self, step: int, expected: Mapping[str, Any]) -> str:
        """Why a checkpoint cannot belong to this run; empty if it can."""
        metadata: Any = self._manager.item_metadata(step)
        stored = {name: array.shape for name, array in metadata.items() if name != _SUMS}
        differences = [f"{name} is missing" for name in expected if name not in stored]
        differences += [f"{name} is unknown" for name in stored if name not in expected]
        differences += [
            f"{name} has shape {stored[name]} instead of {leaf.shape}"
            for name, leaf in expected.items()
            if name in stored and stored[name] != leaf.shape
        ]
        if not differences:
            return ""
        return (
            "it belongs to another model or optimiser "
            f"({differences[0]}; {len(differences)} differences); give another --out"
        )


def ignore_abandoned_tasks() -> None:
    """Silences the tasks that Orbax abandons when a checkpoint cannot be read or written.

    Each would print a traceback when it ends or is collected, which may be minutes later. The
    first error has reached the caller by then.
    """
    previous = sys.unraisablehook
    if getattr(previous, "ignores_abandoned_tasks", False):
        return

    def hook(error: UnraisableHookArgs) -> None:
        if not str(error.exc_value).startswith(_ABANDONED):
            previous(error)

    hook.ignores_abandoned_tasks = True  # type: ignore[attr-defined]
    sys.unraisablehook = hook


def has_checkpoints(directory: Path) -> bool:
    """Whether a folder has any checkpoint, complete or not."""
    return directory.is_dir() and any(path.name.isdigit() for path in directory.iterdir())


@contextmanager
def _writing(directory: Path) -> Iterator[None]:
    """Raises disk errors as one line; those of the writing thread surface at the next call."""
    with storage_errors(f"cannot write a checkpoint to {directory}"):
        try:
            yield
        except ValueError as error:  # tensorstore wraps disk errors
            code = re.search(r"os_error_code='(\d+)'", str(error))
            number = int(code[1]) if code else 0
            reason = os.strerror(number) if number else first_line(error)
            raise OSError(number, reason) from error


def named_leaves(state: Any) -> dict[str, Any]:
    """Leaves of a state by path, such as trained/image.blocks.0.up.kernel or optimizer/1/nu/…."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(state)
    }


@jax.jit
def _checksums(tree: Mapping[str, jax.Array]) -> jax.Array:
    """Checksums of the arrays in name order, uint32 (leaves,); the same on any devices."""
    return jnp.stack([_checksum(tree[name]) for name in sorted(tree)])


def _checksum(array: jax.Array) -> jax.Array:
    """Sum of the 32-bit words, each times a distinct odd number, modulo 2³²."""
    words = jax.lax.bitcast_convert_type(array, jnp.uint32).reshape(-1)
    index = jax.lax.iota(jnp.uint32, len(words))
    return jnp.sum(words * (2 * index + 1), dtype=jnp.uint32)
