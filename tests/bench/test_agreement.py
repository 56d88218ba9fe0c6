"""Whether two runs of a benchmark say the same."""

from __future__ import annotations

from typing import Any

from scripts.bench_agreement import compared, spreads
from scripts.bench_tables import agreement


def run(*ns: float, ratio: tuple[float, float] = (1.0, 2.0), rounds: int = 5) -> dict[str, Any]:
    """Of two candidates, the second of which is always the same."""
    timed = {"a": list(ns), "b": [5.0] * rounds}
    return {
        "task": "cold-search",
        "candidates": {
            name: {"unit": "searches", "units_per_call": 1.0, "per_s": 1.0, "samples_ns": some}
            for name, some in timed.items()
        },
        "ratios": [{"of": "a", "to": "b", "interval": list(ratio)}],
    }


def test_intervals_that_overlap_agree() -> None:
    one, other = run(1, 2, 3, 4, 5), run(4, 5, 6, 7, 8, ratio=(1.9, 3.0))
    assert [(told["figure"], told["agree"]) for told in compared(one, other)] == [
        ("a", True),
        ("b", True),
        ("a to b: rate", True),
    ]


def test_intervals_that_do_not_overlap_differ_either_way() -> None:
    one, other = run(1, 2, 3, 2, 1), run(10, 20, 30, 20, 10, ratio=(2.1, 3.0))
    for pair in ((one, other), (other, one)):
        assert [told["agree"] for told in compared(*pair)] == [False, True, False]


def test_few_rounds_say_nothing() -> None:
    assert list(spreads(run(1, 2, rounds=2))) == ["a to b: rate"]
    several = run(1, 2, 3, 4, 5)
    several["ratios"][0]["n"] = 1
    assert list(spreads(several)) == ["a", "b"]


def test_what_differs_is_told() -> None:
    found = compared(run(1, 2, 3, 2, 1), run(10, 20, 30, 20, 10))
    told = "\n".join(agreement({"figures": found, "others_share_each": [0.01, 0.2]}))
    assert "with 1.0% and 20.0% of the CPU time used by other processes" in told
    assert "intervals of 2 of 3 metrics overlap" in told
    assert "| a | 3.333e+08–1e+09 | 3.333e+07–1e+08 |" in told
