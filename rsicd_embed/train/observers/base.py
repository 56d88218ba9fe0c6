"""What an observer of a run is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

Row = dict[str, Any]


class Observer(Protocol):
    """Is told of steps and epochs, in order, and may not change the rows."""

    def on_start(self, done: int, steps: int) -> None:
        """The run begins, or goes on: so many of its steps are done."""
        ...

    def on_steps(self, rows: Sequence[Row]) -> None:
        """Rows of `steps.jsonl` that are new: step, epoch, loss and the step's other figures."""
        ...

    def on_epoch(self, row: Row) -> None:
        """A row of `metrics.jsonl`; `step` is the last step of its epoch.

        Epoch 0 is the model before the first step: its row has the figures of val alone.
        """
        ...

    def close(self) -> None:
        """The run has ended, or stopped."""
        ...


def figures(row: Row) -> dict[str, float]:
    """The numbers of a row that are worth a curve."""
    return {
        name: float(value)
        for name, value in row.items()
        if name not in ("step", "epoch") and isinstance(value, int | float)
    }
