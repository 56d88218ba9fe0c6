"""Metrics of several worker processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rsicd_embed.server.server_metrics import SHARED_FOLDER, Metrics


def test_processes_of_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each running worker has its own lines; one that has just ended is left out."""
    metrics = Metrics()
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    pids = (os.getpid(), os.getppid())
    for pid in (*pids, ended.pid):
        (tmp_path / f"gauge_livesum_{pid}.db").write_bytes(bytes(8))
    (tmp_path / "counter_1.db").write_bytes(bytes(8))
    monkeypatch.setenv(SHARED_FOLDER, str(tmp_path))
    lines = metrics.text().decode().splitlines()
    assert lines.count("# TYPE process_resident_memory_bytes gauge") == 1
    memory = [line for line in lines if line.startswith("process_resident_memory_bytes{")]
    assert [line.split()[0].partition("{")[2] for line in memory] == [
        f'pid="{pid}"}}' for pid in sorted(pids)
    ]
    assert all(float(line.split()[1]) > 0 for line in memory)
    assert sum(line.startswith("process_cpu_seconds_total{") for line in lines) == 2
