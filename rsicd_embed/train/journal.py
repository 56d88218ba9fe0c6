"""The journal of a run: one line of JSON per step and per epoch, and plots of them.

OUT/steps.jsonl    step, epoch, loss and other metrics of each step
OUT/metrics.jsonl  epoch, mean loss, images/s, and metrics on val; epoch 0 is the model before
                   training, with metrics on val only
"""

from __future__ import annotations

import json
import math
import os
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np

from rsicd_embed.errors import TrainError
from rsicd_embed.files import storage_errors, sync_folder, write_file
from rsicd_embed.train.observers import Observer, Row
from rsicd_embed.train.state import diverged

T = TypeVar("T")

# Seconds between fetching metrics from the devices: each fetch waits for pending steps.
_FETCH_EVERY_S = 2.0
# Steps queued on the devices: enough to keep them busy, and few enough to stop soon.
_IN_FLIGHT = 2

_REMEDY = "a lower --learning-rate may help"


class Journal:
    """The rows of a run, synced to disk when a method returns.

    After a crash there may be rows of steps later than the last checkpoint. They are dropped on
    resuming, and the steps repeated.
    """

    def __init__(self, out: Path, steps: int, epochs: int, *, write: bool = True) -> None:
        """Opens the journal of a run that has done this many steps and whole epochs.

        Only one of several processes writes the files.
        """
        self._write = write
        self._steps_path, self._epochs_path = out / "steps.jsonl", out / "metrics.jsonl"
        self.steps = _resumed(self._steps_path, "step", steps, write)
        # Without a checkpoint, epoch 0 is dropped too: the run may start from another model.
        self.epochs = _resumed(self._epochs_path, "epoch", epochs if steps else -1, write)

    @property
    def trained(self) -> list[Row]:
        """The rows of all epochs but 0, which runs of earlier versions lack."""
        return [row for row in self.epochs if row["epoch"]]

    def best(self, by: str) -> Row:
        """The first row with the highest score by a metric; see `score`."""
        return max(self.trained, key=lambda row: score(row, by))

    def is_best(self, metrics: Row, by: str) -> bool:
        """Whether metrics are better than those of all epochs so far."""
        highest = max((score(row, by) for row in self.trained), default=-math.inf)
        return score(metrics, by) > highest

    def add_steps(self, rows: Sequence[Row]) -> None:
        """Appends rows of steps; `step` counts from 1."""
        self.steps += rows
        if rows and self._write:
            _append(self._steps_path, rows)

    def add_epoch(self, row: Row) -> None:
        """Appends the row of an epoch; `epoch` counts from 1, with 0 for before training."""
        self.epochs.append(row)
        if self._write:
            _append(self._epochs_path, [row])


class StepLog:
    """Collects the metrics of one epoch's steps that this process runs."""

    def __init__(
        self, journal: Journal, observer: Observer, *, epoch: int, done: int, batch_size: int
    ) -> None:
        """Starts after `done` steps of the run, in `epoch`, which counts from 0."""
        self._journal, self._observer = journal, observer
        self._epoch, self._done, self._batch_size = epoch, done, batch_size
        self._pending: list[dict[str, jax.Array]] = []
        self._images, self._waited = 0, 0.0
        self._started = self._fetched = time.perf_counter()

    def timed(self, batches: Iterable[T]) -> Iterator[T]:
        """Yields `batches`, measuring the time spent waiting for them."""
        iterator = iter(batches)
        while True:
            start = time.perf_counter()
            batch = next(iterator, None)
            self._waited += time.perf_counter() - start
            if batch is None:
                return
            yield batch

    def add(self, metrics: dict[str, jax.Array]) -> None:
        """Adds the metrics of a step that may not be computed yet; limits the steps in flight."""
        self._pending.append(metrics)
        if len(self._pending) > _IN_FLIGHT:
            jax.block_until_ready(self._pending[-1 - _IN_FLIGHT])  # type: ignore[no-untyped-call]
        if time.perf_counter() - self._fetched >= _FETCH_EVERY_S:
            self.fetch()

    def fetch(self) -> None:
        """Waits for the pending steps and writes their rows."""
        rows: list[Row] = []
        bad = ""
        for metrics in jax.device_get(self._pending):
            self._done += 1
            row: Row = {"step": self._done, "epoch": self._epoch + 1}
            row |= {name: float(value) for name, value in metrics.items()}
            infinite = [name for name, value in row.items() if not math.isfinite(value)]
            if infinite:
                bad = "loss" if "loss" in infinite else infinite[0]
                break
            rows.append(row)
        self._pending.clear()
        self._images += len(rows) * self._batch_size
        self._journal.add_steps(rows)
        self._observer.on_steps(rows)
        if bad:
            raise diverged(f"{bad} is not finite", self._done)
        self._fetched = time.perf_counter()

    def epoch_row(self) -> Row:
        """The row of the finished epoch; rate and waiting cover the steps that ran here."""
        self.fetch()
        seconds = time.perf_counter() - self._started
        losses = [row["loss"] for row in self._journal.steps if row["epoch"] == self._epoch + 1]
        return {
            "epoch": self._epoch + 1,
            "step": self._done,
            "loss": float(np.mean(losses)),
            "seconds": round(seconds, 1),
            "images_per_s": round(self._images / seconds, 1),
            "waited_for_data": round(self._waited / seconds, 4),
        }


def read(path: Path) -> list[Row]:
    """Reads the rows of a file; an incomplete last line is ignored."""
    if not path.exists():
        return []
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
        return [json.loads(line) for line in lines[:-1]]
    except ValueError as error:
        raise TrainError(
            f"{path}: expected a line of JSON per row, found something else ({error}); "
            "restore it, or give another --out"
        ) from error


