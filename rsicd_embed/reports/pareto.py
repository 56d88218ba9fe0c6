"""What a run found out of searching all rows, as points: how much is found, and how fast."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

OPTIMIZED = "optimized"
_LATENCIES = ("p50_ns", "p95_ns", "p99_ns")


def points(run: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A point for each contender, setting and k of a record of `bench ann`.

    One with empty `settings` is the contender as it comes: a store with what it found best itself.
    `pareto` says that no other point of the same k finds as much in less time.
    """
    found = [
        {"contender": name, "k": k, "settings": settings, **_point(told), **_cost(run, name)}
        for k, all_settings, contenders in _states(run)
        for name, told in contenders.items()
        if "single" in told
        for settings in (all_settings.get(name, {}),)
    ]
    for one in found:
        one["pareto"] = not any(_beats(other, one) for other in found)
    return found


def _states(run: Mapping[str, Any]) -> Iterator[tuple[int, Mapping[str, Any], Mapping[str, Any]]]:
    """k, the settings of contenders, and what was told of them."""
    usual = run["settings"]["k"]
    for name, state in run["states"].items():
        if name == OPTIMIZED or name.startswith(f"{OPTIMIZED}, "):
            yield state.get("k", usual), {}, state["contenders"]
    for step in run.get("sweep", ()):
        yield step["k"], step["settings"], step["contenders"]


def _point(told: Mapping[str, Any]) -> dict[str, Any]:
    batches = {"1": told["batch"]} if "batch" in told else {}
    batches |= told.get("batch_by_clients", {})
    return {
        "index": told.get("index"),
        "ann_recall": told["ann_recall"],
        "ann_recall_interval": told.get("ann_recall_interval"),
        **{name: told["single"][name] for name in _LATENCIES},
        "qps": {clients: one["per_s"] for clients, one in batches.items() if "per_s" in one},
    }


def _cost(run: Mapping[str, Any], name: str) -> dict[str, Any]:
    """What the contender took to be built, and takes to be searched."""
    built = run["contenders"].get(name, {})
    seconds = [built[step]["s"] for step in ("upsert", "optimize") if step in built]
    searched = run["states"].get(OPTIMIZED, {}).get("contenders", {}).get(name, {})
    return {
        "build_s": sum(seconds) if seconds else None,
        "disk_bytes": built.get("disk_bytes"),
        "peak_bytes": searched.get("peak_bytes"),
    }


def _beats(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether a point is at least as good in both, and better in one."""
    if one["k"] != other["k"]:
        return False
    mine, its = ((point["ann_recall"], -point["p50_ns"]) for point in (one, other))
    return mine != its and mine[0] >= its[0] and mine[1] >= its[1]
