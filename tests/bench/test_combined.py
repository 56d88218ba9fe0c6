"""Runs of several models as one record."""

from __future__ import annotations

from typing import Any

import pytest

from rsicd_embed.bench.embed_rates import combined, ratios_to_first


def run_of(peak: float | None, *names: str, complete: bool = True) -> dict[str, Any]:
    """Results whose second candidate is twice as fast as the first."""
    ratios = [
        {"of": first, "to": second, "ratio": 2.0 if first > second else 0.5}
        for first in names
        for second in names
        if first != second
    ]
    candidates = {name: {"per_s": 1.0} for name in names}
    overhead = {"null_ns": 50.0, "fraction": 0.001 * len(names)}
    images = {"candidates": candidates, "ratios": ratios, "overhead": overhead}
    results = {"complete": complete, "images": images, "flop_per_image": 9}
    return results | {"peak": {"gflop_per_s": peak} if peak else None}


def test_a_single_run_is_unchanged() -> None:
    run = run_of(3.0, "a", "b")
    assert combined({"x": run}) == run
    with pytest.raises(ValueError, match="at least one"):
        combined({})


def test_candidates_are_named_and_compared_within_their_run() -> None:
    results = combined(
        {"x": run_of(3.0, "a", "b"), "y": run_of(5.0, "a", "b"), "z": run_of(None, "a")}
    )
    images = results["images"]
    assert list(images["candidates"]) == ["x: a", "x: b", "y: a", "y: b", "z: a"]
    ratios = {name: ratio["ratio"] for name, ratio in ratios_to_first(images).items()}
    assert ratios == {"x: a": 1, "x: b": 2, "y: a": 1, "y: b": 2, "z: a": 1}
    assert images["overhead"]["fraction"] == 0.002
    assert results["peak"] == {"gflop_per_s": 5.0}
    assert results["runs"]["x"] == {"flop_per_image": 9, "peak": {"gflop_per_s": 3.0}}
    assert results["complete"]
    assert "texts" not in results


def test_an_interrupted_run_is_incomplete() -> None:
    assert not combined({"x": run_of(None, "a"), "y": run_of(None, "a", complete=False)})[
        "complete"
    ]
