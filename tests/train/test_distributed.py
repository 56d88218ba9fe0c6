"""Two processes over loopback: the losses of one, and checkpoints that either can read."""

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
from rsicd_embed.train.mesh import layout
from rsicd_embed.train.step import make_step

from .on_two_processes import SETTINGS
from .steps import batch, begin, config, recipe


def start(folder: Path, address: str, number: int) -> subprocess.Popen[str]:
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=1 --xla_backend_optimization_level=0",
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
def said(checkpoints: Path) -> list[dict[str, Any]]:
    # Another program may take the port before the first of the two does.
    for _ in range(5):
        outputs, errors = together(checkpoints)
        if not any("in use" in text for text in errors):
            break
    assert errors == ["", ""]
    return [json.loads(output.splitlines()[-1]) for output in outputs]


def together(checkpoints: Path) -> tuple[list[str], list[str]]:
    """What two processes print, and what those that failed print on stderr."""
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
def test_two_processes_compute_what_one_does(said: list[dict[str, Any]]) -> None:
    assert [one["processes"] for one in said] == [2, 2]
    assert said[0]["together"] == said[1]["together"]
    for one in said:
        assert one["sharded"]
        np.testing.assert_allclose(one["together"], one["alone"], atol=1e-5)
        assert len(set(one["together"])) == 3


@pytest.mark.slow
def test_each_feeds_its_own_rows_and_one_writes(said: list[dict[str, Any]]) -> None:
    assert [one["own"] for one in said] == [list(range(8)), list(range(8, 16))]
    assert [one["writer"] for one in said] == [True, False]
    assert all(one["said"] and not one["nobody"] for one in said)


@pytest.mark.slow
def test_one_process_takes_up_what_two_have_left(
    said: list[dict[str, Any]], checkpoints: Path
) -> None:
    assert [one["step"] for one in said] == [2, 2]
    of = recipe(config(**SETTINGS))
    with Checkpoints(checkpoints) as here:
        state, step = here.restore(begin(of))
    assert step == 2
    _, metrics = make_step(of)(state, batch(2))
    assert float(metrics["loss"]) == pytest.approx(said[0]["together"][2], abs=1e-5)


def test_alone_there_is_nobody_to_wait_for() -> None:
    distributed.connect()
    assert distributed.is_writer()
    assert distributed.any_process(True)
    assert not distributed.any_process(False)
    distributed.wait_for_all("here")
    rows = distributed.own_rows(layout("data", jax.devices()[:1]), 5)
    np.testing.assert_array_equal(rows, np.arange(5))


def test_an_environment_that_says_too_little(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(distributed.COORDINATOR, "127.0.0.1:1")
    monkeypatch.setenv(distributed.PROCESSES, "two")
    with pytest.raises(TrainError, match="expected JAX_NUM_PROCESSES to be a whole number"):
        distributed.connect()


def test_the_cluster_is_asked_once_and_only_when_it_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[Any] = []
    monkeypatch.delenv(distributed.COORDINATOR, raising=False)
    monkeypatch.setattr(jax.distributed, "initialize", lambda *who: asked.append(who))
    distributed.connect()
    assert not asked
    distributed.connect(detect=True)
    assert asked == [(None, None, None)]
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
    distributed.connect(detect=True)  # the second arm of `train arms`
    assert len(asked) == 1


def test_where_there_is_no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*who: Any) -> None:
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.delenv(distributed.COORDINATOR, raising=False)
    monkeypatch.setattr(jax.distributed, "initialize", refuse)
    with pytest.raises(TrainError, match="should be defined; where no cluster says it, set JAX_"):
        distributed.connect(detect=True)
