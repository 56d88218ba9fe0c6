"""`bench compare`: regressions, and records that cannot be compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rsicd_embed.bench.compare import RegressionLimits, compare
from rsicd_embed.errors import BenchError
from rsicd_embed.reports.record import TASKS
from rsicd_embed.reports.record_metrics import figures
from tests.helpers import run

from . import records
from .records import ann, changed, searched, write

NMSLIB = ("states", "optimized", "contenders", "nmslib")


def worse(before: dict[str, Any], after: dict[str, Any], **limits: float) -> list[str]:
    return [
        change.name
        for change in compare(before, after, RegressionLimits(**limits))
        if change.is_worse
    ]


def test_a_run_is_no_worse_than_itself() -> None:
    changes = compare(ann(), ann())
    assert len(changes) == len(figures(ann())) > 30
    for change in changes:
        assert change.ratio == 1.0
        assert not change.is_worse
        if change.interval:
            assert change.interval[0] <= 1.0 <= change.interval[1]


def test_slower_metrics_are_named() -> None:
    slower = changed(ann(), *NMSLIB, to=searched(0.999, 1.3, 5000, peak_mb=500))
    named = [f"nmslib, optimized: {at}" for at in ("p50", "p95", "p99")]
    assert worse(ann(), slower) == named
    assert worse(slower, ann()) == []
    assert worse(ann(), slower, threshold=1.4) == []
    p50 = {change.name: change for change in compare(ann(), slower)}[named[0]]
    assert p50.interval is not None
    assert p50.interval[0] < 1.3 < p50.interval[1]
    assert p50.ratio == pytest.approx(1.3)


def test_lower_rates_higher_memory_usage_and_lower_ann_recall() -> None:
    less = changed(ann(), *NMSLIB, to=searched(0.95, 1.0, 4000, peak_mb=700))
    assert worse(ann(), less) == [
        "nmslib, optimized: ANN recall@10",
        "nmslib, optimized: batch QPS",
        "nmslib, optimized: peak memory",
    ]
    assert worse(ann(), less, drop=0.1, threshold=2) == []


def test_a_change_within_the_scatter_of_the_rounds_is_not_worse() -> None:
    noisy = searched(0.999, 1.0, 5000, peak_mb=500)
    for rounds in noisy["single"]["by_round"].values():
        rounds[:] = [
            value * factor
            for value, factor in zip(rounds, (0.5, 0.6, 2, 2, 2, 0.5, 2), strict=True)
        ]
    assert worse(ann(), changed(ann(), *NMSLIB, to=noisy)) == []


def test_evaluations_are_compared_by_differences() -> None:
    evaluation = {"task": "retrieval", "machine": {}, "settings": {"credit_duplicates": False}}
    evaluation |= {"dataset": "rsicd", "split": "test", "metrics": {"t2i_r1": 0.11, "mr": 0.3}}
    lower = evaluation | {"metrics": {"t2i_r1": 0.105, "mr": 0.28}}
    assert worse(evaluation, lower) == ["mr"]


@pytest.mark.parametrize("path", sorted(records.BENCHMARKS.glob("*/bench-*.json")), ids=str)
def test_recorded_runs_have_metrics(path: Path) -> None:
    from rsicd_embed.reports.record import read

    if path.stem.removeprefix("bench-") not in TASKS:
        pytest.skip("written by a script")
    assert worse(read(path), read(path)) == []


@pytest.mark.parametrize(
    ("task", "results", "worsened"),
    [
        ("caption", {"metrics": {"cider_d": 2.0, "bleu4": 0.5}}, {"metrics": {"cider_d": 1.0}}),
        (
            "suite",
            {"results": [{"model": "m", "dataset": "d", "split": "test", "metrics": {"mr": 0.5}}]},
            {"results": [{"model": "m", "dataset": "d", "split": "test", "metrics": {"mr": 0.1}}]},
        ),
        (
            "forgetting",
            {"datasets": [{"dataset": "d", "split": "test", "metrics": {"mr": {"model": 0.5}}}]},
            {"datasets": [{"dataset": "d", "split": "test", "metrics": {"mr": {"model": 0.1}}}]},
        ),
    ],
)
def test_records_of_every_evaluation_can_be_read(
    tmp_path: Path, task: str, results: dict[str, Any], worsened: dict[str, Any]
) -> None:
    from rsicd_embed.reports.record import document, read, save

    head = document(task, {}, command=f"rsicd-embed eval {task}")
    before, after = (
        read(save(tmp_path, name, {**head, **own}))
        for name, own in (("before", results), ("after", results | worsened))
    )
    named = {"caption": "cider_d", "suite": "m on d test: mr", "forgetting": "d test: mr"}[task]
    assert worse(before, before) == [] and worse(before, after) == [named]  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None, "0.5"])
def test_metrics_that_are_no_numbers_are_refused(value: Any) -> None:
    record = {"task": "zeroshot", "machine": {}, "settings": {}, "metrics": {"top1": 0.5}}
    with pytest.raises(BenchError, match="top1: expected a finite number, found"):
        compare(record, record | {"metrics": {"top1": value}})  # type: ignore[arg-type]


@pytest.mark.parametrize("place", [None, "results", "datasets"])
def test_evaluations_of_other_images_are_refused(place: str | None) -> None:
    head = {"machine": {}, "settings": {}, "task": "suite", "metrics": {"mr": 0.5}}
    subject = {"dataset": "d", "split": "test", "metrics": {}}

    def record(n: int) -> dict[str, Any]:
        return {**head, place: [{**subject, "n": n}]} if place else {**head, **subject, "n": n}

    with pytest.raises(BenchError, match=r"same settings, found n.* 30 and 24"):
        compare(record(30), record(24))  # type: ignore[arg-type]


def test_the_command(tmp_path: Path) -> None:
    before = write(tmp_path / "a.json", ann())
    slower = changed(ann(), *NMSLIB, to=searched(0.999, 2.0, 5000, peak_mb=500))
    after = write(tmp_path / "b.json", changed(slower, "machine", "cpu", to="another CPU"))
    assert run("bench", "compare", before, before).status == 0
    done = run("bench", "compare", before, after)
    assert done.status == 1
    assert "metrics got worse: nmslib, optimized: p50 1 → 2 ms; nmslib" in done.stderr
    assert "machines or versions differ: cpu: a CPU, then another CPU" in done.stderr
    assert "2.000  1.9" in done.stdout
    assert run("bench", "compare", before, after, "--threshold", "2.5").status == 0
    fewer = write(tmp_path / "c.json", ann(sweep=[]))
    done = run("bench", "compare", before, fewer)
    assert done.status == 0 and f"metrics are only in {before}, such as nmslib, " in done.stderr
    document = run("bench", "compare", before, after, "--json").document
    assert document["worse"] == [f"nmslib, optimized: {at}" for at in ("p50", "p95", "p99")]
    assert document["machines_differ"] == ["cpu: a CPU, then another CPU"]
    for invalid in ("0.5", "nan", "inf"):  # NaN would hide every regression
        assert run("bench", "compare", before, after, "--threshold", invalid).status == 2


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (ann(task="serve"), "expected two records of one task, found ann and serve"),
        (changed(ann(), "settings", "k", to=5), "found k 10 and 5; run the benchmark again with"),
        (changed(ann(), "vectors", "rows", to=9), "found rows 100000 and 9"),
        (changed(ann(), "vectors", "source", to="uniform"), "found source clustered and uniform"),
        (ann(states={}, sweep=[], contenders={}), "common metrics, found none"),
        (ann(complete=False), "expected a complete run, found an interrupted run"),
    ],
)
def test_records_that_cannot_be_compared(
    tmp_path: Path, other: dict[str, Any], message: str
) -> None:
    files = write(tmp_path / "a.json", ann()), write(tmp_path / "b.json", other)
    assert message in run("bench", "compare", *files).error


def test_files_that_are_not_records(tmp_path: Path) -> None:
    good = write(tmp_path / "good.json", ann())
    for path, message in records.damaged(tmp_path):
        for command in (("compare", good, path), ("recommend", path, "--recall", "0.9")):
            error = run("bench", *command).error
            assert message in error, error
            assert path.name in error
