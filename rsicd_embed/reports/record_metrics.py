"""Metrics of a record, with raw samples for comparisons; and the points of the Pareto curve."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import cast

from rsicd_embed.reports.evaluation_types import EvaluationRecord
from rsicd_embed.reports.record_types import (
    BUILD_STEPS,
    MODALITIES,
    PERCENTILES,
    AnnPoint,
    AnnRecord,
    AnnResults,
    EmbedRecord,
    IngestRecord,
    RatesRecord,
    RateSummary,
    RunRecord,
    SearchedContender,
    ServeRecord,
)

OPTIMIZED = "optimized"


@dataclass(frozen=True)
class Figure:
    """One metric of a run.

    Attributes:
        value: the metric.
        unit: its unit; empty for fractions.
        more_is_better: whether larger values are better.
        samples: raw samples in the same unit, one per round; empty if there are none.
        is_share: a fraction that is compared by differences: an ANN recall or an accuracy.
    """

    value: float
    unit: str
    more_is_better: bool = False
    samples: tuple[float, ...] = ()
    is_share: bool = False


def figures(run: RunRecord) -> dict[str, Figure]:
    """All metrics of a record by name."""
    match run["task"]:
        case "ann":
            return dict(_ann(cast(AnnRecord, run)))
        case "embed":
            return dict(_embed(cast(EmbedRecord, run)))
        case "ingest":
            return dict(_ingest(cast(IngestRecord, run)))
        case "serve":
            return dict(_serve(cast(ServeRecord, run)))
    if "candidates" in run:
        return dict(_rates(cast(RatesRecord, run)))
    return dict(_evaluation(cast(EvaluationRecord, run)))


def _ann(run: AnnRecord) -> Iterator[tuple[str, Figure]]:
    for name, built in run["contenders"].items():
        for step in BUILD_STEPS:
            if timed := built.get(step):
                samples = tuple(ns / 1e9 for ns in timed["samples_ns"])
                yield f"{name}: {step}", Figure(timed["s"], "s", samples=samples)
        if built.get("disk_bytes"):
            yield f"{name}: disk", Figure(built["disk_bytes"] / 1e6, "MB")
    for state, results in run["states"].items():
        k = results.get("k", run["settings"]["k"])
        for name, searched in results["contenders"].items():
            yield from _searched(f"{name}, {state}", k, searched)
    for sweep_step in run.get("sweep", ()):
        k = sweep_step["k"]
        for name, searched in sweep_step["contenders"].items():
            settings = ", ".join(f"{s}={n}" for s, n in sweep_step["settings"][name].items())
            yield from _searched(f"{name}, {settings}, k={k}", k, searched)


def _searched(name: str, k: int, searched: SearchedContender) -> Iterator[tuple[str, Figure]]:
    if "single" not in searched:
        return
    yield f"{name}: ANN recall@{k}", Figure(searched["ann_recall"], "", True, is_share=True)
    single = searched["single"]
    for at in PERCENTILES:
        samples = tuple(ns / 1e6 for ns in single["by_round"][at])
        yield f"{name}: {at.removesuffix('_ns')}", Figure(single[at] / 1e6, "ms", samples=samples)
    for clients, rate in rates_by_clients(searched).items():
        by = "" if clients == "1" else f" of {clients} clients"
        yield f"{name}: batch QPS{by}", _rate(rate, "queries/s")
    if searched.get("peak_bytes"):
        yield f"{name}: peak memory", Figure(searched["peak_bytes"] / 1e6, "MB")


def rates_by_clients(searched: SearchedContender) -> dict[str, RateSummary]:
    """Rates of batched queries by the number of clients; empty if none were measured."""
    rates: dict[str, RateSummary] = {}
    if "batch" in searched:
        rates["1"] = searched["batch"]
    rates |= searched.get("batch_by_clients", {})
    return {clients: rate for clients, rate in rates.items() if "per_s" in rate}


def _embed(run: EmbedRecord) -> Iterator[tuple[str, Figure]]:
    for unit in MODALITIES:
        if timed := run.get(unit):
            for name, rate in timed["candidates"].items():
                yield f"{name}: {unit}", _rate(rate, f"{unit}/s")


def _ingest(run: IngestRecord) -> Iterator[tuple[str, Figure]]:
    for name, rate in run["candidates"].items():
        yield name, _rate(rate, "images/s")
    for usage in run["memory"]:
        yield (
            f"peak memory of {usage['images']} images",
            Figure(usage["peak_bytes"] / 1e6, "MB"),
        )


def _serve(run: ServeRecord) -> Iterator[tuple[str, Figure]]:
    for name, rate in run["candidates"].items():
        yield name, _rate(rate, "searches/s")
    for server, latency in run["latency_ms"].items():
        for at in ("p50", "p90", "p99"):
            yield f"one client, {server}: {at}", Figure(latency[at], "ms")
    for server, cpu_ms in run["cpu_ms_per_search"].items():
        yield f"processor time of a search, {server}", Figure(cpu_ms, "ms")


def _rates(run: RatesRecord) -> Iterator[tuple[str, Figure]]:
    for name, rate in run["candidates"].items():
        yield name, _rate(rate, f"{rate['unit']}/s")


def _evaluation(run: EvaluationRecord) -> Iterator[tuple[str, Figure]]:
    yield from _metrics("", run.get("metrics", {}))
    for result in run.get("results", ()):  # of a suite
        subject = f"{result['model']} on {result['dataset']} {result['split']}: "
        yield from _metrics(subject, result["metrics"])
    for changes in run.get("datasets", ()):  # of a comparison with a baseline
        metrics = {name: change["model"] for name, change in changes["metrics"].items()}
        yield from _metrics(f"{changes['dataset']} {changes['split']}: ", metrics)


def _metrics(subject: str, metrics: Mapping[str, float]) -> Iterator[tuple[str, Figure]]:
    for name, value in metrics.items():
        is_rank = "median" in name
        yield (
            subject + name,
            Figure(value, "rank" if is_rank else "", not is_rank, (), _is_share(name)),
        )


def _is_share(metric: str) -> bool:
    return "median" not in metric and metric != "cider_d"


def _rate(rate: RateSummary, unit: str) -> Figure:
    samples = tuple(rate["units_per_call"] * 1e9 / ns for ns in rate["samples_ns"])
    return Figure(rate["per_s"], unit, True, samples)


def ann_points(run: AnnResults, k: int) -> list[AnnPoint]:
    """A point of ANN recall and latency for each contender, combination of settings, and k.

    A point without `settings` is the contender with its own defaults: a store with the settings
    that it chose itself. `pareto` marks the points that no other of the same k dominates.

    Args:
        run: results of `bench ann`.
        k: the first k of the run.
    """
    points = []
    for name, state in run["states"].items():
        if name == OPTIMIZED or name.startswith(f"{OPTIMIZED}, "):
            for contender, searched in state["contenders"].items():
                points += _point(run, contender, state.get("k", k), {}, searched)
    for step in run.get("sweep", ()):
        for contender, searched in step["contenders"].items():
            settings = step["settings"].get(contender, {})
            points += _point(run, contender, step["k"], settings, searched)
    for point in points:
        point["pareto"] = not any(_dominates(other, point) for other in points)
    return points


def _point(
    run: AnnResults,
    contender: str,
    k: int,
    settings: dict[str, int],
    searched: SearchedContender,
) -> list[AnnPoint]:
    """The point of one contender; none if it was not timed."""
    if "single" not in searched:
        return []
    built = run["contenders"].get(contender, {})
    seconds = [step["s"] for name in BUILD_STEPS if (step := built.get(name))]
    optimized = run["states"][OPTIMIZED]["contenders"] if OPTIMIZED in run["states"] else {}
    single = searched["single"]
    return [
        {
            "contender": contender,
            "k": k,
            "settings": settings,
            "index": searched.get("index"),
            "ann_recall": searched["ann_recall"],
            "ann_recall_interval": searched.get("ann_recall_interval"),
            "p50_ns": single["p50_ns"],
            "p95_ns": single["p95_ns"],
            "p99_ns": single["p99_ns"],
            "qps": {clients: r["per_s"] for clients, r in rates_by_clients(searched).items()},
            "build_s": sum(seconds) if seconds else None,
            "disk_bytes": built.get("disk_bytes"),
            "peak_bytes": (
                optimized[contender].get("peak_bytes") if contender in optimized else None
            ),
            "pareto": False,
        }
    ]


def _dominates(point: AnnPoint, other: AnnPoint) -> bool:
    """Whether a point is at least as good in both ANN recall and latency, and better in one."""
    if point["k"] != other["k"]:
        return False
    ours, theirs = ((p["ann_recall"], -p["p50_ns"]) for p in (point, other))
    return ours != theirs and ours[0] >= theirs[0] and ours[1] >= theirs[1]
