"""Disks that fail or are full at each step of each change."""

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
from rsicd_embed.testing.stores import MADE_BY

from . import points
from .store_model import (
    MismatchError,
    StoreChange,
    StoreState,
    match,
    plan,
)
from .workers import StressWorker, opened, scratch

_ERRORS = (errno.EIO, errno.ENOSPC)
_SIZES = (0, 200, 600, 1000, 2000, 4000, 8000, 16_000, 1 << 20)
_CHANGED = "is changed, but a power cut may undo that"
_TURNS = (*range(1, 16), *range(16, 200, 7))  # numbers of the steps that fail


@dataclass
class Failed:
    """The number of faults by outcome.

    Attributes:
        faults: number of faults.
        changes: number of changes by kind.
        old: a one-line error, and the old state.
        said_changed: an error that reports the new state, which cannot be undone if all further
            steps fail too.
        new: no error, as the step does not matter.
        failures: seeds and details of defects.
    """

    faults: int = 0
    changes: Counter[str] = field(default_factory=Counter)
    old: int = 0
    said_changed: int = 0
    new: int = 0
    failures: list[dict[str, Any]] = field(default_factory=list)


def fail(scheme: str, changes: int, seed: int) -> Failed:
    """Applies `changes` changes, each after failing at each of its steps."""
    done = Failed()
    with scratch() as folder:
        worker = StressWorker(suffer, f"{scheme}:{folder}/store", changes, seed)
        try:
            for word, value in worker.messages():
                if word == "begin":
                    done.changes[value] += 1
                elif word == "failed":
                    done.failures.append({"seed": seed, "problem": value})
                else:
                    done.faults += 1
                    setattr(done, word, getattr(done, word) + 1)
        except TimeoutError as error:
            done.failures.append({"seed": seed, "problem": str(error)})
        if worker.process.exitcode:
            done.failures.append({"seed": seed, "problem": f"ended by {worker.process.exitcode}"})
    return done


def suffer(send: Callable[..., None], uri: str, changes: int, seed: int) -> None:
    """Changes a store, each change after it failed in all possible ways."""
    warnings.simplefilter("ignore")  # about an index that could not be updated
    fault = points.Fault()
    points.watch(fault, "none")
    try:
        with open_store(uri, MADE_BY) as store:
            state = StoreState()
            for step in range(changes):
                change = plan(state, seed, step)
                send("begin", change.kind)
                for injected in [*_steps(fault), *map(_full, _SIZES)]:
                    outcome, after = _attempt(store, uri, change, state, injected, step)
                    if outcome:
                        send(outcome, None)
                    if after != state:
                        state = after
                        change = plan(state, seed, step)
    except BaseException:
        send("failed", traceback.format_exc(limit=-4))


@dataclass
class _Injected:
    """A fault during a call; `happened` says afterwards whether it occurred."""

    name: str
    during: Callable[[_Injected], Any]
    happened: bool = True


def _steps(fault: points.Fault) -> Iterator[_Injected]:
    """Fails each step in turn: first only that step, then all following ones too."""

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
    """Limits the size of all files that this process writes."""

    @contextmanager
    def limited(injected: _Injected) -> Iterator[None]:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return _Injected(f"files of at most {size} bytes", limited)


def _attempt(
    store: VectorStore,
    uri: str,
    change: StoreChange,
    old: StoreState,
    injected: _Injected,
    step: int,
) -> tuple[str | None, StoreState]:
    """Tries a change with a fault; returns the outcome (None without a fault) and the state."""
    message = None
    try:
        with injected.during(injected):
            change.run(store)
    except StoreError as error:
        message = str(error)
        if "\n" in message:
            raise MismatchError(
                f"{change.kind}, {injected.name}: not one line: {message}"
            ) from error
        if "backup" in message:
            raise MismatchError(
                f"{change.kind}, {injected.name}: nothing is lost: {message}"
            ) from error
    changed = message is None or _CHANGED in message
    state = change.apply(old) if changed else old
    try:
        for current in (store, opened(uri)):
            match(current, [state], step)
    except (MismatchError, StoreError) as error:
        raise MismatchError(
            f"{change.kind}, {injected.name}: the error was {message!r}, but {error}"
        ) from error
    if not injected.happened:
        return None, state
    return ("new" if message is None else "said_changed" if changed else "old"), state
