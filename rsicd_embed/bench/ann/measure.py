"""Searches timed in the same rounds: one query at a time, then many at once; and what they find."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rsicd_embed.bench.ann.batch_searches import add_batches
from rsicd_embed.bench.ann.ground_truth import Truth
from rsicd_embed.bench.ann.worker import ContenderWorker
from rsicd_embed.bench.workers import Worker
from rsicd_embed.reports import record
from rsicd_embed.reports.statistics import paired_ratio
from rsicd_embed.reports.timing import Progress, Samples, TimingPlan, measure

NULL = "null store"
# Of what is timed, the bench's own part must be less than this.
OVERHEAD_GOAL = 0.02
_ANSWERS_S = 30.0  # for the answers of one contender
_PERCENTILES = {"p50": 50, "p95": 95, "p99": 99}

Workers = Mapping[str, Worker[ContenderWorker]]


@dataclass
class _Singles:
    """Times single queries in a contender's process, and keeps what each took."""

    worker: Worker[ContenderWorker]
    k: int
    where: str | None
    taken: list[tuple[int, np.ndarray]] = field(default_factory=list)

    def __call__(self, calls: int) -> int:
        """Nanoseconds with all that is not timed: else searches for nothing would never end."""
        started = time.perf_counter_ns()
        each = self.worker.call(ContenderWorker.singles, self.k, self.where, calls)
        self.taken.append((time.perf_counter_ns() - started, each))
        return self.taken[-1][0]

    def rounds(self, name: str, samples: Samples) -> list[np.ndarray]:
        """Nanoseconds of each query, round by round, without the warm-up."""
        kept = list(self.taken)
        if kept[-1][0] / samples.calls[name] != samples.of(name)[-1]:
            kept.pop()  # of a round that was cut short
        return [each for _, each in kept[-len(samples.rounds) :]]


def searched(
    workers: Workers,
    pairs: Mapping[str, str],
    right: Truth,
    plan: TimingPlan,
    *,
    batch: int = 0,
    batched: Collection[str] | None = None,
    clients: Mapping[str, Sequence[int]] | None = None,
    progress: Progress = lambda doing: None,
) -> dict[str, Any]:
    """Times all contenders, one query at a time and, unless `batch` is 0, up to so many at once.

    Args:
        workers: contenders by name, `NULL` among them.
        pairs: store → library called directly, of those in `workers`.
        right: what they should find.
        plan: of the rounds.
        batch: queries.
        batched: the contenders that are asked for so many; None for all.
        clients: by contender, how many ask for many at once at the same time, 1 among them; one.
        progress: is told what is being done.
    """
    told: dict[str, dict[str, Any]] = {}
    for name, worker in workers.items():
        if name != NULL:
            progress(f"answers of {name}")
            first, answers = worker.call(ContenderWorker.answers, right.k, right.where, _ANSWERS_S)
            told[name] = {"first_search_ns": first, **right.ann_recall(answers)}
    singles = {name: _Singles(worker, right.k, right.where) for name, worker in workers.items()}
    samples = measure(singles, plan, progress)
    rounds = {name: one.rounds(name, samples) for name, one in singles.items()}
    found: dict[str, Any] = {"complete": samples.complete, "contenders": told}
    for name in told:
        told[name]["single"] = _latency(rounds[name])
    found["ratios"] = _latency_ratios(rounds, pairs)
    found["overhead"] = _overhead(rounds)
    if samples.complete and batch:
        asked = {name: (1,) for name in told if batched is None or name in batched}
        some = asked | {name: tuple(n) for name, n in (clients or {}).items() if name in asked}
        try:
            add_batches(found, workers, pairs, right, plan, some, most=batch, progress=progress)
        except KeyboardInterrupt:  # single queries have been timed
            found["complete"] = False
    return found


def _latency(rounds: Sequence[np.ndarray]) -> dict[str, Any]:
    """Percentiles over all queries, and of each round."""
    every = np.concatenate(list(rounds))
    return {
        "n": len(every),
        **{f"{name}_ns": float(np.percentile(every, at)) for name, at in _PERCENTILES.items()},
        "mean_ns": record.significant(float(every.mean())),
        "by_round": {
            f"{name}_ns": [round(float(np.percentile(one, at)), 1) for one in rounds]
            for name, at in _PERCENTILES.items()
        },
    }


def _latency_ratios(
    rounds: Mapping[str, Sequence[np.ndarray]], pairs: Mapping[str, str]
) -> list[dict[str, Any]]:
    found = []
    for one, other in pairs.items():
        for name, at in _PERCENTILES.items():
            taken = [[np.percentile(a, at) for a in rounds[which]] for which in (one, other)]
            ratio = record.ratio(paired_ratio(*taken))
            found.append({"of": one, "to": other, "what": f"single {name}", **ratio})
    return found


def _overhead(rounds: Mapping[str, Sequence[np.ndarray]]) -> dict[str, float]:
    """What timing costs: the median of a search for nothing beside that of the fastest search."""
    medians = {name: float(np.median(np.concatenate(list(one)))) for name, one in rounds.items()}
    null = medians.pop(NULL)
    fraction = record.significant(null / min(medians.values()))
    return {"null_ns": null, "fraction": fraction, "goal": OVERHEAD_GOAL}
