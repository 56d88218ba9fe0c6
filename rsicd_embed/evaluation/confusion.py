"""A confusion matrix as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rsicd_embed.errors import BenchError
from rsicd_embed.files import make_folder, storage_errors, sync_folder, write_file

_NUMBERED = 40  # classes up to which each cell shows its count
_INCHES_A_CLASS = 0.32
_DARK = 0.55  # share of a row from which a cell needs light ink


def require_library() -> None:
    """Says early, not after the work, that pictures cannot be drawn.

    Raises:
        BenchError: matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ModuleNotFoundError as error:
        raise BenchError(
            f"the confusion picture needs {error.name}, which is not installed: "
            "pip install 'rsicd-embed[eval]'"
        ) from error


def draw(confusion: np.ndarray, names: Sequence[str], title: str, path: Path) -> None:
    """Writes a PNG: a row for each right class, coloured by the share of its images.

    Args:
        confusion: int (classes, classes), images of a class (row) by what they were called.
        names: of the classes.
        title: above the picture.
        path: where it goes; its folder is made.

    Raises:
        StoreError: it cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    n = len(names)
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    side = min(max(4.0, _INCHES_A_CLASS * n), 40.0)
    figure = Figure(figsize=(side + 3.2, side + 2.4), layout="constrained")
    axes = figure.add_subplot()
    picture = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    font = min(8.0, 72 * side / n * 0.6)
    ticks = np.arange(n)
    labels = [f"{name} ({count})" for name, count in zip(names, confusion.sum(axis=1), strict=True)]
    axes.set_yticks(ticks, labels, fontsize=font, parse_math=False)
    axes.set_xticks(ticks, names, fontsize=font, rotation=90, parse_math=False)
    axes.set_xlabel("called", fontsize=9)
    axes.set_ylabel("is (images)", fontsize=9)
    axes.set_title(title, fontsize=10, wrap=True, parse_math=False)
    axes.set_xticks(ticks[1:] - 0.5, minor=True)
    axes.set_yticks(ticks[1:] - 0.5, minor=True)
    axes.grid(which="minor", color="0.9", linewidth=0.4)
    axes.tick_params(which="both", length=0)
    if n <= _NUMBERED:
        for row, column in np.argwhere(confusion):
            ink = "white" if shares[row, column] > _DARK else "black"
            axes.text(
                column, row, str(confusion[row, column]),
                ha="center", va="center", fontsize=font * 0.9, color=ink,
            )  # fmt: skip
    figure.colorbar(picture, ax=axes, shrink=0.5, label="share of the row")
    with storage_errors(f"cannot write {path}"):
        make_folder(path.parent)
        canvas = FigureCanvasAgg(figure)
        write_file(path, lambda aside: canvas.print_figure(aside, dpi=120, format="png"))
        sync_folder(path.parent)
