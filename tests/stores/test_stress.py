"""A little of `scripts/stress_stores.py`, which does the same for longer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rsicd_embed.testing.stress.corruption import corrupt
from rsicd_embed.testing.stress.faults import fail
from rsicd_embed.testing.stress.kills import kill
from scripts import stress_stores

pytestmark = pytest.mark.parametrize("scheme", ["exact", "nmslib", "lancedb"])


def test_killed_writers_leave_the_old_state_or_the_new_one(scheme: str) -> None:
    done = kill(scheme, kills=20, seed=1)
    assert done.failures == []
    assert done.kills == 20
    assert done.changes > 0


def test_disks_that_fail_or_are_full(scheme: str) -> None:
    done = fail(scheme, changes=2, seed=0)
    assert done.failures == []
    assert done.old > 10


def test_damage_gives_an_error_or_the_right_answer(scheme: str) -> None:
    done = corrupt(scheme, mutations=60, seed=1)
    assert done.examples == []
    assert done.refused + done.right == done.mutations == 60


def test_the_program_writes_what_it_found(
    scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "stress.json"
    few = ["--store", scheme, "--kills", "1", "--faults", "1", "--mutations", "3"]
    monkeypatch.setattr("sys.argv", ["stress_stores.py", *few, "-o", str(output)])
    stress_stores.main()
    found = json.loads(output.read_text(encoding="utf-8"))["stores"][scheme]
    assert found["kills"]["kills"] == 1
    assert sum(found["faults"]["changes"].values()) == 1
    assert sum(found["corruption"]["kinds"].values()) == found["corruption"]["mutations"] == 3
