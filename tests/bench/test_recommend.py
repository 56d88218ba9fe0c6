"""`bench recommend`: the store that meets a goal, as a URI."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rsicd_embed.bench.recommend import Goal, recommend
from rsicd_embed.errors import BenchError
from rsicd_embed.stores.uri import StoreURI
from tests.helpers import run

from .records import BENCHMARKS, ann, changed, searched, write


def chosen(**goal: Any) -> str:
    best = recommend([ann()], Goal(**goal)).best
    assert best is not None
    assert StoreURI.parse(best.uri).location == "./index"
    return best.uri


def test_the_fastest_that_is_enough() -> None:
    assert chosen(ann_recall=0.85) == "nmslib:./index?efSearch=20"
    assert chosen(ann_recall=0.99) == "nmslib:./index?efSearch=100"
    assert chosen(ann_recall=0.999) == "nmslib:./index"
    assert chosen(ann_recall=1) == "lancedb:./index"
    assert chosen(ann_recall=1, memory_bytes=3e8) == "exact:./index"
    assert chosen(ann_recall=0.999, qps=4000) == "nmslib:./index"


def test_a_recall_just_below_the_goal_is_not_enough() -> None:
    nearly = changed(
        ann(), "states", "optimized", "contenders", "nmslib", to=searched(0.99995, 1.0, 5000)
    )
    for ann_recall, store in ((1.0, "lancedb"), (0.99996, "lancedb"), (0.99995, "nmslib")):
        best = recommend([nearly], Goal(ann_recall)).best  # type: ignore[list-item]
        assert best is not None and best.store == store


def test_of_two_as_fast_the_one_that_takes_less_memory() -> None:
    close = ann()
    single = close["states"]["optimized"]["contenders"]["exact"]["single"]
    other = close["states"]["optimized"]["contenders"]["lancedb"]["single"]
    single["p95_ns"] = 1.04 * other["p95_ns"]
    best = recommend([close], Goal(ann_recall=1)).best
    assert best is not None
    assert best.store == "exact"


def test_options_of_a_store_stay_in_its_uri() -> None:
    text = json.dumps(ann()).replace('"nmslib"', '"nmslib?M=32"')
    best = recommend([json.loads(text)], Goal(ann_recall=0.99), path="/tiles/a").best
    assert best is not None
    assert best.uri == "nmslib:/tiles/a?M=32&efSearch=100"


def test_reasons_others_and_nearest_misses() -> None:
    advice = recommend([ann()], Goal(ann_recall=0.999, p95_ms=30, qps=800))
    assert advice.best is not None
    assert advice.best.reasons == (
        "ANN recall@10 0.9990 (0.9980–0.9990), goal 0.999",
        "p95 2 ms, goal 30 ms",
        "5,000 queries/s with 1 client, goal 800",
    )
    assert [choice.store for choice in advice.others] == ["lancedb", "exact"]
    nothing = recommend([ann()], Goal(ann_recall=1, p95_ms=4))
    assert nothing.best is None
    assert nothing.misses[0].uri == "lancedb:./index"
    assert nothing.misses[0].lacks == {"p95": pytest.approx(3.0)}


def test_k_that_was_not_measured_and_other_records() -> None:
    with pytest.raises(
        BenchError, match=r"expected searches with k = 7, found 10; run bench ann --k 7"
    ):
        recommend([ann()], Goal(ann_recall=0.9, k=7))
    with pytest.raises(
        BenchError, match="expected a record of `bench ann`, found a record of serve"
    ):
        recommend([ann(task="serve")], Goal(ann_recall=0.9))


def test_the_command(tmp_path: Path) -> None:
    file = write(tmp_path / "a.json", ann())
    done = run("bench", "recommend", file, "--recall", "0.99", "--p95", "10ms", "--path", "/a")
    assert done.status == 0
    assert done.stdout.splitlines()[0] == "nmslib:/a?efSearch=100"
    assert "100,000 vectors of length 512 (clustered) on a CPU, 2 cores" in done.stdout
    words = ("--recall", "0.99", "--memory", "300MB", "--json")
    document = run("bench", "recommend", file, file, *words).document
    assert document["uri"] == "exact:./index"
    assert document["best"]["point"]["ann_recall"] == 1.0
    none = run("bench", "recommend", file, "--recall", "1", "--p95", "500us")
    assert none.status == 1
    assert "no measured store meets the goal: nmslib:./index misses ANN recall by a factor of" in (
        none.stderr
    )
    assert none.stdout.count("near: ") == 3


@pytest.mark.parametrize(
    "options", [["--p95", "10"], ["--p95", "0ms"], ["--memory", "2 apples"], ["--recall", "99"], []]
)
def test_wrong_usage(tmp_path: Path, options: list[str]) -> None:
    words = options if "--recall" in options or not options else ["--recall", "0.9", *options]
    assert run("bench", "recommend", write(tmp_path / "a.json", ann()), *words).status == 2


def test_an_interrupted_run_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "a.json", ann(complete=False))
    assert "found an interrupted run" in run("bench", "recommend", file, "--recall", "0").error


def test_recorded_runs(tmp_path: Path) -> None:
    file = BENCHMARKS / "ann-100k" / "bench-ann.json"
    assert run("bench", "recommend", file, "--recall", "0.99", "--json").document["uri"]
