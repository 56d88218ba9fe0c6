"""Hooks before and after each step of a write."""

from __future__ import annotations

import importlib
import os
import signal
from collections.abc import Callable
from typing import Any

# Calls that write data, names and commits to disk; COMMITS are those of LanceDB.
STEPS = (
    "os:fsync",
    "os:replace",
    "os:link",
    "os:unlink",
    "pathlib:Path.unlink",
    "pathlib:Path.write_bytes",
    "pathlib:Path.mkdir",
    "pyarrow.ipc:RecordBatchFileWriter.write_batch",
    "rsicd_embed.stores.graph:Graph.save",
)
COMMITS = (
    "lancedb.db:LanceDBConnection.create_table",
    "lancedb.table:LanceTable.add_columns",
    "lancedb.merge:LanceMergeInsertBuilder.execute",
    "lancedb.table:LanceTable.delete",
    "lancedb.table:LanceTable.optimize",
    "lancedb.table:LanceTable.create_index",
    "lancedb.table:LanceTable.update_field_metadata",
    "lancedb.table:LanceTable.restore",
    "lancedb.table:Tags.create",
    "lancedb.table:Tags.delete",
)

_PATIENCE = 1000

# Called with the name of a step before it, and with "after …" after it.
Watcher = Callable[[str], None]


def names(scheme: str) -> list[str]:
    """The names that a watcher may be called with for this kind of store."""
    steps = [step.rpartition(":")[2] for step in _steps(scheme)]
    return [*steps, *(f"after {step}" for step in steps)]


def _steps(scheme: str) -> tuple[str, ...]:
    return STEPS + COMMITS if scheme == "lancedb" else STEPS


def watch(watcher: Watcher, scheme: str) -> None:
    """Calls `watcher` around each step of this process from now on."""
    for step in _steps(scheme):
        module, _, path = step.partition(":")
        owner: Any = importlib.import_module(module)
        *parents, name = path.split(".")
        for parent in parents:
            owner = getattr(owner, parent)
        setattr(owner, name, _watched(getattr(owner, name), path, watcher))


def _watched(real: Callable[..., Any], name: str, watcher: Watcher) -> Callable[..., Any]:
    def call(*arguments: Any, **others: Any) -> Any:
        watcher(name)
        result = real(*arguments, **others)
        watcher(f"after {name}")
        return result

    return call


def killer(name: str, turn: int, last_words: Callable[[str], None]) -> Watcher:
    """Kills this process at the `turn`-th call (from 1) with a name.

    All names count for "", and also after `_PATIENCE` calls.
    """
    matches = calls = 0

    def watcher(moment: str) -> None:
        nonlocal matches, calls
        calls += 1
        matches += name in ("", moment) or calls > _PATIENCE
        if matches == turn:
            last_words(moment)
            os.kill(os.getpid(), signal.SIGKILL)

    return watcher


class Fault:
    """Raises an OSError instead of the `turn`-th step (from 1), and perhaps of all later ones."""

    def __init__(self) -> None:
        self.turn, self.errno, self.lasting = 0, 0, False
        self.seen = 0

    def arm(self, turn: int, errno: int, *, lasting: bool) -> None:
        """Sets the step that fails, counted from now."""
        self.turn, self.errno, self.lasting, self.seen = turn, errno, lasting, 0

    def disarm(self) -> bool:
        """Lets all steps succeed; returns whether one failed."""
        failed = 0 < self.turn <= self.seen
        self.turn = 0
        return failed

    def __call__(self, name: str) -> None:
        """Acts as the watcher."""
        if self.turn and not name.startswith("after "):
            self.seen += 1
            if self.seen == self.turn or (self.lasting and self.seen > self.turn):
                raise OSError(self.errno, os.strerror(self.errno))
