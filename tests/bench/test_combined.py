"""Runs of several models as one record."""

from __future__ import annotations

from typing import Any

import pytest

from rsicd_embed.bench.embed_rates import combined, ratios_to_first


def of(peak: float | None, *names: str, complete: bool = True) -> dict[str, Any]:
    """A run whose second candidate is twice as fast as the first."""
    ratios = [
        {"of": one, "to": other, "ratio": 2.0 if one > other else 0.5}
        for one in names
        for other in names
        if one != other
    ]
    candidates = {name: {"per_s": 1.0} for name in names}
    overhead = {"null_ns": 50.0, "fraction": 0.001 * len(names)}
    images = {"candidates": candidates, "ratios": ratios, "overhead": overhead}
    found = {"complete": complete, "images": images, "flop_per_image": 9}
    return found | {"peak": {"gflop_per_s": peak} if peak else None}


def test_one_stays_as_it_is() -> None:
    run = of(3.0, "a", "b")
    assert combined({"x": run}) == run
    with pytest.raises(ValueError, match="at least one"):
        combined({})


def test_each_candidate_has_its_own_name_and_first() -> None:
    found = combined({"x": of(3.0, "a", "b"), "y": of(5.0, "a", "b"), "z": of(None, "a")})
    images = found["images"]
    assert list(images["candidates"]) == ["x: a", "x: b", "y: a", "y: b", "z: a"]
    ratios = {name: one["ratio"] for name, one in ratios_to_first(images).items()}
    assert ratios == {"x: a": 1, "x: b": 2, "y: a": 1, "y: b": 2, "z: a": 1}
    assert images["overhead"]["fraction"] == 0.002
    assert found["peak"] == {"gflop_per_s": 5.0}
    assert found["runs"]["x"] == {"flop_per_image": 9, "peak": {"gflop_per_s": 3.0}}
    assert found["complete"]
    assert "texts" not in found


def test_one_that_was_interrupted() -> None:
    assert not combined({"x": of(None, "a"), "y": of(None, "a", complete=False)})["complete"]
