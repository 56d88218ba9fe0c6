"""Curves for Weights & Biases: the only observer that may use the network, and only when asked."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rsicd_embed.errors import TrainError
from rsicd_embed.files import Closing
from rsicd_embed.train.observers.base import Row, figures


class WeightsAndBiases(Closing):
    """Logs to a project; a run that is taken up goes on under its old id."""

    def __init__(self, project: str, folder: Path, settings: Mapping[str, Any]) -> None:
        """Will log to `project`, and keep the run's id in `folder`.

        Raises:
            TrainError: wandb is not installed.
        """
        try:
            self._wandb: Any = importlib.import_module("wandb")
        except ModuleNotFoundError as error:
            raise TrainError(
                "Weights & Biases needs wandb, which is not installed: pip install wandb"
            ) from error
        self._project, self._folder, self._settings = project, folder, dict(settings)
        self._run: Any = None

    def on_start(self, done: int, steps: int) -> None:
        """Starts a run, or takes up the one whose id is in the folder."""
        self._folder.mkdir(parents=True, exist_ok=True)
        remembered = self._folder / "run_id"
        known = remembered.read_text("utf-8") if remembered.exists() else None
        self._run = self._wandb.init(
            project=self._project,
            dir=str(self._folder),
            config=self._settings,
            id=known,
            resume="allow",
        )
        remembered.write_text(self._run.id, "utf-8")

    def on_steps(self, rows: Sequence[Row]) -> None:
        """Logs every figure of each row under `train/`."""
        for row in rows:
            self._log("train", row)

    def on_epoch(self, row: Row) -> None:
        """Logs every figure under `val/`."""
        self._log("val", row)

    def close(self) -> None:
        """Sends what is left."""
        if self._run is not None:
            self._run.finish()

    def _log(self, part: str, row: Row) -> None:
        named = {f"{part}/{name}": value for name, value in figures(row).items()}
        self._run.log(named, step=row["step"])
