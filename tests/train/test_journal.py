"""The rows of a run on disk, also after interruptions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rsicd_embed.errors import TrainError
from rsicd_embed.train.journal import Journal, read


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
