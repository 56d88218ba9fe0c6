"""Runs a training from the command line and shows its progress."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rsicd_embed.cli.base import note, on_terminal
from rsicd_embed.cli.progress import Meter, meter
from rsicd_embed.cli.train.train_settings import training_extra
from rsicd_embed.train.observers import Observer, Row, TensorBoard, WeightsAndBiases

if TYPE_CHECKING:
    from rsicd_embed.train.config import TrainConfig
    from rsicd_embed.train.input.training_data import TrainingData
    from rsicd_embed.train.stopping import Interrupt


def run(
    config: TrainConfig,
    data: TrainingData,
    out: Path,
    *,
    tensorboard: bool = False,
    wandb: str | None = None,
    cluster: bool = False,
) -> Row | None:
    """Trains and returns the best epoch's row; None in all but one of several processes."""
    import rsicd_embed

    with training_extra():
        from rsicd_embed.evaluation.evaluator import Evaluator
        from rsicd_embed.train import distributed, journal
        from rsicd_embed.train.config import parse
        from rsicd_embed.train.loop import train

    distributed.connect(detect=cluster)
    evaluate = Evaluator(data.val, loss_batch=config.batch_size)
    debug = bool(click.get_current_context().find_root().meta.get("debug"))
    with suppress_orbax_tracebacks(debug=debug), ExitStack() as stack:
        observers: list[Observer] = []
        if distributed.is_writer():
            images = len(data.train)
            shown = ShownProgress(
                config.batch_size, config.epochs, images, images * config.teacher.views
            )
            observers.append(stack.enter_context(shown))
            if tensorboard:
                observers.append(stack.enter_context(TensorBoard(out / "tensorboard")))
            if wandb:
                project = WeightsAndBiases(wandb, out / "wandb", parse.flat(config))
                observers.append(stack.enter_context(project))
        best = train(config, data, out, evaluate, observers, rsicd_embed.load_embedder)
    if not distributed.is_writer():
        return None
    journal.plot({out.name: out}, out / "curves.png")
    return best


class ShownProgress(Observer):
    """Shows a run in the terminal: bars with rate and ETA, the loss, and a line per epoch."""

    def __init__(
        self,
        batch_size: int,
        epochs: int,
        images: int,
        views: int,
        views_title: str = "embedding the teacher's views",
    ) -> None:
        """Shows nothing yet; `images` are to be read, and `views` of images to be embedded."""
        self._batch_size, self._epochs = batch_size, epochs
        self._images, self._views, self._views_title = images, views, views_title
        self._stack = ExitStack()
        self._title: str | None = None
        self._bar: Meter

    def on_image(self, count: int) -> None:
        """Advances the bar of images read."""
        self._show("reading images", self._images, "images")
        self._bar.advance(count)

    def on_view(self, count: int) -> None:
        """Advances the bar of embedded views."""
        self._show(self._views_title, self._views, "views")
        self._bar.advance(count)

    def on_start(self, done: int, steps: int) -> None:
        """Shows the bar of training images."""
        size = self._batch_size
        self._show("training", steps * size, "images", done * size)

    def on_steps(self, rows: Sequence[Row]) -> None:
        """Advances the bar and shows the loss."""
        if rows:
            last = rows[-1]
            text = f"epoch {last['epoch']}/{self._epochs}  loss {last['loss']:.3f}"
            self._bar.advance(len(rows) * self._batch_size, text)

    def on_epoch(self, row: Row) -> None:
        """Prints the metrics."""
        self.on_message(epoch_line(row))

    def on_message(self, line: str) -> None:
        """Prints a line above the bar, if there is one."""
        if self._title is None:
            note(line)
        else:
            self._bar.print_line(line)

    def on_interrupt(self, interrupt: Interrupt) -> None:
        """Acknowledges Ctrl-C or SIGTERM; the second one ends the process immediately.

        That loses the steps since the last checkpoint and nothing else, since files are written
        aside and renamed.
        """
        if interrupt.count > 1:
            if on_terminal():
                os.write(2, b"\x1b[?25h\n")  # the bar hides the cursor
            note(
                f"{interrupt.name} again: stopped immediately; the same command resumes from the "
                "last checkpoint"
            )
            os._exit(128 + signal.Signals[interrupt.name])
        when = "after this step or evaluation, with a checkpoint" if interrupt.deferred else "now"
        self.on_message(
            f"{interrupt.name}: stopping {when}; press Ctrl-C again to stop immediately"
        )

    def close(self) -> None:
        """Removes the bar."""
        self._stack.close()
        self._title = None

    def _show(self, title: str, total: int, unit: str, done: int = 0) -> None:
        """Replaces the bar, unless it already has this title."""
        if self._title != title:
            self._stack.close()
            self._bar = self._stack.enter_context(meter(title, total, unit, done=done))
            self._title = title


def epoch_line(row: Row) -> str:
    """Formats a journal's row as one line."""
    return ("before training: " if row["epoch"] == 0 else "") + "  ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in row.items()
    )


@contextmanager
def suppress_orbax_tracebacks(*, debug: bool) -> Iterator[None]:
    """Silences the hundreds of tracebacks that Orbax prints when a checkpoint cannot be written.

    The first error still reaches the caller. With `debug`, everything is printed.
    """
    if debug:
        yield
        return
    from rsicd_embed.train.checkpoint import ignore_abandoned_tasks

    ignore_abandoned_tasks()
    log = logging.getLogger("absl")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(level)
