"""The suite of `make bench` stays out of ordinary runs, and works."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
MAKEFILE = (PROJECT / "Makefile").read_text(encoding="utf-8")


def test_ordinary_runs_do_without_it(request: pytest.FixtureRequest) -> None:
    assert not request.config.pluginmanager.has_plugin("benchmark")
    assert not [one for one in request.session.items if "benchmarks" in one.path.parts]


def command() -> list[str]:
    """What `make bench` runs, without make."""
    found = re.search(r"^bench:.*\n((?:\t.*\n)+)", MAKEFILE, flags=re.MULTILINE)
    assert found
    text = found[1].replace("\\\n", "").replace("$(BIN)/python", sys.executable)
    return shlex.split(text.replace("$(ARGS)", ""))


def run(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*command(), *options], cwd=PROJECT, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_it_works_and_leaves_a_record(tmp_path: Path) -> None:
    """With short rounds; once more, compared with the first time."""
    storage = f"--benchmark-storage={tmp_path}"
    short = ("-k", "metrics or tokenise", "--benchmark-max-time=0.01", "--benchmark-min-rounds=1")
    first = run(storage, *short)
    assert first.returncode == 0, first.stdout
    (record,) = tmp_path.rglob("*.json")
    assert str(record) in first.stdout + first.stderr
    told = json.loads(record.read_text())
    assert {"cpu", "cores", "packages"} <= set(told["machine_info"])
    assert "node" not in told["machine_info"]
    assert told["git"]["commit"] == told["commit_info"]["id"]
    assert {one["group"] for one in told["benchmarks"]} == {"texts", "metrics"}
    again = run(storage, *short, "--benchmark-compare")
    assert again.returncode == 0, again.stdout
    assert "test_tokenise (0001_" in again.stdout


@pytest.mark.slow
def test_every_benchmark_runs() -> None:
    done = run("--benchmark-disable", "-q")
    assert done.returncode == 0, done.stdout
    assert "skipped" not in done.stdout
