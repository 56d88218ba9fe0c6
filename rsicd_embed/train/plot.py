"""Curves of one or several runs in a picture: loss by step, and what was measured on val."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rsicd_embed.errors import TrainError
from rsicd_embed.files import storage_errors, write_file
from rsicd_embed.train import journal

# Figures of val, and what they are called in the picture.
_MEASURED = {"zeroshot_top1": "zero-shot top-1", "mr": "mean retrieval R@k (mR)"}


def draw(runs: Mapping[str, Path], picture: Path) -> None:
    """Draws the curves of runs' folders, by name, as a PNG.

    Train loss is smoothed with a running mean of a twentieth of the run; of a run with a teacher it
    is the captions' part. Val loss is drawn where a run has it.

    Raises:
        TrainError: a folder holds no run, or matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise TrainError(
            "drawing needs matplotlib, which is not installed: pip install 'rsicd-embed[train]'"
        ) from error
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    losses, measured = figure.subplots(1, 2)
    for number, (name, folder) in enumerate(runs.items()):
        steps = journal.read(folder / "steps.jsonl")
        epochs = journal.read(folder / "metrics.jsonl")
        if not steps or not epochs:
            raise TrainError(f"expected the log of a run in {folder}, found none")
        colour = f"C{number}"
        key, kind = _trained_on(steps[0])
        x, y = _smoothed([row["step"] for row in steps], [row[key] for row in steps])
        losses.plot(x, y, color=colour, alpha=0.55, label=_label(runs, name, f"train ({kind})"))
        _curve(losses, epochs, "val_loss", color=colour, label=_label(runs, name, "val (softmax)"))
        for style, (key, words) in zip(("-", "--"), _MEASURED.items(), strict=True):
            _curve(
                measured, epochs, key, color=colour, linestyle=style,
                label=_label(runs, name, words),
            )  # fmt: skip
    losses.set(xlabel="step", ylabel="loss", title="Loss")
    measured.set(xlabel="step", ylabel="fraction", title="On val", ylim=(0, 1))
    for axes in (losses, measured):
        axes.grid(alpha=0.25)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize="small")
    with storage_errors(f"cannot write {picture}"):
        write_file(picture, lambda aside: figure.savefig(aside, format="png", dpi=110))


def _trained_on(step: journal.Row) -> tuple[str, str]:
    """Which figure of a step is the loss of the captions, and what kind of loss that is.

    What a teacher adds to it is no loss of val, and a sigmoid loss, the only one with a bias, is
    not that of val.
    """
    key = "contrastive" if "contrastive" in step else "loss"
    return key, "sigmoid" if "bias" in step else "softmax"


def _label(runs: Mapping[str, Path], name: str, what: str) -> str:
    return what if len(runs) == 1 else f"{name}: {what}"


def _curve(axes: Any, rows: list[journal.Row], key: str, **how: Any) -> None:
    points = [(row["step"], row[key]) for row in rows if key in row]
    if points:
        axes.plot(*zip(*points, strict=True), marker="o", markersize=3, **how)


def _smoothed(x: list[int], y: list[float]) -> tuple[list[int], list[float]]:
    window = max(1, len(y) // 20)
    sums = [0.0]
    for value in y:
        sums.append(sums[-1] + value)
    means = [(sums[i + window] - sums[i]) / window for i in range(len(y) - window + 1)]
    return x[window - 1 :], means
