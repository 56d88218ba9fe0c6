"""Comparison of two runs of one benchmark, metric by metric."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from rsicd_embed.bench.ann.vectors import KINDS
from rsicd_embed.errors import BenchError
from rsicd_embed.reports.record_metrics import Figure, figures
from rsicd_embed.reports.record_types import RunRecord
from rsicd_embed.reports.timing import median_interval

# Settings that may differ: the amount of measurements, and the references.
_FREE = frozenset(
    {"rounds", "builds", "clients", "sweep", "references", "libraries", "ks", "stores"}
    | {"selectivity", "one_process"}
)
# In an evaluation, these change vectors by rounding only.
_FREE_IN_EVALUATIONS = frozenset(("batch_size", "backend", "precision"))
_TIMED = ("ann", "embed", "ingest", "serve")
# The subject of an evaluation.
_EVALUATED = ("dataset", "split", "n", "classes", "captions", "references", "queries", "n_train")
_MACHINE = ("cpu", "cores", "isa", "memory_bytes", "accelerators", "os", "python", "environment")


@dataclass(frozen=True)
class FigureChange:
    """One metric of both runs.

    Attributes:
        name, before, after, unit: the metric and its values.
        ratio: after / before; None if `before` is 0.
        interval: of the ratio, from the rounds of both runs; None without raw samples.
        is_worse: beyond the limits, and beyond the scatter of the rounds.
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
    """When a change counts as a regression.

    Attributes:
        threshold: factor by which time or memory usage grows, or a rate falls.
        drop: drop in ANN recall or accuracy.
    """

    threshold: float = 1.1
    drop: float = 0.01


def compare(
    before: RunRecord, after: RunRecord, limits: RegressionLimits | None = None
) -> list[FigureChange]:
    """Compares the metrics that both records have.

    Raises:
        BenchError: task, settings, vectors or data differ, there is no common metric, or a metric
            is not a finite number.
    """
    _require_alike(before, after)
    old, new = figures(before), figures(after)
    for name, value in ((name, run[name].value) for run in (old, new) for name in run):
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise BenchError(f"{name}: expected a finite number, found {value!r}; run it again")
    changes = [
        _change(name, old[name], new[name], limits or RegressionLimits())
        for name in old
        if name in new
    ]
    if not changes:
        raise BenchError("expected records with common metrics, found none")
    return changes


def missing(before: RunRecord, after: RunRecord) -> list[str]:
    """Names of the metrics of `before` that `after` lacks."""
    present = figures(after)
    return [name for name in figures(before) if name not in present]


def machine_differences(before: RunRecord, after: RunRecord) -> list[str]:
    """Differences between the machines and the package versions, in words."""
    old, new = cast(dict[str, Any], before["machine"]), cast(dict[str, Any], after["machine"])
    differences = [
        f"{name}: {old.get(name)}, then {new.get(name)}"
        for name in _MACHINE
        if old.get(name) != new.get(name)
    ]
    ours, theirs = old.get("packages", {}), new.get("packages", {})
    return differences + [
        f"{name}: {ours[name]}, then {theirs[name]}"
        for name in ours
        if name in theirs and ours[name] != theirs[name]
    ]


def _require_alike(before: RunRecord, after: RunRecord) -> None:
    if before["task"] != after["task"]:
        raise BenchError(
            f"expected two records of one task, found {before['task']} and {after['task']}"
        )
    free = _FREE if before["task"] in _TIMED else _FREE | _FREE_IN_EVALUATIONS
    old, new = _settings(before), _settings(after)
    differences = [
        f"{name} {old[name]} and {new[name]}"
        for name in old
        if name in new and name not in free and old[name] != new[name]
    ]
    if differences:
        raise BenchError(
            f"expected two records with the same settings, found {'; '.join(differences)}; "
            "run the benchmark again with the same settings"
        )


def _settings(run: RunRecord) -> dict[str, object]:
    """Settings and subject of a run; the path of a file or store of vectors does not matter."""
    record = cast(dict[str, Any], run)
    vectors = record.get("vectors", {})
    subject = ("rows", "dim", *(("source",) if vectors.get("source") in KINDS else ()))
    return {
        **{name: vectors[name] for name in subject if name in vectors},
        **{name: record[name] for name in _EVALUATED if name in record},
        **{
            f"n of {part['dataset']} {part['split']}": part["n"]
            for part in (*record.get("results", ()), *record.get("datasets", ()))
            if "n" in part
        },
        **record["settings"],
    }


def _change(name: str, before: Figure, after: Figure, limits: RegressionLimits) -> FigureChange:
    ratio = after.value / before.value if before.value else None
    interval = None
    if len(before.samples) > 1 and len(after.samples) > 1:
        ratio = float(np.median(after.samples) / np.median(before.samples))
        interval = _interval(after.samples, before.samples)
    if before.is_share:
        is_worse = after.value < before.value - limits.drop
    elif ratio is None:
        is_worse = after.value > 0 and not before.more_is_better
    else:
        low, high = interval or (ratio, ratio)
        if before.more_is_better:
            is_worse = ratio < 1 / limits.threshold and high < 1
        else:
            is_worse = ratio > limits.threshold and low > 1
    return FigureChange(name, before.value, after.value, after.unit, ratio, interval, is_worse)


def _interval(numerators: Sequence[float], denominators: Sequence[float]) -> tuple[float, float]:
    """Interval of the ratio of medians, from the intervals of both.

    Rounds of different runs are not pairs. The interval excludes 1 if the two do not overlap.
    """
    (low, high), (least, most) = median_interval(numerators), median_interval(denominators)
    return low / most, high / least
