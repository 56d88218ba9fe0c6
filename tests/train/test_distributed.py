"""Two processes on one machine: same losses as one process, interchangeable checkpoints."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from rsicd_embed.errors import TrainError
from rsicd_embed.train import distributed
from rsicd_embed.train.checkpoint import Checkpoints
from rsicd_embed.train.distributed import layout
from rsicd_embed.train.step import make_step

from .on_two_processes import SETTINGS
from .steps import batch, begin, config, recipe


def start(folder: Path, address: str, number: int) -> subprocess.Popen[str]:
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": "1",
        distributed.COORDINATOR: address,
        distributed.PROCESSES: "2",
        distributed.PROCESS: str(number),
    }
    command = [sys.executable, "-m", "tests.train.on_two_processes", str(folder)]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("run") / "checkpoints"


@pytest.fixture(scope="module")
def results(checkpoints: Path) -> list[dict[str, Any]]:
    # Another program may take the port before the first process does.
    for _ in range(5):
        outputs, errors = together(checkpoints)
        if not any("in use" in text for text in errors):
            break
    assert errors == ["", ""]
    return [json.loads(output.splitlines()[-1]) for output in outputs]


def together(checkpoints: Path) -> tuple[list[str], list[str]]:
    """Stdout of both processes, and stderr of those that failed."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    processes = [start(checkpoints, address, number) for number in range(2)]
    try:
        printed = [process.communicate(timeout=600) for process in processes]
    finally:
        for process in processes:
            process.kill()
    failed = [
        (errors or "failed without a word") if process.returncode else ""
        for process, (_, errors) in zip(processes, printed, strict=True)
    ]
    return [output for output, _ in printed], failed


@pytest.mark.slow
def test_two_processes_compute_the_same_as_one(results: list[dict[str, Any]]) -> None:
    assert [result["processes"] for result in results] == [2, 2]
    assert results[0]["together"] == results[1]["together"]
    for result in results:
        assert result["sharded"]
        np.testing.assert_allclose(result["together"], result["alone"], atol=1e-5)
        assert len(set(result["together"])) == 3


@pytest.mark.slow
def test_each_process_feeds_its_own_rows_and_one_writes(results: list[dict[str, Any]]) -> None:
    assert [result["own"] for result in results] == [list(range(8)), list(range(8, 16))]
    assert [result["writer"] for result in results] == [True, False]
    assert all(result["agreed"] and not result["nobody"] for result in results)


@pytest.mark.slow
def test_one_process_resumes_the_run_of_two(
    results: list[dict[str, Any]], checkpoints: Path
) -> None:
    assert [result["step"] for result in results] == [2, 2]
    of = recipe(config(**SETTINGS))
    with Checkpoints(checkpoints) as saved:
        state, step = saved.restore(begin(of))
    assert step == 2
    _, metrics = make_step(of)(state, batch(2))
    assert float(metrics["loss"]) == pytest.approx(results[0]["together"][2], abs=1e-5)


def test_a_single_process() -> None:
    distributed.connect()
    assert distributed.is_writer()
    assert distributed.any_process(True)
    assert not distributed.any_process(False)
    distributed.wait_for_all("here")
    rows = distributed.own_rows(layout("data", jax.devices()[:1]), 5)
    np.testing.assert_array_equal(rows, np.arange(5))


def test_incomplete_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(distributed.COORDINATOR, "127.0.0.1:1")
    monkeypatch.setenv(distributed.PROCESSES, "two")
    with pytest.raises(TrainError, match="expected JAX_NUM_PROCESSES to be a whole number"):
        distributed.connect()


def test_the_cluster_is_detected_once_and_only_on_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[Any] = []
    monkeypatch.delenv(distributed.COORDINATOR, raising=False)
    monkeypatch.setattr(jax.distributed, "initialize", lambda *who: calls.append(who))
    distributed.connect()
    assert not calls
    distributed.connect(detect=True)
    assert calls == [(None, None, None)]
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
    distributed.connect(detect=True)  # as in the second run of `train arms`
    assert len(calls) == 1


def test_without_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*who: Any) -> None:
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.delenv(distributed.COORDINATOR, raising=False)
    monkeypatch.setattr(jax.distributed, "initialize", refuse)
    with pytest.raises(TrainError, match="should be defined; without a cluster, set JAX_"):
        distributed.connect(detect=True)
