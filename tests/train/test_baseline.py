"""Choosing the best epoch, and warnings about epochs worse than the initial model."""

from __future__ import annotations

import warnings
from typing import Any

import pytest

from rsicd_embed.train.journal import score, warn_if_never_better, warn_if_worse


def test_score() -> None:
    row = {"mr": 0.1, "zeroshot_top1": 0.7, "val_loss": 2.0}
    assert score(row, "mean") == pytest.approx(0.4)
    assert score({"mr": 0.1}, "mean") == pytest.approx(0.1)
    assert score(row, "zeroshot_top1") == 0.7
    assert score(row, "val_loss") == -2.0
    assert score({"loss": 1.0}, "mean") == score({"loss": 1.0}, "mr") == float("-inf")


def rows(*figures: float | None, by: str = "mr", first: int = 0) -> list[dict[str, Any]]:
    """Journal rows from epoch `first` on; None for an unevaluated epoch."""
    return [
        {"epoch": epoch} | ({} if figure is None else {by: figure})
        for epoch, figure in enumerate(figures, start=first)
    ]


def warned(log: list[dict[str, Any]], by: str) -> list[str]:
    """Warnings of a run with this journal, after each epoch and at the end."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for number, row in enumerate(log):
            if row["epoch"] and by in row:
                warn_if_worse(row, log[:number], by)
        warn_if_never_better(log, by)
    return [str(warning.message) for warning in caught]


def test_warns_each_time_val_falls_below_the_start() -> None:
    messages = warned(rows(0.5, 0.4, None, 0.3, 0.6, 0.45, 0.5), "mr")
    assert [text.partition(":")[0] for text in messages] == [
        "epoch 1 is worse on val than the model before training",
        "epoch 5 is worse on val than the model before training",
    ]
    assert "mr 0.4000 instead of 0.5000; a lower --learning-rate may help" in messages[0]


def test_lower_loss_is_better() -> None:
    (message,) = warned(rows(2.0, 1.5, 2.5, by="val_loss"), "val_loss")
    assert message.startswith("epoch 2 is worse")
    assert "val_loss 2.5000 instead of 2.0000" in message


def test_warns_at_the_end_of_a_run_that_never_improved() -> None:
    *_, message = warned(rows(0.5, 0.3, 0.4), "mr")
    assert message.startswith("no epoch is as good on val as the model before training; the best")
    assert "epoch 2, mr 0.4000 instead of 0.5000" in message


@pytest.mark.parametrize(
    "log",
    [
        rows(0.5, 0.5, 0.6),
        rows(0.4, 0.3, first=1),  # from an earlier version, without epoch 0
        rows(None, 0.3, first=1),
        rows(0.5),
    ],
)
def test_no_warning_without_a_fall(log: list[dict[str, Any]]) -> None:
    assert warned(log, "mr") == []
