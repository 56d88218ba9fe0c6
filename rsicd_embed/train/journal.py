"""What a run has measured: a line of JSON for every step, and one for every epoch.

OUT/steps.jsonl    step, epoch, loss and the step's other figures
OUT/metrics.jsonl  epoch, mean loss, images/s, and what was measured on val; epoch 0 is the model
                   before its first step, with the figures of val alone
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rsicd_embed.errors import TrainError
from rsicd_embed.files import storage_errors, sync_folder, write_file

Row = dict[str, Any]


class Journal:
    """The rows of a run, on disk when a method returns.

    After a crash there may be rows of steps that no checkpoint holds. They are dropped when the
    run goes on, and made again.
    """

    def __init__(self, out: Path, steps: int, epochs: int, *, write: bool = True) -> None:
        """Takes up the journal of a run that has done so many steps and whole epochs.

        Args:
            out: folder of the run.
            steps: number of steps that are done.
            epochs: number of epochs that are done.
            write: whether files are written; of several processes, one does.

        Raises:
            TrainError: rows are missing.
        """
        self._write = write
        self._steps_path, self._epochs_path = out / "steps.jsonl", out / "metrics.jsonl"
        self.steps = _taken_up(self._steps_path, "step", steps, write)
        # Without a checkpoint a run may start from another model than its epoch 0 was of.
        self.epochs = _taken_up(self._epochs_path, "epoch", epochs if steps else -1, write)

    @property
    def trained(self) -> list[Row]:
        """The rows of epochs but for epoch 0, which runs of earlier versions lack."""
        return [row for row in self.epochs if row["epoch"]]

    def add_steps(self, rows: Sequence[Row]) -> None:
        """Appends rows of steps; their `step` counts from 1."""
        self.steps += rows
        if rows and self._write:
            with storage_errors(f"cannot write {self._steps_path}"):
                _append(self._steps_path, rows)

    def add_epoch(self, row: Row) -> None:
        """Appends the row of an epoch; `epoch` counts from 1, and is 0 before the first step."""
        self.epochs.append(row)
        if self._write:
            with storage_errors(f"cannot write {self._epochs_path}"):
                _append(self._epochs_path, [row])


def read(path: Path) -> list[Row]:
    """The rows of a file; a last line that was cut short is none.

    Raises:
        TrainError: another line is no row.
    """
    if not path.exists():
        return []
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
        return [json.loads(line) for line in lines[:-1]]
    except ValueError as error:
        raise TrainError(
            f"{path}: expected a line of JSON for each row, found something else ({error}); "
            "bring it back, or give another --out"
        ) from error


def _taken_up(path: Path, counter: str, done: int, write: bool) -> list[Row]:
    rows = [row for row in read(path) if row[counter] <= done]
    found = sum(row[counter] > 0 for row in rows)
    if found < done:
        raise TrainError(
            f"{path}: expected rows of {done} {counter}s, found {found}; "
            "bring it back, or give another --out"
        )
    text = "".join(_line(row) for row in rows)
    if write and path.exists() and path.read_text(encoding="utf-8") != text:
        with storage_errors(f"cannot write {path}"):
            write_file(path, lambda aside: aside.write_text(text, "utf-8"))
            sync_folder(path.parent)
    return rows


def _append(path: Path, rows: Sequence[Row]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write("".join(_line(row) for row in rows))
        file.flush()
        os.fsync(file.fileno())


def _line(row: Row) -> str:
    return json.dumps(row, allow_nan=False) + "\n"
