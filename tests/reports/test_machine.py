"""CPU contention and memory usage."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest

from rsicd_embed.reports import machine
from rsicd_embed.reports.machine import CpuTimes, cpu_contention


def set_clock(
    patch: pytest.MonkeyPatch, *, busy: float, idle: float, own: float, guest: float = 0.0
) -> None:
    """Sets CPU times in seconds; a third of the busy time is stolen by other machines."""
    times = {
        "user": busy * 2 / 3,
        "steal": busy / 3,
        "idle": idle * 3 / 4,
        "iowait": idle / 4,
        "guest": guest,
    }
    if guest:
        times["user"] += guest
    patch.setattr(psutil, "cpu_times", lambda: SimpleNamespace(_asdict=lambda: times))
    patch.setattr(os, "times", lambda: (own / 2, own / 4, own / 4, 0.0, 1e9))


@pytest.mark.parametrize(("busy", "own", "share"), [(90, 90, 0), (90, 30, 0.5), (120, 0, 1)])
def test_the_share_of_others(
    monkeypatch: pytest.MonkeyPatch, busy: float, own: float, share: float
) -> None:
    set_clock(monkeypatch, busy=300, idle=300, own=6)
    start = CpuTimes.now()
    assert start is not None
    set_clock(monkeypatch, busy=300 + busy, idle=300 + 120 - busy, own=6 + own)
    assert cpu_contention(start) == pytest.approx(share)


def test_guests_are_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    set_clock(monkeypatch, busy=30, idle=70, own=0, guest=10)
    assert CpuTimes.now() == pytest.approx(CpuTimes(110, 40, 0))


def test_no_elapsed_time(monkeypatch: pytest.MonkeyPatch) -> None:
    set_clock(monkeypatch, busy=3, idle=3, own=0)
    assert cpu_contention(CpuTimes.now()) is None


def test_unreadable_cpu_times(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreadable() -> Any:
        raise OSError

    monkeypatch.setattr(psutil, "cpu_times", unreadable)
    assert CpuTimes.now() is None
    assert cpu_contention(None) is None


def test_this_machine() -> None:
    times = CpuTimes.now()
    assert times is not None
    assert 0 < times.busy_s <= times.total_s
    assert times.own_s > 0


def test_memory_usage_and_its_peak_include_allocations() -> None:
    array = np.ones(1 << 24)  # 128 MiB
    usage, peak = machine.memory_usage(), machine.peak_memory_usage()
    # Linux counts them separately, each with an error of some pages per CPU.
    assert min(usage, peak) > array.nbytes
    assert peak > 0.9 * usage


@pytest.mark.skipif(not os.path.exists("/proc/self/clear_refs"), reason="needs Linux's /proc")  # noqa: PTH110
def test_the_peak_memory_can_be_reset() -> None:
    large = np.ones(1 << 26)  # 512 MiB
    peak = machine.peak_memory_usage()
    del large
    machine.reset_peak_memory()
    assert machine.peak_memory_usage() < peak - (1 << 28)