def score(row: Row, by: str) -> float:
    """The metric that selects the best epoch, higher is better; -inf for unevaluated epochs."""
    if by == "mean" and "mr" in row:
        return (row["mr"] + row.get("zeroshot_top1", row["mr"])) / 2
    if by not in row:
        return -math.inf
    return -row[by] if by == "val_loss" else row[by]


def warn_if_worse(row: Row, earlier: Sequence[Row], by: str) -> None:
    """Warns each time that val falls below its value before training."""
    evaluated = [row for row in earlier if score(row, by) > -math.inf]
    if not evaluated or evaluated[0]["epoch"]:
        return
    start, last = evaluated[0], evaluated[-1]
    if score(row, by) < score(start, by) <= score(last, by):
        warnings.warn(
            f"epoch {row['epoch']} is worse on val than the model before training: "
            f"{_compared(row, start, by)}; {_REMEDY}",
            stacklevel=2,
        )


def warn_if_never_better(rows: Sequence[Row], by: str) -> None:
    """Warns if no epoch of a run was as good on val as the model before training."""
    start, *trained = rows
    if start["epoch"] or not trained:
        return
    best = max(trained, key=lambda row: score(row, by))
    if score(best, by) < score(start, by):
        warnings.warn(
            "no epoch is as good on val as the model before training; the best is epoch "
            f"{best['epoch']}, {_compared(best, start, by)}; {_REMEDY}",
            stacklevel=2,
        )


def _compared(row: Row, start: Row, by: str) -> str:
    name = "mean of zero-shot top-1 and mR" if by == "mean" else by
    return f"{name} {abs(score(row, by)):.4f} instead of {abs(score(start, by)):.4f}"


def _resumed(path: Path, counter: str, done: int, write: bool) -> list[Row]:
    rows = [row for row in read(path) if row[counter] <= done]
    count = sum(row[counter] > 0 for row in rows)
    if count < done:
        raise TrainError(
            f"{path}: expected rows of {done} {counter}s, found {count}; "
            "restore it, or give another --out"
        )
    text = _lines(rows)
    if write and path.exists() and path.read_text(encoding="utf-8") != text:
        with storage_errors(f"cannot write {path}"):
            write_file(path, lambda aside: aside.write_text(text, "utf-8"))
            sync_folder(path.parent)
    return rows


def _append(path: Path, rows: Sequence[Row]) -> None:
    with storage_errors(f"cannot write {path}"), path.open("a", encoding="utf-8") as file:
        file.write(_lines(rows))
        file.flush()
        os.fsync(file.fileno())


def _lines(rows: Sequence[Row]) -> str:
    return "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows)


# Val metrics shown, and their names in the legend.
_VAL_METRICS = {"zeroshot_top1": "zero-shot top-1", "mr": "mean retrieval R@k (mR)"}


def plot(runs: Mapping[str, Path], path: Path) -> None:
    """Plots runs, given as folders by name, to a PNG file.

    Train loss is smoothed with a running mean over a twentieth of the run; with a teacher, only the
    contrastive part is shown. Val loss is shown if it was measured.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise TrainError(
            "plotting needs matplotlib, which is not installed: pip install 'rsicd-embed[train]'"
        ) from error
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    losses, metrics = figure.subplots(1, 2)
    for number, (name, folder) in enumerate(runs.items()):
        steps = read(folder / "steps.jsonl")
        epochs = read(folder / "metrics.jsonl")
        if not steps or not epochs:
            raise TrainError(f"expected the log of a run in {folder}, found none")
        colour, prefix = f"C{number}", f"{name}: " if len(runs) > 1 else ""
        key, kind = _trained_on(steps[0])
        x, y = _smoothed([row["step"] for row in steps], [row[key] for row in steps])
        losses.plot(x, y, color=colour, alpha=0.55, label=f"{prefix}train ({kind})")
        _curve(losses, epochs, "val_loss", color=colour, label=f"{prefix}val (softmax)")
        for style, (key, words) in zip(("-", "--"), _VAL_METRICS.items(), strict=True):
            _curve(
                metrics, epochs, key, color=colour, linestyle=style,
                label=prefix + words,
            )  # fmt: skip
    losses.set(xlabel="step", ylabel="loss", title="Loss")
    metrics.set(xlabel="step", ylabel="fraction", title="On val", ylim=(0, 1))
    for axes in (losses, metrics):
        axes.grid(alpha=0.25)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize="small")
    with storage_errors(f"cannot write {path}"):
        write_file(path, lambda aside: figure.savefig(aside, format="png", dpi=110))


def _trained_on(step: Row) -> tuple[str, str]:
    """The metric that holds the contrastive loss, and the kind of that loss.

    Val loss has no part from a teacher and is always softmax; only the sigmoid loss has a bias.
    """
    key = "contrastive" if "contrastive" in step else "loss"
    return key, "sigmoid" if "bias" in step else "softmax"


def _curve(axes: Any, rows: list[Row], key: str, **style: Any) -> None:
    points = [(row["step"], row[key]) for row in rows if key in row]
    if points:
        axes.plot(*zip(*points, strict=True), marker="o", markersize=3, **style)


def _smoothed(x: list[float], y: list[float]) -> tuple[list[float], list[float]]:
    window = max(1, len(y) // 20)
    sums = [0.0]
    for value in y:
        sums.append(sums[-1] + value)
    means = [(sums[i + window] - sums[i]) / window for i in range(len(y) - window + 1)]
    return x[window - 1 :], means
