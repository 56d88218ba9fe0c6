"""What the steps of an epoch compute, fetched from the devices now and then and written down."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

import jax
import numpy as np

from rsicd_embed.train.journal import Journal, Row
from rsicd_embed.train.observers.base import Observer
from rsicd_embed.train.state import diverged

T = TypeVar("T")

# Seconds between looks at what the devices have computed: each look waits for them.
_LOOK_EVERY_S = 2.0
# Steps that the devices have before them: enough to be busy, and few when a run is to stop.
_IN_FLIGHT = 2


class StepLog:
    """Figures of the steps of one epoch, as far as they are done here."""

    def __init__(
        self, journal: Journal, observers: Sequence[Observer], *, epoch: int, done: int, batch: int
    ) -> None:
        """Begins after `done` steps of the run, in its epoch `epoch`, from 0."""
        self._journal, self._observers = journal, observers
        self._epoch, self._done, self._batch = epoch, done, batch
        self._pending: list[dict[str, jax.Array]] = []
        self._images, self._waited = 0, 0.0
        self._started = self._looked = time.perf_counter()

    def waiting(self, batches: Iterable[T]) -> Iterator[T]:
        """`batches`, and how long each was waited for."""
        them = iter(batches)
        while True:
            asked = time.perf_counter()
            one = next(them, None)
            self._waited += time.perf_counter() - asked
            if one is None:
                return
            yield one

    def add(self, figures: dict[str, jax.Array]) -> None:
        """Figures of one more step, not computed yet; waits for the one before the last two."""
        self._pending.append(figures)
        if len(self._pending) > _IN_FLIGHT:
            jax.block_until_ready(self._pending[-1 - _IN_FLIGHT])  # type: ignore[no-untyped-call]
        if time.perf_counter() - self._looked >= _LOOK_EVERY_S:
            self.look()

    def look(self) -> None:
        """Waits for the pending steps and writes them down.

        Raises:
            TrainError: a figure is not finite; nothing from it on is written.
        """
        rows: list[Row] = []
        bad = ""
        for figures in jax.device_get(self._pending):
            self._done += 1
            row: Row = {"step": self._done, "epoch": self._epoch + 1}
            row |= {name: float(value) for name, value in figures.items()}
            wrong = [name for name, value in row.items() if not math.isfinite(value)]
            if wrong:
                bad = "loss" if "loss" in wrong else wrong[0]
                break
            rows.append(row)
        self._pending.clear()
        self._images += len(rows) * self._batch
        self._journal.add_steps(rows)
        for observer in self._observers:
            observer.on_steps(rows)
        if bad:
            raise diverged(f"{bad} is not finite", self._done)
        self._looked = time.perf_counter()

    def epoch_row(self) -> Row:
        """The row of an epoch whose steps are all done; rate and wait are of those done here."""
        self.look()
        seconds = time.perf_counter() - self._started
        losses = [row["loss"] for row in self._journal.steps if row["epoch"] == self._epoch + 1]
        return {
            "epoch": self._epoch + 1,
            "step": self._done,
            "loss": float(np.mean(losses)),
            "seconds": round(seconds, 1),
            "images_per_s": round(self._images / seconds, 1),
            "waited_for_data": round(self._waited / seconds, 4),
        }
