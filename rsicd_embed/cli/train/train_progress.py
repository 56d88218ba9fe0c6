"""A training run, seen from a terminal: bars with rate and ETA, the loss, and a line an epoch."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from rsicd_embed.cli.base import note, on_terminal
from rsicd_embed.cli.progress import Meter, meter
from rsicd_embed.files import Closing

if TYPE_CHECKING:
    from rsicd_embed.train.config import TrainConfig
    from rsicd_embed.train.stopping import Interrupt


class ShownProgress(Closing):
    """See `train.observers.base.Observer`."""

    def __init__(self, config: TrainConfig, images: int) -> None:
        """Will show a run on so many images."""
        self._batch_size, self._epochs = config.batch_size, config.epochs
        self._images, self._views = images, images * config.teacher.views
        self._stack = ExitStack()
        self._what: str | None = None
        self._bar: Meter

    def on_image(self, done: int) -> None:
        """So many images are just read, before the run starts."""
        self._show("reading images", self._images, "images")
        self._bar.advance(done)

    def on_view(self, done: int) -> None:
        """A teacher has just embedded so many views, before the run starts."""
        self._show("embedding the teacher's views", self._views, "views")
        self._bar.advance(done)

    def on_start(self, done: int, steps: int) -> None:
        """Shows the bar."""
        size = self._batch_size
        self._show("training", steps * size, "images", done * size)

    def on_steps(self, rows: Sequence[dict[str, Any]]) -> None:
        """Moves the bar."""
        if rows:
            last = rows[-1]
            what = f"epoch {last['epoch']}/{self._epochs}  loss {last['loss']:.3f}"
            self._bar.advance(len(rows) * self._batch_size, what)

    def on_epoch(self, row: dict[str, Any]) -> None:
        """Prints what was measured."""
        self.tell(epoch_line(row))

    def tell(self, line: str) -> None:
        """Prints a line, above the bar if there is one."""
        if self._what is None:
            note(line)
        else:
            self._bar.tell(line)

    def on_interrupt(self, interrupt: Interrupt) -> None:
        """Answers Ctrl-C or SIGTERM; the second one ends the process, whatever it is doing.

        That loses the steps since the last checkpoint, and nothing else: files are written aside
        and renamed.
        """
        if interrupt.count > 1:
            if on_terminal():
                os.write(2, b"\x1b[?25h\n")  # the bar hides the cursor
            note(
                f"{interrupt.name} again: stopped at once; the same command goes on from the last "
                "checkpoint"
            )
            os._exit(128 + signal.Signals[interrupt.name])
        how = "after this step or evaluation, with a checkpoint" if interrupt.deferred else "now"
        self.tell(f"{interrupt.name}: stopping {how}; press Ctrl-C again to stop at once")

    def close(self) -> None:
        """Takes the bar away."""
        self._stack.close()
        self._what = None

    def _show(self, what: str, total: int, unit: str, done: int = 0) -> None:
        """A bar in the place of the one before; nothing if it is there."""
        if self._what != what:
            self._stack.close()
            self._bar = self._stack.enter_context(meter(what, total, unit, done=done))
            self._what = what


def epoch_line(row: dict[str, Any]) -> str:
    """A journal's row in one line."""
    return ("before training: " if row["epoch"] == 0 else "") + "  ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in row.items()
    )
