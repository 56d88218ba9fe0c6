"""The figures of a record, each with its raw samples where there are some, for comparisons."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_LATENCIES = ("p50", "p95", "p99")


@dataclass(frozen=True)
class Figure:
    """One figure of a run.

    Attributes:
        value: the figure itself.
        unit: of it; empty for shares.
        more_is_better: whether a larger one is better.
        samples: raw ones in the same unit, a round each; empty where there are none.
        is_share: a part of 1 that is judged by differences: an ANN recall, or an accuracy.
    """

    value: float
    unit: str
    more_is_better: bool = False
    samples: tuple[float, ...] = ()
    is_share: bool = False


def figures(run: Mapping[str, Any]) -> dict[str, Figure]:
    """All figures of a record, by what they are of."""
    of = {"ann": _ann, "embed": _embed, "ingest": _ingest, "serve": _serve}
    others = _rates if "candidates" in run else _evaluation
    return dict(of.get(run["task"], others)(run))


def _ann(run: Mapping[str, Any]) -> Iterator[tuple[str, Figure]]:
    for name, built in run["contenders"].items():
        for step in ("upsert", "optimize"):
            if step in built:
                samples = tuple(one / 1e9 for one in built[step]["samples_ns"])
                yield f"{name}: {step}", Figure(built[step]["s"], "s", samples=samples)
        if built.get("disk_bytes"):
            yield f"{name}: disk", Figure(built["disk_bytes"] / 1e6, "MB")
    for state, told in run["states"].items():
        k = told.get("k", run["settings"]["k"])
        for name, one in told["contenders"].items():
            yield from _searched(f"{name}, {state}", k, one)
    for step in run.get("sweep", ()):
        for name, one in step["contenders"].items():
            words = ", ".join(f"{key}={value}" for key, value in step["settings"][name].items())
            yield from _searched(f"{name}, {words}, k={step['k']}", step["k"], one)


def _searched(name: str, k: int, one: Mapping[str, Any]) -> Iterator[tuple[str, Figure]]:
    if "single" not in one:
        return
    yield f"{name}: ANN recall@{k}", Figure(one["ann_recall"], "", True, is_share=True)
    for at in _LATENCIES:
        samples = tuple(ns / 1e6 for ns in one["single"]["by_round"][f"{at}_ns"])
        yield f"{name}: {at}", Figure(one["single"][f"{at}_ns"] / 1e6, "ms", samples=samples)
    batches = {"1": one.get("batch", {})} | one.get("batch_by_clients", {})
    for clients, batch in batches.items():
        if "per_s" in batch:
            by = "" if clients == "1" else f" of {clients} clients"
            yield f"{name}: batch QPS{by}", _rate(batch, "queries/s")
    if one.get("peak_bytes"):
        yield f"{name}: peak memory", Figure(one["peak_bytes"] / 1e6, "MB")


def _embed(run: Mapping[str, Any]) -> Iterator[tuple[str, Figure]]:
    for what in ("images", "texts"):
        for name, one in run.get(what, {}).get("candidates", {}).items():
            yield f"{name}: {what}", _rate(one, f"{what}/s")


def _ingest(run: Mapping[str, Any]) -> Iterator[tuple[str, Figure]]:
    for name, one in run["candidates"].items():
        yield name, _rate(one, "images/s")
    for one in run["memory"]:
        yield f"peak memory of {one['images']} images", Figure(one["peak_bytes"] / 1e6, "MB")


def _serve(run: Mapping[str, Any]) -> Iterator[tuple[str, Figure]]:
    for name, one in run["candidates"].items():
        yield name, _rate(one, "searches/s")
    for how, one in run["latency_ms"].items():
        for at in ("p50", "p90", "p99"):
            yield f"one client, {how}: {at}", Figure(one[at], "ms")
    for how, taken in run["cpu_ms_per_search"].items():
        yield f"processor time of a search, {how}", Figure(taken, "ms")


def _rates(run: Mapping[str, Any]) -> Iterator[tuple[str, Figure]]:
    for name, one in run["candidates"].items():
        yield name, _rate(one, f"{one['unit']}/s")


def _evaluation(run: Mapping[str, Any]) -> Iterator[tuple[str, Figure]]:
    for name, value in run.get("metrics", {}).items():
        if "median" in name:
            yield name, Figure(value, "rank")
        else:
            yield name, Figure(value, "", True, is_share=True)


def _rate(one: Mapping[str, Any], unit: str) -> Figure:
    samples = tuple(one["units_per_call"] * 1e9 / ns for ns in one["samples_ns"])
    return Figure(one["per_s"], unit, True, samples)
