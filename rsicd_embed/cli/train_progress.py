"""A training run, seen from a terminal: a bar with loss, images/s and ETA, and a line an epoch."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from rsicd_embed.cli.progress import Meter, meter
from rsicd_embed.closing import Closing


class ShownProgress(Closing):
    """See `train.observers.base.Observer`."""

    def __init__(self, batch_size: int, epochs: int) -> None:
        self._batch_size, self._epochs = batch_size, epochs
        self._stack = ExitStack()
        self._bar: Meter

    def on_start(self, done: int, steps: int) -> None:
        """Shows the bar."""
        size = self._batch_size
        bar = meter("training", steps * size, "images", done=done * size)
        self._bar = self._stack.enter_context(bar)

    def on_steps(self, rows: Sequence[dict[str, Any]]) -> None:
        """Moves the bar."""
        if rows:
            last = rows[-1]
            what = f"epoch {last['epoch']}/{self._epochs}  loss {last['loss']:.3f}"
            self._bar.advance(len(rows) * self._batch_size, what)

    def on_epoch(self, row: dict[str, Any]) -> None:
        """Prints what was measured."""
        self._bar.tell(epoch_line(row))

    def close(self) -> None:
        """Takes the bar away."""
        self._stack.close()


def epoch_line(row: dict[str, Any]) -> str:
    """A journal's row in one line."""
    return "  ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in row.items()
    )
