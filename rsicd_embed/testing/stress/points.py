"""The steps of a write, so that something can happen before and after each."""

from __future__ import annotations

import importlib
import os
import signal
from collections.abc import Callable
from typing import Any

# Calls by which data, names and commits come to a disk. Those of a library count where it is used.
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

# Told the name of a step that is about to be taken, or "after …" once it was.
Watcher = Callable[[str], None]


def names(scheme: str) -> list[str]:
    """What a watcher may be told of a store of this kind."""
    found = [step.rpartition(":")[2] for step in _steps(scheme)]
    return [*found, *(f"after {name}" for name in found)]


def _steps(scheme: str) -> tuple[str, ...]:
    return STEPS + COMMITS if scheme == "lancedb" else STEPS


def watch(watcher: Watcher, scheme: str) -> None:
    """Calls `watcher` around each step, in this process, as long as it lives."""
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
    """Ends this process, as a crash would, at the `turn`-th moment, from 1 on, of a name.

    Any name counts for "", and for one that does not come up in `_PATIENCE` moments.
    """
    seen = passed = 0

    def watcher(moment: str) -> None:
        nonlocal seen, passed
        passed += 1
        seen += name in ("", moment) or passed > _PATIENCE
        if seen == turn:
            last_words(moment)
            os.kill(os.getpid(), signal.SIGKILL)

    return watcher


class Fault:
    """Raises an OSError instead of the `turn`-th step from 1 on, and perhaps all that follow."""

    def __init__(self) -> None:
        self.turn, self.errno, self.lasting = 0, 0, False
        self.seen = 0

    def arm(self, turn: int, errno: int, *, lasting: bool) -> None:
        """Sets when to fail, counted from now."""
        self.turn, self.errno, self.lasting, self.seen = turn, errno, lasting, 0

    def disarm(self) -> bool:
        """Lets all steps pass; returns whether one has failed."""
        failed = 0 < self.turn <= self.seen
        self.turn = 0
        return failed

    def __call__(self, name: str) -> None:
        """The watcher."""
        if self.turn and not name.startswith("after "):
            self.seen += 1
            if self.seen == self.turn or (self.lasting and self.seen > self.turn):
                raise OSError(self.errno, os.strerror(self.errno))
