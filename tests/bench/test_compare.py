"""`bench compare`: what got worse, and what cannot be compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rsicd_embed.bench.compare import RegressionLimits, compare
from rsicd_embed.reports.record import TASKS
from rsicd_embed.reports.record_metrics import figures
from tests.helpers import run

from . import records
from .records import ann, changed, searched, write

NMSLIB = ("states", "optimized", "contenders", "nmslib")


def worse(before: dict[str, Any], after: dict[str, Any], **limits: float) -> list[str]:
    return [one.name for one in compare(before, after, RegressionLimits(**limits)) if one.is_worse]


def test_a_run_is_no_worse_than_itself() -> None:
    changes = compare(ann(), ann())
    assert len(changes) == len(figures(ann())) > 30
    for one in changes:
        assert one.ratio == 1.0
        assert not one.is_worse
        if one.interval:
            assert one.interval[0] <= 1.0 <= one.interval[1]


def test_what_got_slower_is_named() -> None:
    slower = changed(ann(), *NMSLIB, to=searched(0.999, 1.3, 5000, peak_mb=500))
    named = [f"nmslib, optimized: {at}" for at in ("p50", "p95", "p99")]
    assert worse(ann(), slower) == named
    assert worse(slower, ann()) == []
    assert worse(ann(), slower, threshold=1.4) == []
    found = {one.name: one for one in compare(ann(), slower)}[named[0]]
    assert found.interval is not None
    assert found.interval[0] < 1.3 < found.interval[1]
    assert found.ratio == pytest.approx(1.3)


def test_rates_fall_memory_grows_and_recall_is_lost() -> None:
    less = changed(ann(), *NMSLIB, to=searched(0.95, 1.0, 4000, peak_mb=700))
    assert worse(ann(), less) == [
        "nmslib, optimized: ANN recall@10",
        "nmslib, optimized: batch QPS",
        "nmslib, optimized: peak memory",
    ]
    assert worse(ann(), less, drop=0.1, threshold=2) == []


def test_what_lies_within_the_scatter_of_the_rounds_is_not_worse() -> None:
    noisy = searched(0.999, 1.0, 5000, peak_mb=500)
    for one in noisy["single"]["by_round"].values():
        one[:] = [
            value * times for value, times in zip(one, (0.5, 0.6, 2, 2, 2, 0.5, 2), strict=True)
        ]
    assert worse(ann(), changed(ann(), *NMSLIB, to=noisy)) == []


def test_evaluations_are_judged_by_differences() -> None:
    evaluation = {"task": "retrieval", "machine": {}, "settings": {"credit_duplicates": False}}
    evaluation |= {"dataset": "rsicd", "split": "test", "metrics": {"t2i_r1": 0.11, "mr": 0.3}}
    lower = evaluation | {"metrics": {"t2i_r1": 0.105, "mr": 0.28}}
    assert worse(evaluation, lower) == ["mr"]


@pytest.mark.parametrize("path", sorted(records.BENCHMARKS.glob("*/bench-*.json")), ids=str)
def test_recorded_runs_have_figures(path: Path) -> None:
    from rsicd_embed.reports.record import read

    if path.stem.removeprefix("bench-") not in TASKS:
        pytest.skip("of a script")
    assert worse(read(path), read(path)) == []


def test_the_command(tmp_path: Path) -> None:
    one = write(tmp_path / "a.json", ann())
    slower = changed(ann(), *NMSLIB, to=searched(0.999, 2.0, 5000, peak_mb=500))
    other = write(tmp_path / "b.json", changed(slower, "machine", "cpu", to="another CPU"))
    assert run("bench", "compare", one, one).status == 0
    done = run("bench", "compare", one, other)
    assert done.status == 1
    assert "metrics got worse: nmslib, optimized: p50 1 → 2 ms; nmslib" in done.stderr
    assert "machines or versions differ: cpu: a CPU, then another CPU" in done.stderr
    assert "2.000  1.9" in done.stdout
    assert run("bench", "compare", one, other, "--threshold", "2.5").status == 0
    document = run("bench", "compare", one, other, "--json").document
    assert document["worse"] == [f"nmslib, optimized: {at}" for at in ("p50", "p95", "p99")]
    assert document["machines_differ"] == ["cpu: a CPU, then another CPU"]
    assert run("bench", "compare", one, other, "--threshold", "0.5").status == 2


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (ann(task="serve"), "expected two records of one task, found ann and serve"),
        (changed(ann(), "settings", "k", to=5), "found k 10 and 5; run the benchmark again with"),
        (changed(ann(), "vectors", "rows", to=9), "found rows 100000 and 9"),
        (changed(ann(), "vectors", "source", to="uniform"), "found source clustered and uniform"),
        (ann(states={}, sweep=[], contenders={}), "common metrics, found none"),
        (ann(complete=False), "expected a complete run, found one that was interrupted"),
    ],
)
def test_what_cannot_be_compared(tmp_path: Path, other: dict[str, Any], told: str) -> None:
    files = write(tmp_path / "a.json", ann()), write(tmp_path / "b.json", other)
    assert told in run("bench", "compare", *files).error


def test_files_that_are_no_records(tmp_path: Path) -> None:
    good = write(tmp_path / "good.json", ann())
    for path, what in records.damaged(tmp_path):
        for command in (("compare", good, path), ("recommend", path, "--recall", "0.9")):
            error = run("bench", *command).error
            assert what in error, error
            assert path.name in error
