"""Writers that are killed, and the stores they leave behind."""

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
from rsicd_embed.testing.stores.sample_rows import MADE_BY
from rsicd_embed.testing.stress import points
from rsicd_embed.testing.stress.store_model import MismatchError, StoreState, match, plan
from rsicd_embed.testing.stress.stress_workers import StressWorker, scratch

_LIVES = 25  # kills before a store is begun anew
_AT_POINTS = 0.6  # share of the writers that die at a step; the others do at any time
_TURNS, _FIRST_STEPS = 6, 12  # within as many of one kind; of any kind where a store is made
_MOMENT_S = 0.2  # or within this time


@dataclass
class Killed:
    """What came of it; `failures` hold what is to be mended."""

    kills: int = 0
    at_points: Counter[str] = field(default_factory=Counter)
    in_calls: Counter[str] = field(default_factory=Counter)
    found_old: int = 0
    found_new: int = 0
    changes: int = 0
    failures: list[dict[str, Any]] = field(default_factory=list)


def kill(scheme: str, kills: int, seed: int) -> Killed:
    """Kills writers one after the other; each first checks what the one before has left."""
    done = Killed()
    while done.kills < kills and not done.failures:
        with scratch() as folder:
            series = _Series(f"{scheme}:{folder}/store", seed, done)
            lives = min(_LIVES, kills - done.kills)
            for life in range(lives + 1):
                if not done.failures:
                    series.live(make=life == 0, kill=life < lives)
    return done


class _Series:
    """One store, through the lives of many writers; `allowed` are the states it may be in."""

    def __init__(self, uri: str, seed: int, done: Killed) -> None:
        self.uri, self.seed, self.done = uri, seed, done
        self.chance = random.Random(f"{seed}:{done.kills}")
        self.step = done.kills * 1000
        self.state, self.allowed = StoreState(), [StoreState()]
        self.call = self.point = ""

    def live(self, *, make: bool, kill: bool) -> None:
        """Starts a writer, and kills it; one that is not killed checks, and makes a change."""
        moment, turn = "", 0
        if kill and self.chance.random() < _AT_POINTS:
            names = points.names(self.uri.partition(":")[0])
            moment = "" if make else self.chance.choice(names)
            turn = self.chance.randint(1, _FIRST_STEPS if make else _TURNS)
        delay_s = self.chance.uniform(0.0, _MOMENT_S) if kill and not turn else None
        self.call, self.point, checked = "create" if make else "open", "", False
        worker = StressWorker(
            write, self.uri, make, self.allowed, self.seed, self.step, moment, turn, not kill
        )
        try:
            for word, *what in worker.messages(after=("ready", delay_s)):
                self._heard(word, what[0] if what else None)
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

    def _heard(self, word: str, what: Any) -> None:
        if word == "found":
            self.done.found_old += what == 0
            self.done.found_new += what == 1
            self.state = self.allowed[what]
            self.allowed = [self.state]
        elif word == "begin":
            change = plan(self.state, self.seed, self.step)
            self.call, self.allowed = change.kind, [self.state, change.apply(self.state)]
        elif word == "done":
            self.state, self.step = self.allowed[-1], self.step + 1
            self.allowed, self.call = [self.state], "none"
            self.done.changes += 1
        elif word == "dies":
            self.point = what
        elif word == "failed":
            self._failed(what)

    def _failed(self, problem: str) -> None:
        self.done.failures.append(
            {"kill": self.done.kills, "seed": self.seed, "call": self.call, "problem": problem}
        )


def write(
    tell: Callable[..., None],
    uri: str,
    make: bool,
    allowed: list[StoreState],
    seed: int,
    step: int,
    moment: str,
    turn: int,
    once: bool,
) -> None:
    """Checks a store, then changes it until the process is killed, or once."""
    try:
        if make:
            _wait_for_death(uri, moment, turn, tell)
        with open_store(uri, MADE_BY if allowed == [StoreState()] else None) as store:
            state = match(store, allowed, step)
            tell("found", allowed.index(state))
            if not make:
                _wait_for_death(uri, moment, turn, tell)
            while True:
                change = plan(state, seed, step)
                tell("begin")
                change.run(store)
                state, step = change.apply(state), step + 1
                match(store, [state], step)
                _require_swept(store, Path(uri.partition(":")[2]))
                tell("done")
                if once:
                    return
    except BaseException:
        tell("failed", traceback.format_exc(limit=-4))


def _wait_for_death(uri: str, moment: str, turn: int, tell: Callable[..., None]) -> None:
    """Dies at the `turn`-th such moment from now, or is killed some time after it is ready."""
    if turn:
        watcher = points.killer(moment, turn, lambda name: tell("dies", name))
        points.watch(watcher, uri.partition(":")[0])
    tell("ready")


def _require_swept(store: VectorStore, folder: Path) -> None:
    """A store on a folder of segments has no file that none of its states names."""
    names = [path.name for path in folder.iterdir()]
    left = [name for name in names if name.startswith(TEMPORARY)]
    if isinstance(store, SegmentStore):
        states = [store._now().manifest, *store._log.tagged().values()]
        named = {entry.name for one in states for entry in one.files}
        named |= {entry.name for entry in states[0].tags}
        left += [name for name in names if not name.startswith((".lock", "manifest"))]
        left = [name for name in left if name not in named]
    if left:
        raise MismatchError(f"left behind: {', '.join(sorted(left))}")
