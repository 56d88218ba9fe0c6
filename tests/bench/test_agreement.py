"""Run-to-run variation: comparison of two runs of a benchmark."""

from __future__ import annotations

from typing import Any

from scripts.bench_agreement import compared, spreads
from scripts.bench_tables import agreement


def run(*ns: float, ratio: tuple[float, float] = (1.0, 2.0), rounds: int = 5) -> dict[str, Any]:
    """A record of two candidates; the second is always the same."""
    timed = {"a": list(ns), "b": [5.0] * rounds}
    return {
        "task": "cold-search",
        "candidates": {
            name: {"unit": "searches", "units_per_call": 1.0, "per_s": 1.0, "samples_ns": samples}
            for name, samples in timed.items()
        },
        "ratios": [{"of": "a", "to": "b", "interval": list(ratio)}],
    }


def test_intervals_that_overlap_agree() -> None:
    first, second = run(1, 2, 3, 4, 5), run(4, 5, 6, 7, 8, ratio=(1.9, 3.0))
    assert [(metric["figure"], metric["agree"]) for metric in compared(first, second)] == [
        ("a", True),
        ("b", True),
        ("a to b: rate", True),
    ]


def test_intervals_that_do_not_overlap_differ_either_way() -> None:
    first, second = run(1, 2, 3, 2, 1), run(10, 20, 30, 20, 10, ratio=(2.1, 3.0))
    for pair in ((first, second), (second, first)):
        assert [metric["agree"] for metric in compared(*pair)] == [False, True, False]


def test_few_rounds_are_left_out() -> None:
    assert list(spreads(run(1, 2, rounds=2))) == ["a to b: rate"]
    several = run(1, 2, 3, 4, 5)
    several["ratios"][0]["n"] = 1
    assert list(spreads(several)) == ["a", "b"]


def test_differences_are_listed() -> None:
    metrics = compared(run(1, 2, 3, 2, 1), run(10, 20, 30, 20, 10))
    text = "\n".join(agreement({"figures": metrics, "others_share_each": [0.01, 0.2]}))
    assert "with 1.0% and 20.0% of the CPU time used by other processes" in text
    assert "intervals of 2 of 3 metrics overlap" in text
    assert "| a | 3.333e+08–1e+09 | 3.333e+07–1e+08 |" in text
