"""The journal: rows on disk, also after interruptions, and the choice of the best epoch."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest

from rsicd_embed.errors import TrainError
from rsicd_embed.train.journal import Journal, read, score, warn_if_never_better, warn_if_worse


def rows(counter: str, *numbers: int) -> list[dict[str, float]]:
    return [{counter: n, "loss": n / 10} for n in numbers]


def test_rows_are_written_immediately(tmp_path: Path) -> None:
    journal = Journal(tmp_path, 0, 0)
    journal.add_steps(rows("step", 1, 2))
    journal.add_steps([])
    journal.add_steps(rows("step", 3))
    journal.add_epoch({"epoch": 1, "loss": 0.2})
    assert read(tmp_path / "steps.jsonl") == journal.steps == rows("step", 1, 2, 3)
    assert read(tmp_path / "metrics.jsonl") == [{"epoch": 1, "loss": 0.2}]


def test_rows_after_the_checkpoint_are_dropped(tmp_path: Path) -> None:
    journal = Journal(tmp_path, 0, 0)
    journal.add_steps(rows("step", 1, 2, 3))
    with (tmp_path / "steps.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')  # killed while writing
    again = Journal(tmp_path, 2, 0)
    assert again.steps == rows("step", 1, 2)
    again.add_steps(rows("step", 3))
    text = (tmp_path / "steps.jsonl").read_text()
    assert [json.loads(line) for line in text.splitlines()] == rows("step", 1, 2, 3)


def test_epoch_0_stays_with_the_run_that_measured_it(tmp_path: Path) -> None:
    journal = Journal(tmp_path, 0, 0)
    for row in rows("epoch", 0, 1):
        journal.add_epoch(row)
    journal.add_steps(rows("step", 1, 2))
    assert journal.trained == rows("epoch", 1)
    assert Journal(tmp_path, 1, 0).epochs == rows("epoch", 0)  # stopped in its first epoch
    with pytest.raises(TrainError, match="expected rows of 1 epochs, found 0"):
        Journal(tmp_path, 1, 1)
    assert Journal(tmp_path, 0, 0).epochs == []  # restarted, perhaps from another model
    assert read(tmp_path / "metrics.jsonl") == []


def test_missing_rows_are_reported(tmp_path: Path) -> None:
    Journal(tmp_path, 0, 0).add_steps(rows("step", 1, 2))
    with pytest.raises(TrainError, match="expected rows of 3 steps, found 2"):
        Journal(tmp_path, 3, 0)
    with pytest.raises(TrainError, match="expected rows of 1 epochs, found 0"):
        Journal(tmp_path, 2, 1)


def test_score() -> None:
    row = {"mr": 0.1, "zeroshot_top1": 0.7, "val_loss": 2.0}
    assert score(row, "mean") == pytest.approx(0.4)
    assert score({"mr": 0.1}, "mean") == pytest.approx(0.1)
    assert score(row, "zeroshot_top1") == 0.7
    assert score(row, "val_loss") == -2.0
    assert score({"loss": 1.0}, "mean") == score({"loss": 1.0}, "mr") == float("-inf")


def epoch_rows(*figures: float | None, by: str = "mr", first: int = 0) -> list[dict[str, Any]]:
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
    messages = warned(epoch_rows(0.5, 0.4, None, 0.3, 0.6, 0.45, 0.5), "mr")
    assert [text.partition(":")[0] for text in messages] == [
        "epoch 1 is worse on val than the model before training",
        "epoch 5 is worse on val than the model before training",
    ]
    assert "mr 0.4000 instead of 0.5000; a lower --learning-rate may help" in messages[0]


def test_lower_loss_is_better() -> None:
    (message,) = warned(epoch_rows(2.0, 1.5, 2.5, by="val_loss"), "val_loss")
    assert message.startswith("epoch 2 is worse")
    assert "val_loss 2.5000 instead of 2.0000" in message


def test_warns_at_the_end_of_a_run_that_never_improved() -> None:
    *_, message = warned(epoch_rows(0.5, 0.3, 0.4), "mr")
    assert message.startswith("no epoch is as good on val as the model before training; the best")
    assert "epoch 2, mr 0.4000 instead of 0.5000" in message


@pytest.mark.parametrize(
    "log",
    [
        epoch_rows(0.5, 0.5, 0.6),
        epoch_rows(0.4, 0.3, first=1),  # from an earlier version, without epoch 0
        epoch_rows(None, 0.3, first=1),
        epoch_rows(0.5),
    ],
)
def test_no_warning_without_a_fall(log: list[dict[str, Any]]) -> None:
    assert warned(log, "mr") == []
