"""`serve --workers`: a shared port, replaced workers, signals, and failures to start."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from .helpers import PATIENCE_S, run, until
from .test_cli_serve import answer, serving

pytestmark = pytest.mark.slow
SEARCHES = 'rsicd_embed_requests_total{method="GET",route="/api/search"'


def worker_pids(process: subprocess.Popen[str]) -> list[int]:
    """Process ids of the workers, which multiprocessing has spawned."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    commands = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in children}
    return [int(pid) for pid, command in commands.items() if b"spawn_main" in command]


def metric(url: str, name: str) -> float:
    with urlopen(f"{url}metrics", timeout=PATIENCE_S) as response:
        lines = response.read().decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(name))


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_workers_share_a_port_until_signalled(
    stored: str, tiny_model: Path, sent: signal.Signals
) -> None:
    with serving(stored, tiny_model, "--workers", "2", "--log-format", "json") as (process, url):
        pids = set(worker_pids(process))
        assert len(pids) == 2
        for _ in range(20):
            assert len(answer(f"{url}api/search?text=a+port")["hits"]) == 5
        until(lambda: metric(url, SEARCHES) == 20)  # a request is counted after its answer
        assert metric(url, "rsicd_embed_workers") == 2
        for pid in pids:
            assert metric(url, f'process_resident_memory_bytes{{pid="{pid}"}}') > 0
        process.send_signal(sent)
        _, errors = process.communicate(timeout=PATIENCE_S)
    lines: list[dict[str, Any]] = [json.loads(line) for line in errors.splitlines()]
    assert process.returncode == 0
    assert {line["pid"] for line in lines} <= pids
    searches = [line for line in lines if line["path"] == "/api/search"]
    assert [line["rows"] for line in searches] == [5] * 20
    assert len({line["request_id"] for line in lines}) == len(lines)


def test_a_killed_worker_is_replaced(stored: str, tiny_model: Path) -> None:
    with serving(stored, tiny_model, "--workers", "2") as (process, url):
        assert process.stderr is not None
        for number, victim in enumerate(worker_pids(process), 1):
            os.kill(victim, signal.SIGKILL)
            line = process.stderr.readline()
            assert line == f"worker {victim} was ended by SIGKILL; starting another in 0 s\n"
            assert len(answer(f"{url}api/search?text=a+port")["hits"]) == 5
            # Those of killed workers still count.
            until(lambda wanted=number: metric(url, SEARCHES) == wanted)
        process.terminate()
        assert process.communicate(timeout=PATIENCE_S)[1] == ""
        assert process.returncode == 0


def test_workers_end_with_their_supervisor(stored: str, tiny_model: Path) -> None:
    with serving(stored, tiny_model, "--workers", "2") as (process, url):
        pids = worker_pids(process)
        files = [os.pidfd_open(pid) for pid in pids]
        process.kill()
        process.wait(PATIENCE_S)
        for file in files:
            os.set_blocking(file, True)
            waited = subprocess.run(
                [sys.executable, "-c", f"import select; select.select([{file}], [], [], 600)"],
                pass_fds=[file],
                timeout=PATIENCE_S,
                check=False,
            )
            os.close(file)
            assert waited.returncode == 0
        port = int(url.rstrip("/").rpartition(":")[2])
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))


def test_the_rate_is_shared(stored: str, tiny_model: Path) -> None:
    words = ("--workers", "2", "--rate-limit", "0.001", "--rate-burst", "5")
    with serving(stored, tiny_model, *words) as (_, url):
        statuses = []
        for _ in range(12):
            with socket.create_connection(("127.0.0.1", int(url.split(":")[2][:-1]))) as line:
                line.sendall(b"GET /api/columns HTTP/1.1\r\nHost: localhost\r\n\r\n")
                statuses.append(line.recv(65536).split()[1])
        assert statuses == [b"200"] * 5 + [b"429"] * 7


def test_start_failures(stored: str, tiny_model: Path, other_model: Path, tmp_path: Path) -> None:
    words = ("serve", "--workers", "2", "--port", "0", "--store")
    assert "no store at exact:/nowhere" in run(*words, "exact:/nowhere").error
    error = run(*words, stored, "--model", other_model).error
    assert f"contains vectors of model '{tiny_model}'" in error
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        error = run("serve", "--workers", "2", "--port", port, "--store", stored).error
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in error


def test_more_workers_than_the_machine_can_run_are_refused() -> None:
    outcome = run("serve", "--workers", str(10**9), "--store", "exact:absent")
    assert outcome.status == 2
    assert "--workers: expected at most" in outcome.stderr
    assert "4 per processor, found 1000000000" in outcome.stderr
