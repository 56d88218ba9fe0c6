"""A short run of `python -m tests.stress`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .__main__ import main
from .corruption import corrupt
from .faults import fail
from .kills import kill

pytestmark = pytest.mark.parametrize("scheme", ["exact", "nmslib", "lancedb"])


@pytest.mark.parametrize("kills", [8, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_writers_leave_the_old_state_or_the_new_one(scheme: str, kills: int) -> None:
    done = kill(scheme, kills, seed=1)
    assert done.failures == []
    assert done.kills == kills
    assert done.changes > 0


@pytest.mark.parametrize("changes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_failing_and_full_disks(scheme: str, changes: int) -> None:
    done = fail(scheme, changes, seed=0)
    assert done.failures == []
    assert done.old > 10


@pytest.mark.parametrize("mutations", [30, pytest.param(60, marks=pytest.mark.slow)])
def test_damage_gives_an_error_or_the_correct_result(scheme: str, mutations: int) -> None:
    done = corrupt(scheme, mutations, seed=1)
    assert done.examples == []
    assert done.refused + done.right == done.mutations == mutations


def test_program_writes_a_record(
    scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "stress.json"
    few = ["--store", scheme, "--kills", "1", "--faults", "1", "--mutations", "3"]
    monkeypatch.setattr("sys.argv", ["tests.stress", *few, "-o", str(output)])
    main()
    record = json.loads(output.read_text(encoding="utf-8"))["stores"][scheme]
    assert record["kills"]["kills"] == 1
    assert sum(record["faults"]["changes"].values()) == 1
    assert sum(record["corruption"]["kinds"].values()) == record["corruption"]["mutations"] == 3
