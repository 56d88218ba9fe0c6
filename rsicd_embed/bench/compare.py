"""Two runs of one benchmark, figure by figure: what the second has got better and worse in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rsicd_embed.bench.ann.vectors import KINDS
from rsicd_embed.errors import BenchError
from rsicd_embed.reports.record_metrics import Figure, figures
from rsicd_embed.reports.statistics import median_interval

# What may differ: how much was measured, and beside what.
_FREE = frozenset(
    {"rounds", "builds", "clients", "sweep", "references", "libraries", "ks", "stores"}
    | {"selectivity", "one_process"}
)
# What an evaluation runs on changes its vectors by rounding alone.
_FREE_IN_EVALUATIONS = frozenset(("batch_size", "backend", "precision"))
_TIMED = ("ann", "embed", "ingest", "serve")
_SUBJECTS = ("dataset", "split")
_MACHINE = ("cpu", "cores", "isa", "memory_bytes", "accelerators", "os", "python", "environment")


@dataclass(frozen=True)
class FigureChange:
    """One figure of both runs.

    Attributes:
        name, before, after, unit: of the figure.
        ratio: after to before; None where before is 0.
        interval: of the ratio, from the rounds of both; None without raw samples.
        is_worse: past the threshold, and beyond what the rounds scatter by.
    """

    name: str
    before: float
    after: float
    unit: str
    ratio: float | None
    interval: tuple[float, float] | None
    is_worse: bool


@dataclass(frozen=True)
class RegressionLimits:
    """When a figure counts as worse.

    Attributes:
        threshold: as many times the time or memory, or one part in so many of the rate.
        drop: so much less of an ANN recall or an accuracy.
    """

    threshold: float = 1.1
    drop: float = 0.01


def compare(
    before: Mapping[str, Any], after: Mapping[str, Any], limits: RegressionLimits | None = None
) -> list[FigureChange]:
    """The figures that both records have.

    Raises:
        BenchError: they are not of the same task, settings, vectors or data; or share no figure.
    """
    _require_alike(before, after)
    one, other = figures(before), figures(after)
    found = [
        _change(name, one[name], other[name], limits or RegressionLimits())
        for name in one
        if name in other
    ]
    if not found:
        raise BenchError("expected records with figures in common, found none")
    return found


def unlike_machines(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """What was not the same about the machines and the versions, in words."""
    one, other = before["machine"], after["machine"]
    found = [
        f"{name}: {one.get(name)}, then {other.get(name)}"
        for name in _MACHINE
        if one.get(name) != other.get(name)
    ]
    ours, theirs = one.get("packages", {}), other.get("packages", {})
    return found + [
        f"{name}: {ours[name]}, then {theirs[name]}"
        for name in ours
        if name in theirs and ours[name] != theirs[name]
    ]


def _require_alike(before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    if before["task"] != after["task"]:
        raise BenchError(
            f"expected two records of one task, found {before['task']} and {after['task']}"
        )
    free = _FREE if before["task"] in _TIMED else _FREE | _FREE_IN_EVALUATIONS
    one, other = (_subject(run) | dict(run["settings"]) for run in (before, after))
    unlike = [
        f"{name} {one[name]} and {other[name]}"
        for name in one
        if name in other and name not in free and one[name] != other[name]
    ]
    if unlike:
        raise BenchError(
            f"expected two records of the same settings, found {'; '.join(unlike)}; "
            "what was measured is not the same"
        )


def _subject(run: Mapping[str, Any]) -> dict[str, Any]:
    """What was measured on; where a file or store of vectors lay is no matter."""
    vectors = run.get("vectors", {})
    named = ("rows", "dim", *(("source",) if vectors.get("source") in KINDS else ()))
    return {name: vectors[name] for name in named if name in vectors} | {
        name: run[name] for name in _SUBJECTS if name in run
    }


def _change(name: str, before: Figure, after: Figure, limits: RegressionLimits) -> FigureChange:
    ratio = after.value / before.value if before.value else None
    interval = None
    if len(before.samples) > 1 and len(after.samples) > 1:
        ratio = float(np.median(after.samples) / np.median(before.samples))
        interval = _interval(after.samples, before.samples)
    worse = _is_worse(before, after, ratio, interval, limits)
    return FigureChange(name, before.value, after.value, after.unit, ratio, interval, worse)


def _is_worse(
    before: Figure,
    after: Figure,
    ratio: float | None,
    interval: tuple[float, float] | None,
    limits: RegressionLimits,
) -> bool:
    if before.is_share:
        return after.value < before.value - limits.drop
    if ratio is None:
        return after.value > 0 and not before.more_is_better
    low, high = interval or (ratio, ratio)
    if before.more_is_better:
        return ratio < 1 / limits.threshold and high < 1
    return ratio > limits.threshold and low > 1


def _interval(numerators: Sequence[float], denominators: Sequence[float]) -> tuple[float, float]:
    """Of the ratio of medians; the rounds of two runs are no pairs, so their intervals are divided.

    It leaves 1 out where the intervals that the two runs tell have nothing in common.
    """
    (low, high), (least, most) = median_interval(numerators), median_interval(denominators)
    return low / most, high / least
