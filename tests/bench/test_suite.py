"""The suite of `make bench` is not part of ordinary test runs, and works."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
MAKEFILE = (PROJECT / "Makefile").read_text(encoding="utf-8")


def test_ordinary_runs_exclude_it(request: pytest.FixtureRequest) -> None:
    assert not request.config.pluginmanager.has_plugin("benchmark")
    assert not [item for item in request.session.items if "benchmarks" in item.path.parts]


def command() -> list[str]:
    """The command of `make bench`."""
    match = re.search(r"^bench:.*\n((?:\t.*\n)+)", MAKEFILE, flags=re.MULTILINE)
    assert match
    text = match[1].replace("\\\n", "").replace("$(BIN)/python", sys.executable)
    return shlex.split(text.replace("$(ARGS)", ""))


def run(*options: str) -> subprocess.CompletedProcess[str]:
    # pytest-benchmark times nothing in a worker of pytest-xdist.
    environment = {name: os.environ[name] for name in os.environ if "XDIST" not in name}
    return subprocess.run(
        [*command(), *options],
        cwd=PROJECT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_it_works_and_saves_a_record(tmp_path: Path) -> None:
    """Runs it with short rounds, and again, compared with the first run."""
    storage = f"--benchmark-storage={tmp_path}"
    short = ("-k", "metrics or tokenise", "--benchmark-max-time=0.01", "--benchmark-min-rounds=1")
    first = run(storage, *short)
    assert first.returncode == 0, first.stdout
    (record,) = tmp_path.rglob("*.json")
    assert str(record) in first.stdout + first.stderr
    document = json.loads(record.read_text())
    assert {"cpu", "cores", "packages"} <= set(document["machine_info"])
    assert "node" not in document["machine_info"]
    assert document["git"]["commit"] == document["commit_info"]["id"]
    assert {item["group"] for item in document["benchmarks"]} == {"texts", "metrics"}
    again = run(storage, *short, "--benchmark-compare")
    assert again.returncode == 0, again.stdout
    assert "test_tokenise (0001_" in again.stdout


@pytest.mark.slow
def test_every_benchmark_runs() -> None:
    done = run("--benchmark-disable", "-q")
    assert done.returncode == 0, done.stdout
    assert "skipped" not in done.stdout
