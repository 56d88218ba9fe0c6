"""What else the machine does is told apart from the benchmark's own work."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rsicd_embed.bench import quiet
from rsicd_embed.bench.quiet import Watch

TICK = 100


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two processors, whose time is what the test says."""
    path = tmp_path / "stat"
    monkeypatch.setattr(quiet, "_STAT", path)
    monkeypatch.setattr(os, "sysconf", lambda name: TICK)
    return path


def set_clock(
    path: Path, patch: pytest.MonkeyPatch, *, busy: float, idle: float, own: float
) -> None:
    """Seconds; a third of what is busy is stolen by other machines."""
    user, steal = int(busy * TICK * 2 / 3), int(busy * TICK / 3)
    path.write_text(f"cpu  {user} 0 0 {int(idle * TICK)} 0 0 0 {steal} 99 99\ncpu0 1 2 3\n")
    patch.setattr(os, "times", lambda: (own / 2, own / 4, own / 4, 0.0, 1e9))


@pytest.mark.parametrize(("busy", "own", "share"), [(90, 90, 0), (90, 30, 0.5), (120, 0, 1)])
def test_the_share_of_others(
    machine: Path, monkeypatch: pytest.MonkeyPatch, busy: float, own: float, share: float
) -> None:
    set_clock(machine, monkeypatch, busy=300, idle=300, own=6)
    watch = Watch.begin()
    assert watch is not None
    set_clock(machine, monkeypatch, busy=300 + busy, idle=300 + 120 - busy, own=6 + own)
    assert watch.others_share() == pytest.approx(share)


def test_no_time_has_passed(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_clock(machine, monkeypatch, busy=3, idle=3, own=0)
    watch = Watch.begin()
    assert watch is not None
    assert watch.others_share() is None


@pytest.mark.parametrize("text", [None, "", "cpu a b", "cpu"])
def test_a_system_that_does_not_tell(machine: Path, text: str | None) -> None:
    if text is not None:
        machine.write_text(text)
    assert Watch.begin() is None


def test_this_machine() -> None:
    watch = Watch.begin()
    if watch is None:
        pytest.skip("needs /proc/stat")
    assert 0 < watch.busy_s <= watch.all_s
    assert watch.own_s > 0
