"""Recommendation of a store and its settings for a goal, from the points of recorded runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rsicd_embed.bench.ann.contenders import with_options
from rsicd_embed.errors import BenchError
from rsicd_embed.reports.record_metrics import ann_points
from rsicd_embed.reports.record_types import AnnPoint, AnnRecord

_MISSES = 3  # number of nearest misses
_LEAST_MISSED = 1e-4  # of the rows, where a goal allows none to be missed
_CLOSE = 1.05  # stores within this factor of the fastest are compared by memory usage


@dataclass(frozen=True)
class Goal:
    """Requirements for a store; None for no requirement.

    Attributes:
        ann_recall: minimum ANN recall@k.
        p95_ms: maximum p95 latency of a single search, in milliseconds.
        qps: minimum queries per second in batches, with the best number of clients.
        memory_bytes: maximum resident memory of a process that searches.
        k: rows per query; None for the first k of the record.
    """

    ann_recall: float
    p95_ms: float | None = None
    qps: float | None = None
    memory_bytes: float | None = None
    k: int | None = None


@dataclass(frozen=True)
class StoreChoice:
    """A store with settings, compared with the goal.

    Attributes:
        store: name in the record.
        uri: ready to use.
        point: its measurements.
        reasons: each part of the goal with its measurement, in words.
        lacks: factor by which each missed part of the goal is missed; empty if all are met.
    """

    store: str
    uri: str
    point: AnnPoint
    reasons: tuple[str, ...]
    lacks: Mapping[str, float]


@dataclass(frozen=True)
class Advice:
    """The best choice, the best of each other store, and the nearest misses if nothing fits."""

    best: StoreChoice | None
    others: tuple[StoreChoice, ...]
    misses: tuple[StoreChoice, ...]


def recommend(runs: Sequence[AnnRecord], goal: Goal, path: str = "./index") -> Advice:
    """Chooses the store with the lowest p95 latency among those that meet the goal.

    Among stores within 5% of the lowest, the one with the lowest memory usage wins.

    Raises:
        BenchError: a record is of another benchmark, or lacks the goal's k.
    """
    choices = [choice for run in runs for choice in _choices(run, goal, path)]
    fitting = sorted((choice for choice in choices if not choice.lacks), key=_p95)
    if not fitting:
        nearest = sorted(choices, key=lambda choice: max(choice.lacks.values()))
        return Advice(None, (), tuple(nearest[:_MISSES]))
    close = [choice for choice in fitting if _p95(choice) <= _CLOSE * _p95(fitting[0])]
    best = min(close, key=lambda choice: (choice.point["peak_bytes"] or float("inf"), _p95(choice)))
    first: dict[str, StoreChoice] = {}
    for choice in fitting:
        first.setdefault(choice.store, choice)
    return Advice(best, tuple(c for store, c in first.items() if store != best.store), ())


def _p95(choice: StoreChoice) -> float:
    return choice.point["p95_ns"]


def _choices(run: AnnRecord, goal: Goal, path: str) -> list[StoreChoice]:
    if run["task"] != "ann":
        raise BenchError(f"expected a record of `bench ann`, found a record of {run['task']}")
    k = goal.k or run["settings"]["k"]
    points = ann_points(run, run["settings"]["k"])
    choices = [
        _choice(point, goal, path)
        for point in points
        if point["k"] == k and point["contender"] in run["settings"]["stores"]
    ]
    if not choices:
        known = ", ".join(map(str, sorted({point["k"] for point in points}))) or "none"
        raise BenchError(f"expected searches with k = {k}, found {known}; run bench ann --k {k}")
    return choices


def _choice(point: AnnPoint, goal: Goal, path: str) -> StoreChoice:
    scheme, mark, options = point["contender"].partition("?")
    uri = with_options(f"{scheme}:{path}{mark}{options}", point["settings"])
    reasons, lacks = [], {}
    for name, (words, factor) in _judge(point, goal).items():
        reasons.append(words)
        if factor > 1:
            lacks[name] = factor
    return StoreChoice(point["contender"], uri, point, tuple(reasons), lacks)


def _judge(point: AnnPoint, goal: Goal) -> dict[str, tuple[str, float]]:
    """Each part of the goal in words, and the factor by which it is missed, at most 1 if met.

    For ANN recall, the factor compares the fractions of rows that are not returned.
    """
    ann_recall, least = point["ann_recall"], goal.ann_recall
    missed = (1 - ann_recall) / max(1 - least, _LEAST_MISSED)
    factor = 1.0 if ann_recall >= least else max(missed, 1 + _LEAST_MISSED)
    interval = point["ann_recall_interval"]
    ends = " ({:.4f}–{:.4f})".format(*interval) if interval else ""
    words = f"ANN recall@{point['k']} {ann_recall:.4f}{ends}, goal {least:g}"
    parts = {"ANN recall": (words, factor)}
    if goal.p95_ms is not None:
        p95 = point["p95_ns"] / 1e6
        parts["p95"] = f"p95 {p95:.3g} ms, goal {goal.p95_ms:g} ms", p95 / goal.p95_ms
    if goal.qps is not None:
        clients, qps = max(point["qps"].items(), key=lambda item: item[1], default=("no", 0.0))
        many = f"{clients} client{'' if clients == '1' else 's'}"
        words = f"{qps:,.0f} queries/s with {many}, goal {goal.qps:,.0f}"
        parts["qps"] = words, goal.qps / qps if qps else float("inf")
    if goal.memory_bytes is not None:
        peak = point["peak_bytes"]
        usage = f"{peak / 1e6:,.0f} MB" if peak else "unknown memory usage"
        words = f"{usage}, goal {goal.memory_bytes / 1e6:,.0f} MB"
        parts["memory"] = words, peak / goal.memory_bytes if peak else float("inf")
    return parts
