"""Which store, with which settings, does what is wanted: from the points of recorded runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rsicd_embed.bench.ann.contenders import with_options
from rsicd_embed.errors import BenchError
from rsicd_embed.reports.pareto import points

_MISSES = 3  # that are told
_CLOSE = 1.05  # of two as fast as this, the one that takes less memory


@dataclass(frozen=True)
class Goal:
    """What is wanted; None where it does not matter.

    Attributes:
        ann_recall: least ANN recall@k.
        p95_ms: longest time that 95 of 100 single searches take.
        qps: least rate of searches for many queries at once, with as many clients as was fastest.
        memory_bytes: most resident memory of a process that searches.
        k: rows a query; None for the first that was measured.
    """

    ann_recall: float
    p95_ms: float | None = None
    qps: float | None = None
    memory_bytes: float | None = None
    k: int | None = None


@dataclass(frozen=True)
class StoreChoice:
    """A store with settings, and how it stands to the goal.

    Attributes:
        store: as in the record.
        uri: ready to use.
        point: what was measured, as in `points`.
        reasons: each part of the goal beside what was measured.
        lacks: by part of the goal, how many times it is missed; empty where all is met.
    """

    store: str
    uri: str
    point: Mapping[str, Any]
    reasons: tuple[str, ...]
    lacks: Mapping[str, float]


@dataclass(frozen=True)
class Advice:
    """The best choice, the best of each other store, and where nothing fits the nearest misses."""

    best: StoreChoice | None
    others: tuple[StoreChoice, ...]
    misses: tuple[StoreChoice, ...]


def recommend(runs: Sequence[Mapping[str, Any]], goal: Goal, path: str = "./index") -> Advice:
    """Of the stores' points that meet the goal the one with the least p95.

    Of several that are as fast, within a twentieth, it is the one that takes least memory.

    Raises:
        BenchError: a record is of another benchmark, or has no such k.
    """
    choices = [one for run in runs for one in _choices(run, goal, path)]
    fitting = sorted((one for one in choices if not one.lacks), key=_p95)
    if not fitting:
        nearest = sorted(choices, key=lambda one: max(one.lacks.values()))
        return Advice(None, (), tuple(nearest[:_MISSES]))
    close = [one for one in fitting if _p95(one) <= _CLOSE * _p95(fitting[0])]
    best = min(close, key=lambda one: (one.point["peak_bytes"] or float("inf"), _p95(one)))
    first: dict[str, StoreChoice] = {}
    for one in fitting:
        first.setdefault(one.store, one)
    others = [one for name, one in first.items() if name != best.store]
    return Advice(best, tuple(others), ())


def _p95(choice: StoreChoice) -> float:
    return float(choice.point["p95_ns"])


def _choices(run: Mapping[str, Any], goal: Goal, path: str) -> list[StoreChoice]:
    if run["task"] != "ann":
        raise BenchError(f"expected a record of `bench ann`, found one of {run['task']}")
    k = goal.k or run["settings"]["k"]
    stores = run["settings"]["stores"]
    every = points(run)
    found = [one for one in every if one["k"] == k and one["contender"] in stores]
    if not found:
        known = sorted({one["k"] for one in every})
        raise BenchError(
            f"expected a record of searches for {k} rows, found k of "
            f"{', '.join(map(str, known)) or 'none'}; run bench ann with --k {k}"
        )
    return [_choice(one, goal, path) for one in found]


def _choice(point: Mapping[str, Any], goal: Goal, path: str) -> StoreChoice:
    scheme, mark, options = point["contender"].partition("?")
    uri = with_options(f"{scheme}:{path}{mark}{options}", point["settings"])
    reasons, lacks = [], {}
    for name, (words, times) in _judged(point, goal).items():
        reasons.append(words)
        if times > 1:
            lacks[name] = times
    return StoreChoice(point["contender"], uri, point, tuple(reasons), lacks)


def _judged(point: Mapping[str, Any], goal: Goal) -> dict[str, tuple[str, float]]:
    """By part of the goal: in words, and the wanted to the measured, more than 1 if it is missed.

    Of an ANN recall it is the share that is not found that is compared.
    """
    ann_recall, wanted = point["ann_recall"], goal.ann_recall
    missed = 1.0 if ann_recall >= wanted else (1 - ann_recall) / max(1 - wanted, 1e-4)
    found = {
        "ANN recall": (
            f"ANN recall@{point['k']} {ann_recall:.4f}{_range(point)}, wanted {wanted:g}",
            missed,
        )
    }
    if goal.p95_ms is not None:
        p95 = point["p95_ns"] / 1e6
        found["p95"] = f"p95 {p95:.3g} ms, wanted {goal.p95_ms:g} ms", p95 / goal.p95_ms
    if goal.qps is not None:
        clients, most = max(point["qps"].items(), key=lambda one: one[1], default=("no", 0.0))
        many = f"{clients} client{'' if clients == '1' else 's'}"
        words = f"{most:,.0f} queries/s with {many}, wanted {goal.qps:,.0f}"
        found["qps"] = words, goal.qps / most if most else float("inf")
    if goal.memory_bytes is not None:
        peak = point["peak_bytes"]
        told = f"{peak / 1e6:,.0f} MB" if peak else "unknown memory"
        words = f"{told}, wanted {goal.memory_bytes / 1e6:,.0f} MB"
        found["memory"] = words, peak / goal.memory_bytes if peak else float("inf")
    return found


def _range(point: Mapping[str, Any]) -> str:
    interval = point["ann_recall_interval"]
    return f" ({interval[0]:.4f}–{interval[1]:.4f})" if interval else ""
