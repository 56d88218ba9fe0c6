"""Curves for TensorBoard."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rsicd_embed.errors import TrainError
from rsicd_embed.files import Closing
from rsicd_embed.train.observers.base import Row, figures


class TensorBoard(Closing):
    """Writes event files, of steps under `train/` and of epochs under `val/`."""

    def __init__(self, folder: Path) -> None:
        """Will write to `folder`.

        Raises:
            TrainError: tensorboardX is not installed.
        """
        try:
            import tensorboardX
        except ModuleNotFoundError as error:
            raise TrainError(
                "TensorBoard's files need tensorboardX, which is not installed: "
                "pip install 'rsicd-embed[tensorboard]'"
            ) from error
        self._folder, self._make = folder, tensorboardX.SummaryWriter
        self._writer: Any = None

    def on_start(self, done: int, steps: int) -> None:
        """Begins to write; what earlier files say of later steps is hidden."""
        # Files are named after the second they were begun in.
        suffix = f".from-{done}"
        self._writer = self._make(str(self._folder), purge_step=done + 1, filename_suffix=suffix)

    def on_steps(self, rows: Sequence[Row]) -> None:
        """Adds a point of every figure for each row."""
        for row in rows:
            for name, value in figures(row).items():
                self._writer.add_scalar(f"train/{name}", value, row["step"])

    def on_epoch(self, row: Row) -> None:
        """Adds a point of every figure."""
        for name, value in figures(row).items():
            self._writer.add_scalar(f"val/{name}", value, row["step"])
        self._writer.flush()

    def close(self) -> None:
        """Writes what is left."""
        if self._writer is not None:
            self._writer.close()
