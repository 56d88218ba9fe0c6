"""`ingest --engine ray` with Ray itself: two nodes, and workers that are killed."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from .helpers import rows, run

_PATIENCE_S = 1200.0

ENVIRONMENT = {
    **os.environ,
    "RAY_ADDRESS": "",
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
}


def require_started(output: str) -> None:
    """Skips the test if Ray gave up; it waits for 30 s, which is too short on a busy machine."""
    if "timed out during startup" in output:
        pytest.skip("Ray did not start within its own limit of 30 s")


def last_line_of(program: str, *words: str | Path | int) -> Any:
    """The JSON in the last line of a Python program that uses Ray; skips if Ray cannot start."""
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        timeout=_PATIENCE_S,
        env=ENVIRONMENT,
    )
    require_started(done.stderr)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@contextmanager
def node(*words: str) -> Iterator[None]:
    """Runs a node of a cluster, with one processor."""
    command = [str(Path(sys.executable).with_name("ray")), "start", *words]
    with subprocess.Popen(
        [*command, "--num-cpus", "1", "--block"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=ENVIRONMENT,
    ) as process:
        assert process.stdout is not None
        lines: list[str] = []
        try:
            for line in process.stdout:
                lines.append(line)
                if "Ray runtime started" in line:
                    break
            else:
                require_started("".join(lines))
                pytest.fail("".join(lines))
            yield
        finally:
            process.terminate()
            process.communicate(timeout=_PATIENCE_S)


@pytest.mark.slow
def test_two_nodes(pictures: Path, tiny_model: Path, uri: str, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    head = ("--head", "--port", address.partition(":")[2], "--node-ip-address", "127.0.0.1")
    words = ["ingest", pictures, "--model", tiny_model, "--batch-size", 2, "--store"]
    with node(*head, "--include-dashboard", "false"), node("--address", address):
        command = [sys.executable, "-c", "from rsicd_embed.cli import main; main()"]
        command += [*map(str, words), uri, "--engine", "ray", "--address", address]
        done = subprocess.run(
            [*command, "--workers", "2", "--json"],
            capture_output=True,
            text=True,
            check=False,
            timeout=_PATIENCE_S,
            env=ENVIRONMENT,
        )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["embedded"] == 5
    local = f"exact:{tmp_path / 'local'}"
    assert run(*words, local).status == 0
    assert rows(uri) == rows(local)


# Starts Ray with two workers, one of which is killed when it embeds its first images.
PROGRAM = """
import json, os, signal, sys
import rsicd_embed
from rsicd_embed.indexing.ingest import ingest_with
from rsicd_embed.indexing.ray_workers import RayWorkers
from rsicd_embed.stores.base import open_store

pictures, model, uri, mark = sys.argv[1:]
sources = rsicd_embed.open_sources([pictures])

def load():
    embedder = rsicd_embed.load_embedder(model, batch_size=2)
    embed = embedder.embed_pixels

    def embed_or_die(pixels):
        try:
            os.close(os.open(mark, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return embed(pixels)
        os.kill(os.getpid(), signal.SIGKILL)

    embedder.embed_pixels = embed_or_die
    return embedder

with RayWorkers(load, address="local", count=2) as workers:
    with open_store(uri, workers.provenance) as store:
        first = ingest_with(sources, workers, store)
        again = ingest_with(sources, workers, store)
print(json.dumps([first.embedded, again.unchanged, "jax" in sys.modules, os.path.exists(mark)]))
"""


@pytest.mark.slow
def test_a_worker_that_is_killed(
    pictures: Path, tiny_model: Path, uri: str, tmp_path: Path
) -> None:
    pytest.importorskip("ray")
    words = [pictures, tiny_model, uri, tmp_path / "killed"]
    assert last_line_of(PROGRAM, *words) == [5, 5, False, True]
    local = f"exact:{tmp_path / 'local'}"
    command = ("ingest", pictures, "--store", local, "--model", tiny_model, "--batch-size", "2")
    assert run(*command).status == 0
    assert rows(uri) == rows(local)
