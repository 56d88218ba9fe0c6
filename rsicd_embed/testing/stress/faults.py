"""Disks that fail, or are full: each step of each change, in turn."""

from __future__ import annotations

import errno
import resource
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from rsicd_embed.errors import StoreError
from rsicd_embed.stores.base import VectorStore, open_store
from rsicd_embed.testing.stores.sample_rows import MADE_BY
from rsicd_embed.testing.stress import points
from rsicd_embed.testing.stress.store_model import (
    MismatchError,
    StoreChange,
    StoreState,
    match,
    plan,
)
from rsicd_embed.testing.stress.stress_workers import StressWorker, opened, scratch

_ERRORS = (errno.EIO, errno.ENOSPC)
_SIZES = (0, 200, 600, 1000, 2000, 4000, 8000, 16_000, 1 << 20)
_CHANGED = "is changed, but a power cut may undo that"
_TURNS = (*range(1, 16), *range(16, 200, 7))  # which steps of a change


@dataclass
class Failed:
    """What came of it.

    Attributes:
        old: an error of one line, and the old state.
        said_changed: the new state, and an error that says so; the change cannot be taken back
            where no further step succeeds either.
        new: no error, for a step that does not matter.
    """

    faults: int = 0
    changes: Counter[str] = field(default_factory=Counter)
    old: int = 0
    said_changed: int = 0
    new: int = 0
    failures: list[dict[str, Any]] = field(default_factory=list)


def fail(scheme: str, changes: int, seed: int) -> Failed:
    """Makes each of `changes` changes fail at each of its steps, before it succeeds."""
    done = Failed()
    with scratch() as folder:
        worker = StressWorker(suffer, f"{scheme}:{folder}/store", changes, seed)
        try:
            for word, what in worker.messages():
                if word == "begin":
                    done.changes[what] += 1
                elif word == "failed":
                    done.failures.append({"seed": seed, "problem": what})
                else:
                    done.faults += 1
                    setattr(done, word, getattr(done, word) + 1)
        except TimeoutError as error:
            done.failures.append({"seed": seed, "problem": str(error)})
        if worker.process.exitcode:
            done.failures.append({"seed": seed, "problem": f"ended by {worker.process.exitcode}"})
    return done


def suffer(tell: Callable[..., None], uri: str, changes: int, seed: int) -> None:
    """Changes a store, each time after that failed in all ways there are."""
    warnings.simplefilter("ignore")  # an index that was not brought up to date
    fault = points.Fault()
    points.watch(fault, "none")
    try:
        with open_store(uri, MADE_BY) as store:
            state = StoreState()
            for step in range(changes):
                change = plan(state, seed, step)
                tell("begin", change.kind)
                for injected in [*_steps(fault), *map(_full, _SIZES)]:
                    outcome, after = _one(store, uri, change, state, injected, step)
                    if outcome:
                        tell(outcome, None)
                    if after != state:
                        state = after
                        change = plan(state, seed, step)
    except BaseException:
        tell("failed", traceback.format_exc(limit=-4))


@dataclass
class _Injected:
    """What is to go wrong, for the time of a call; `happened` afterwards, whether it did."""

    name: str
    during: Callable[[_Injected], Any]
    happened: bool = True


def _steps(fault: points.Fault) -> Iterator[_Injected]:
    """Steps in turn, once alone and once with all that follow, until there are no more."""

    def during(turn: int, lasting: bool) -> Callable[[_Injected], Any]:
        @contextmanager
        def armed(injected: _Injected) -> Iterator[None]:
            fault.arm(turn, _ERRORS[turn % 2], lasting=lasting)
            try:
                yield
            finally:
                injected.happened = fault.disarm()

        return armed

    for lasting in (False, True):
        for turn in _TURNS:
            injected = _Injected(f"step {turn}{' and after' * lasting}", during(turn, lasting))
            yield injected
            if not injected.happened:
                break


def _full(size: int) -> _Injected:
    """No file may grow beyond a size, whoever writes it."""

    @contextmanager
    def limited(injected: _Injected) -> Iterator[None]:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return _Injected(f"files of at most {size} bytes", limited)


def _one(
    store: VectorStore,
    uri: str,
    change: StoreChange,
    old: StoreState,
    injected: _Injected,
    step: int,
) -> tuple[str | None, StoreState]:
    """What a change that fails does, and the state after it; None where nothing has failed."""
    said = None
    try:
        with injected.during(injected):
            change.run(store)
    except StoreError as error:
        said = str(error)
        if "\n" in said:
            raise MismatchError(f"{change.kind}, {injected.name}: not one line: {said}") from error
        if "backup" in said:
            raise MismatchError(
                f"{change.kind}, {injected.name}: nothing is lost: {said}"
            ) from error
    allowed = [change.apply(old) if said is None or _CHANGED in said else old]
    try:
        for one in (store, opened(uri)):
            match(one, allowed, step)
    except (MismatchError, StoreError) as error:
        raise MismatchError(
            f"{change.kind}, {injected.name}: it said {said!r}, but {error}"
        ) from error
    if not injected.happened:
        return None, allowed[0]
    return ("new" if said is None else "said_changed" if _CHANGED in said else "old"), allowed[0]
