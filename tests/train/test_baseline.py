"""Val before training: what epochs are compared with, and when a warning says so."""

from __future__ import annotations

import warnings
from typing import Any

import pytest

from rsicd_embed.train.journal import score, warn_if_never_better, warn_if_worse


def test_what_the_best_is_chosen_by() -> None:
    row = {"mr": 0.1, "zeroshot_top1": 0.7, "val_loss": 2.0}
    assert score(row, "mean") == pytest.approx(0.4)
    assert score({"mr": 0.1}, "mean") == pytest.approx(0.1)
    assert score(row, "zeroshot_top1") == 0.7
    assert score(row, "val_loss") == -2.0
    assert score({"loss": 1.0}, "mean") == score({"loss": 1.0}, "mr") == float("-inf")


def rows(*figures: float | None, by: str = "mr", first: int = 0) -> list[dict[str, Any]]:
    """Rows of epochs from `first` on; None for an epoch that was not evaluated."""
    return [
        {"epoch": epoch} | ({} if figure is None else {by: figure})
        for epoch, figure in enumerate(figures, start=first)
    ]


def warned(log: list[dict[str, Any]], by: str) -> list[str]:
    """What a run with this journal is warned of, epoch by epoch and at its end."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for number, row in enumerate(log):
            if row["epoch"] and by in row:
                warn_if_worse(row, log[:number], by)
        warn_if_never_better(log, by)
    return [str(one.message) for one in caught]


def test_a_fall_below_the_start_is_told_each_time_that_it_happens() -> None:
    told = warned(rows(0.5, 0.4, None, 0.3, 0.6, 0.45, 0.5), "mr")
    assert [text.partition(":")[0] for text in told] == [
        "epoch 1 is worse on val than the model before training",
        "epoch 5 is worse on val than the model before training",
    ]
    assert "mr 0.4000 instead of 0.5000; a lower --learning-rate may help" in told[0]


def test_of_a_loss_less_is_better() -> None:
    (told,) = warned(rows(2.0, 1.5, 2.5, by="val_loss"), "val_loss")
    assert told.startswith("epoch 2 is worse")
    assert "val_loss 2.5000 instead of 2.0000" in told


def test_a_run_that_never_gets_back_is_told_at_its_end() -> None:
    *_, told = warned(rows(0.5, 0.3, 0.4), "mr")
    assert told.startswith("no epoch is as good on val as the model before training; the best is")
    assert "epoch 2, mr 0.4000 instead of 0.5000" in told


@pytest.mark.parametrize(
    "log",
    [
        rows(0.5, 0.5, 0.6),
        rows(0.4, 0.3, first=1),  # of an earlier version, without epoch 0
        rows(None, 0.3, first=1),
        rows(0.5),
    ],
)
def test_nothing_is_told_without_a_fall(log: list[dict[str, Any]]) -> None:
    assert warned(log, "mr") == []
