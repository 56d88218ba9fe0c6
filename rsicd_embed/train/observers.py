"""Observers of a training run: their protocol, TensorBoard, and Weights & Biases."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from rsicd_embed.errors import TrainError
from rsicd_embed.files import Closing
from rsicd_embed.train.stopping import Interrupt

Row: TypeAlias = dict[str, float]
"""Metrics by name, among them the number of the step, and of the epoch counted from 1."""


class Observer(Closing):
    """Watches a run; does nothing unless a method is overridden. Rows must not be changed."""

    def on_image(self, count: int) -> None:
        """`count` more images have been read, before training starts."""

    def on_view(self, count: int) -> None:
        """A teacher has embedded `count` more views, before training starts."""

    def on_start(self, done: int, steps: int) -> None:
        """Training starts or resumes after `done` of its steps."""

    def on_steps(self, rows: Sequence[Row]) -> None:
        """New rows of `steps.jsonl`: step, epoch, loss and other metrics of each step."""

    def on_epoch(self, row: Row) -> None:
        """A new row of `metrics.jsonl`; its step is the last one of the epoch.

        Epoch 0 is the model before training: its row has metrics on val only.
        """

    def on_message(self, line: str) -> None:
        """A line for the user, such as where the run resumes."""

    def on_interrupt(self, interrupt: Interrupt) -> None:
        """SIGTERM or SIGINT has just arrived; called immediately, on a thread of its own."""


class _Group(Observer):
    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = observers

    def on_image(self, count: int) -> None:
        for observer in self._observers:
            observer.on_image(count)

    def on_view(self, count: int) -> None:
        for observer in self._observers:
            observer.on_view(count)

    def on_start(self, done: int, steps: int) -> None:
        for observer in self._observers:
            observer.on_start(done, steps)

    def on_steps(self, rows: Sequence[Row]) -> None:
        for observer in self._observers:
            observer.on_steps(rows)

    def on_epoch(self, row: Row) -> None:
        for observer in self._observers:
            observer.on_epoch(row)

    def on_message(self, line: str) -> None:
        for observer in self._observers:
            observer.on_message(line)

    def on_interrupt(self, interrupt: Interrupt) -> None:
        for observer in self._observers:
            observer.on_interrupt(interrupt)


def grouped(observers: Sequence[Observer]) -> Observer:
    """Combines observers into one that notifies each of them in order; it does not close them."""
    return _Group(observers)


class _Curves(Observer):
    """Turns rows into points of curves: steps under `train/`, epochs under `val/`."""

    def on_steps(self, rows: Sequence[Row]) -> None:
        for row in rows:
            self._add_points("train", row)

    def on_epoch(self, row: Row) -> None:
        self._add_points("val", row)

    def _add_points(self, prefix: str, row: Row) -> None:
        points = {
            f"{prefix}/{name}": float(value)
            for name, value in row.items()
            if name not in ("step", "epoch") and isinstance(value, int | float)
        }
        self._log(points, row["step"])

    def _log(self, points: dict[str, float], step: float) -> None:
        raise NotImplementedError


class TensorBoard(_Curves):
    """Writes TensorBoard event files."""

    def __init__(self, folder: Path) -> None:
        """Writes nothing to `folder` before the run starts."""
        try:
            import tensorboardX
        except ModuleNotFoundError as error:
            raise TrainError(
                "TensorBoard files need tensorboardX, which is not installed: "
                "pip install 'rsicd-embed[tensorboard]'"
            ) from error
        self._folder, self._open = folder, tensorboardX.SummaryWriter
        self._writer: Any = None

    def on_start(self, done: int, steps: int) -> None:
        """Opens an event file that hides the points of steps to be repeated."""
        # Without a suffix, files opened within one second would have the same name.
        suffix = f".from-{done}"
        self._writer = self._open(str(self._folder), purge_step=done + 1, filename_suffix=suffix)

    def on_epoch(self, row: Row) -> None:
        """Adds a point to each curve and flushes the file."""
        super().on_epoch(row)
        self._writer.flush()

    def close(self) -> None:
        """Flushes and closes the file."""
        if self._writer is not None:
            self._writer.close()

    def _log(self, points: dict[str, float], step: float) -> None:
        for name, value in points.items():
            self._writer.add_scalar(name, value, step)


class WeightsAndBiases(_Curves):
    """Logs to a Weights & Biases project; a resumed run keeps its id there.

    This is the only observer that may use the network.
    """

    def __init__(self, project: str, folder: Path, settings: Mapping[str, object]) -> None:
        """Logs nothing before the run starts; `folder` then keeps the run's id."""
        try:
            self._wandb: Any = importlib.import_module("wandb")
        except ModuleNotFoundError as error:
            raise TrainError(
                "Weights & Biases needs wandb, which is not installed: pip install wandb"
            ) from error
        self._project, self._folder, self._settings = project, folder, dict(settings)
        self._run: Any = None

    def on_start(self, done: int, steps: int) -> None:
        """Starts a run, or resumes the one whose id is in the folder."""
        self._folder.mkdir(parents=True, exist_ok=True)
        id_file = self._folder / "run_id"
        self._run = self._wandb.init(
            project=self._project,
            dir=str(self._folder),
            config=self._settings,
            id=id_file.read_text("utf-8") if id_file.exists() else None,
            resume="allow",
        )
        id_file.write_text(self._run.id, "utf-8")

    def close(self) -> None:
        """Sends the remaining rows and ends the run."""
        if self._run is not None:
            self._run.finish()

    def _log(self, points: dict[str, float], step: float) -> None:
        self._run.log(points, step=step)
