"""Progress on stderr: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from rsicd_embed.cli.base import note, on_terminal

_LINE_EVERY_S = 10.0


class _Rate(ProgressColumn):
    def __init__(self, unit: str) -> None:
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed or 0:.1f} {self._unit}/s")


@contextmanager
def image_progress(what: str, total: int, unit: str = "images") -> Iterator[Callable[[int], None]]:
    """Yields what is to be called with the number of images, or other units, just done."""
    if not on_terminal():
        yield _Lines(what, total, unit).advance
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(unit),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.advance(task, done)


class _Lines:
    """For logs: at most one line in ten seconds."""

    def __init__(self, what: str, total: int, unit: str) -> None:
        self._what, self._total, self._unit, self._done = what, total, unit, 0
        self._started = self._shown = time.perf_counter()

    def advance(self, done: int) -> None:
        self._done += done
        now = time.perf_counter()
        if now - self._shown >= _LINE_EVERY_S:
            self._shown = now
            rate = self._done / (now - self._started)
            left = (self._total - self._done) / rate
            note(
                f"{self._what}: {self._done}/{self._total}, {rate:.1f} {self._unit}/s, "
                f"ETA {left:.0f} s"
            )
