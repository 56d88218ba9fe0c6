"""Progress on stderr: a bar on a terminal, otherwise a line every ten seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from rsicd_embed.cli.base import note, on_terminal
from rsicd_embed.cli.terminal_text import printable

if TYPE_CHECKING:  # rich is imported only where a bar is shown, so that `--help` is fast
    from rich.progress import Progress, Task, TaskID

_LINE_EVERY_S = 10.0


class Meter(Protocol):
    """Displays the progress of a task."""

    def advance(self, done: int, description: str | None = None) -> None:
        """Adds `done` units; `description` replaces the task's description."""

    def print_line(self, line: str) -> None:
        """Prints a line that stays on the screen."""


@contextmanager
def meter(description: str, total: int, unit: str, *, done: int = 0) -> Iterator[Meter]:
    """Displays the progress of a task of `total` units, of which `done` are done already."""
    if not on_terminal():
        yield _Lines(description, total, unit, done)
        return
    with _progress(unit) as bar:
        yield _Bar(bar, bar.add_task(description, total=total, completed=done))


def _progress(unit: str) -> Progress:
    from rich import progress
    from rich.console import Console
    from rich.text import Text

    class RateColumn(progress.ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.speed or 0:.1f} {unit}/s")

    return progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        RateColumn(),
        progress.TimeElapsedColumn(),
        progress.TextColumn("ETA"),
        progress.TimeRemainingColumn(),
        console=Console(stderr=True),
    )


@contextmanager
def image_progress(
    description: str, total: int, unit: str = "images"
) -> Iterator[Callable[[int], None]]:
    """Displays progress; yields a function to call with the number of units just done."""
    with meter(description, total, unit) as task:
        yield task.advance


def status_printer() -> Callable[[str], None]:
    """Returns a function that prints a status: always on a terminal, else every ten seconds."""
    interval = _Interval()

    def print_status(status: str) -> None:
        if on_terminal() or interval.is_over():
            note(status)

    return print_status


class _Interval:
    """Limits log lines to one every ten seconds."""

    def __init__(self) -> None:
        self._started = time.perf_counter()

    def is_over(self) -> bool:
        """Whether a line is due; if so, starts the next interval."""
        now = time.perf_counter()
        due = now - self._started >= _LINE_EVERY_S
        if due:
            self._started = now
        return due


class _Bar:
    """The meter on terminals."""

    def __init__(self, bar: Progress, task: TaskID) -> None:
        self._bar, self._task = bar, task

    def advance(self, done: int, description: str | None = None) -> None:
        self._bar.update(self._task, advance=done, description=description)

    def print_line(self, line: str) -> None:
        self._bar.console.print(printable(line), markup=False, highlight=False)


class _Lines:
    """The meter in logs."""

    def __init__(self, description: str, total: int, unit: str, done: int) -> None:
        self._description, self._total, self._unit = description, total, unit
        self._done = self._done_before = done
        self._started, self._interval = time.perf_counter(), _Interval()

    def print_line(self, line: str) -> None:
        note(line)

    def advance(self, done: int, description: str | None = None) -> None:
        self._done += done
        self._description = description or self._description
        if self._interval.is_over():
            rate = (self._done - self._done_before) / (time.perf_counter() - self._started)
            left_s = (self._total - self._done) / rate
            note(
                f"{self._description}: {self._done}/{self._total}, {rate:.1f} {self._unit}/s, "
                f"ETA {left_s:.0f} s"
            )
