"""Plots of one or several runs: loss by step, and metrics on val."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rsicd_embed.errors import TrainError
from rsicd_embed.files import storage_errors, write_file
from rsicd_embed.train import journal
from rsicd_embed.train.observers import Row

# Val metrics shown, and their names in the legend.
_VAL_METRICS = {"zeroshot_top1": "zero-shot top-1", "mr": "mean retrieval R@k (mR)"}


def draw(runs: Mapping[str, Path], path: Path) -> None:
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
        steps = journal.read(folder / "steps.jsonl")
        epochs = journal.read(folder / "metrics.jsonl")
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
