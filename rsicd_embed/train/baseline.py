"""Figures of val, compared with those of the model before training: epoch 0 of the journal."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

from rsicd_embed.train.journal import Row

_REMEDY = "a lower --learning-rate may help"


def score(row: Row, by: str) -> float:
    """What the best epoch is chosen by, higher is better; -inf for one that was not evaluated."""
    if by == "mean" and "mr" in row:
        return float(row["mr"] + row.get("zeroshot_top1", row["mr"])) / 2
    if by not in row:
        return -math.inf
    return float(-row[by] if by == "val_loss" else row[by])


def warn_if_worse(row: Row, before: Sequence[Row], by: str) -> None:
    """Warns when val falls below what it was before training, once for each time that it does.

    Args:
        row: of the epoch that was just evaluated.
        before: the rows before it; nothing is compared where they do not begin with epoch 0.
        by: the figure that the best epoch is chosen by.
    """
    evaluated = [one for one in before if score(one, by) > -math.inf]
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
    """Warns when no epoch of a run reached what val was before training."""
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
