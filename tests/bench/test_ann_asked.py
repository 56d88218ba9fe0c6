"""`bench ann` with texts as queries, and interrupted runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rsicd_embed.bench.ann import ann_run as ann_run
from rsicd_embed.bench.ann.worker import ContenderWorker
from rsicd_embed.testing.stores import MADE_BY, batch, unit
from tests.helpers import filled, run

WORDS = ("--rounds", "2", "--one-process", "--against", "none")


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    file = tmp_path / "texts.txt"
    file.write_text("a harbour\n\n a river \na harbour\n", encoding="utf-8")
    return file


def ann(*options: str | Path) -> Any:
    return run("bench", "ann", *WORDS, *options)


@pytest.mark.slow
def test_texts_are_the_queries(
    tiny_model: Path, pictures: Path, texts: Path, tmp_path: Path
) -> None:
    uri = f"exact:{tmp_path / 'store'}"
    assert run("ingest", pictures, "--store", uri, "--model", tiny_model).status == 0
    words = ("--store", uri, "--texts", texts, "--model", tiny_model, "--k", "2")
    done = ann(*words, "--stores", "exact", "-o", tmp_path / "out", "--json")
    assert done.status == 0, done.stderr
    assert done.document["vectors"]["rows"] == 5
    assert done.document["queries"] == {"count": 2, "kinds": {"given": 2}}
    assert done.document["states"]["optimized"]["contenders"]["exact"]["ann_recall"] == 1.0


def test_a_store_of_another_model_is_refused(tiny_model: Path, texts: Path, tmp_path: Path) -> None:
    uri = filled(f"exact:{tmp_path / 'store'}", batch([f"{i}" for i in range(30)], unit(30)))
    words = ("--store", uri, "--texts", texts, "--model", tiny_model, "-o", tmp_path / "out")
    error = ann(*words).error
    assert MADE_BY.model in error
    assert not (tmp_path / "out").exists()


def test_no_texts(tiny_model: Path, tmp_path: Path) -> None:
    uri = filled(f"exact:{tmp_path / 'store'}", batch([f"{i}" for i in range(30)], unit(30)))
    (tmp_path / "empty.txt").write_text("\n \n")
    (tmp_path / "noise.txt").write_bytes(b"\xff\xfe\xfd")
    words = ("--store", uri, "--model", tiny_model, "-o", tmp_path / "out", "--texts")
    assert "expected texts, one per line, found none" in ann(*words, tmp_path / "empty.txt").error
    assert "expected texts in UTF-8, one per line" in ann(*words, tmp_path / "noise.txt").error


def interrupted(monkeypatch: pytest.MonkeyPatch, method: str, call: int) -> None:
    """Simulates Ctrl-C at the given call of a method."""
    usual, calls = getattr(ContenderWorker, method), iter(range(1_000_000))

    def stopping(self: ContenderWorker, *arguments: Any) -> Any:
        if next(calls) == call:
            raise KeyboardInterrupt
        return usual(self, *arguments)

    monkeypatch.setattr(ContenderWorker, method, stopping)


@pytest.mark.parametrize(
    ("method", "call", "states", "steps"),
    [
        ("singles", 20, ["as upserted", "optimized"], 0),  # during a round of the second state
        ("batches", 0, ["as upserted", "optimized"], 0),  # during the batches
        (
            "configure",
            3,
            ["as upserted", "optimized"],
            0,
        ),  # before the first round of the sweep is complete
        ("batch_answers", 3, ["as upserted", "optimized"], 2),  # after the rounds of the sweep
    ],
)
def test_results_before_an_interruption_are_kept(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    method: str,
    call: int,
    states: list[str],
    steps: int,
) -> None:
    monkeypatch.setattr(ann_run, "_SWEEP_SAMPLE_S", 0.001)
    interrupted(monkeypatch, method, call)
    words = ("--rows", "1500", "--dim", "8", "--queries", "20", "--stores", "nmslib")
    done = ann(*words, "--sweep", "efSearch=20,50", "-o", tmp_path)
    assert done.status == 130, done.stderr
    document = json.loads((tmp_path / "bench-ann.json").read_text())
    assert document["complete"] is False
    assert list(document["states"]) == states[: len(document["states"])]
    assert len(document["sweep"]) == steps
    for point in document["points"]:
        assert point["p50_ns"] > 0
    page = (tmp_path / "bench-ann.html").read_text(encoding="utf-8")
    assert "This run was interrupted" in page
    error = run("bench", "recommend", tmp_path / "bench-ann.json", "--recall", "0.9").error
    assert "found an interrupted run" in error
    assert run("bench", "report", tmp_path / "bench-ann.json", "-o", tmp_path / "x").status == 0


@pytest.mark.slow
def test_a_signal_to_all_processes(tmp_path: Path) -> None:
    """Like a terminal, sends the signal to the command and its subprocesses."""
    words = ["bench", "ann", "--rows", "2000", "--dim", "8", "--rounds", "1000", "--against"]
    # Shells ignore SIGINT in background jobs, which may include these tests.
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    code += "from rsicd_embed.cli import main; main()"
    command = [sys.executable, "-c", code, *words, "none"]
    with subprocess.Popen(
        [*command, "-o", str(tmp_path)],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "as upserted: round" in line:
                break
        os.killpg(process.pid, signal.SIGINT)
        _, stderr = process.communicate(timeout=600)
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr
    document = json.loads((tmp_path / "bench-ann.json").read_text())
    assert (document["complete"], list(document["states"])) == (False, ["as upserted"])
