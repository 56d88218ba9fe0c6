"""Killed writers, and the stores that they leave behind."""

from __future__ import annotations

import random
import signal
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rsicd_embed.files import TEMPORARY
from rsicd_embed.stores.base import VectorStore, open_store
from rsicd_embed.stores.segments.segment_store import SegmentStore
from rsicd_embed.testing.stores import MADE_BY

from . import points
from .store_model import MismatchError, StoreState, match, plan
from .workers import StressWorker, scratch

_LIVES = 25  # kills before a new store is created
_AT_POINTS = 0.6  # share of the writers that die at a step; the others die at any time
_TURNS, _FIRST_STEPS = 6, 12  # dies within this many steps of one kind (any, during creation)
_MOMENT_S = 0.2  # … or within this time


@dataclass
class Killed:
    """The outcome; `failures` lists defects."""

    kills: int = 0
    at_points: Counter[str] = field(default_factory=Counter)
    in_calls: Counter[str] = field(default_factory=Counter)
    found_old: int = 0
    found_new: int = 0
    changes: int = 0
    failures: list[dict[str, Any]] = field(default_factory=list)


def kill(scheme: str, kills: int, seed: int) -> Killed:
    """Kills writers in turn; each first checks the store that the previous one left."""
    done = Killed()
    while done.kills < kills and not done.failures:
        with scratch() as folder:
            series = _Series(f"{scheme}:{folder}/store", seed, done)
            lives = min(_LIVES, kills - done.kills)
            for life in range(lives + 1):
                if not done.failures:
                    series.run_writer(create=life == 0, kill=life < lives)
    return done


class _Series:
    """A store and its successive writers; `allowed` are its possible states."""

    def __init__(self, uri: str, seed: int, done: Killed) -> None:
        self.uri, self.seed, self.done = uri, seed, done
        self.chance = random.Random(f"{seed}:{done.kills}")
        self.step = done.kills * 1000
        self.state, self.allowed = StoreState(), [StoreState()]
        self.call = self.point = ""

    def run_writer(self, *, create: bool, kill: bool) -> None:
        """Starts a writer and kills it; one that is not killed checks the store and changes it."""
        moment, turn = "", 0
        if kill and self.chance.random() < _AT_POINTS:
            names = points.names(self.uri.partition(":")[0])
            moment = "" if create else self.chance.choice(names)
            turn = self.chance.randint(1, _FIRST_STEPS if create else _TURNS)
        delay_s = self.chance.uniform(0.0, _MOMENT_S) if kill and not turn else None
        self.call, self.point, checked = "create" if create else "open", "", False
        worker = StressWorker(
            write, self.uri, create, self.allowed, self.seed, self.step, moment, turn, not kill
        )
        try:
            for word, *values in worker.messages(after=("ready", delay_s)):
                self._handle(word, values[0] if values else None)
                checked |= word == "found"
        except TimeoutError as error:
            self._failed(str(error))
        if worker.signal != (signal.SIGKILL if kill else 0):
            self._failed(f"it ended by signal {worker.signal}")
        elif not kill and not checked:
            self._failed("it checked nothing")
        if kill:
            self.done.kills += 1
            self.done.in_calls[self.call] += 1
            self.done.at_points[self.point or "a random time"] += 1

    def _handle(self, word: str, value: Any) -> None:
        if word == "found":
            self.done.found_old += value == 0
            self.done.found_new += value == 1
            self.state = self.allowed[value]
            self.allowed = [self.state]
        elif word == "begin":
            change = plan(self.state, self.seed, self.step)
            self.call, self.allowed = change.kind, [self.state, change.apply(self.state)]
        elif word == "done":
            self.state, self.step = self.allowed[-1], self.step + 1
            self.allowed, self.call = [self.state], "none"
            self.done.changes += 1
        elif word == "dies":
            self.point = value
        elif word == "failed":
            self._failed(value)

    def _failed(self, problem: str) -> None:
        self.done.failures.append(
            {"kill": self.done.kills, "seed": self.seed, "call": self.call, "problem": problem}
        )


def write(
    send: Callable[..., None],
    uri: str,
    create: bool,
    allowed: list[StoreState],
    seed: int,
    step: int,
    moment: str,
    turn: int,
    once: bool,
) -> None:
    """Checks a store, then changes it once, or until the process is killed."""
    try:
        if create:
            _wait_for_death(uri, moment, turn, send)
        with open_store(uri, MADE_BY if allowed == [StoreState()] else None) as store:
            state = match(store, allowed, step)
            send("found", allowed.index(state))
            if not create:
                _wait_for_death(uri, moment, turn, send)
            while True:
                change = plan(state, seed, step)
                send("begin")
                change.run(store)
                state, step = change.apply(state), step + 1
                match(store, [state], step)
                _require_swept(store, Path(uri.partition(":")[2]))
                send("done")
                if once:
                    return
    except BaseException:
        send("failed", traceback.format_exc(limit=-4))


def _wait_for_death(uri: str, moment: str, turn: int, send: Callable[..., None]) -> None:
    """Dies at the `turn`-th such moment, or is killed by the parent once it is ready."""
    if turn:
        watcher = points.killer(moment, turn, lambda name: send("dies", name))
        points.watch(watcher, uri.partition(":")[0])
    send("ready")


def _require_swept(store: VectorStore, folder: Path) -> None:
    """Asserts that a segment folder has no files that no state lists."""
    names = [path.name for path in folder.iterdir()]
    leftovers = [name for name in names if name.startswith(TEMPORARY)]
    if isinstance(store, SegmentStore):
        states = [store._now().manifest, *store._log.tagged().values()]
        listed = {entry.name for state in states for entry in state.files}
        listed |= {entry.name for entry in states[0].tags}
        leftovers += [name for name in names if not name.startswith((".lock", "manifest"))]
        leftovers = [name for name in leftovers if name not in listed]
    if leftovers:
        raise MismatchError(f"left behind: {', '.join(sorted(leftovers))}")
