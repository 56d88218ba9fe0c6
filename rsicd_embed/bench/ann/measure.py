"""Timed searches, interleaved: single queries, then batches; and their ANN recall."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np

from rsicd_embed.bench.ann.contenders import NULL
from rsicd_embed.bench.ann.ground_truth import GroundTruth
from rsicd_embed.bench.ann.worker import ContenderWorker
from rsicd_embed.bench.workers import Worker
from rsicd_embed.reports.record_types import (
    PERCENTILES,
    BatchRate,
    Overhead,
    Percentile,
    QueryLatency,
    RateSummary,
    Ratio,
    SearchedContender,
    SearchState,
    SweepStep,
)
from rsicd_embed.reports.timing import (
    Progress,
    Sampler,
    Samples,
    TimingPlan,
    measure,
    paired_ratio,
    rate_ratio,
    rate_summary,
    ratio_summary,
    significant,
)

# The benchmark's own part of a timed search must be below this fraction.
OVERHEAD_GOAL = 0.02
_ANSWERS_S = 30.0  # time limit of the untimed answers of one contender
_BATCH_S = 1.0  # approximate duration of the largest batch
_PERCENTS: Mapping[Percentile, int] = dict(zip(PERCENTILES, (50, 95, 99), strict=True))

Workers = Mapping[str, Worker[ContenderWorker]]


@dataclass
class _Singles:
    """Times single queries in a contender's worker, and keeps the time of each."""

    worker: Worker[ContenderWorker]
    k: int
    where: str | None
    times: list[tuple[int, np.ndarray]] = field(default_factory=list)

    def __call__(self, calls: int) -> int:
        """Nanoseconds including overhead: the null store alone would never fill a sample."""
        started = time.perf_counter_ns()
        each = self.worker.call(ContenderWorker.singles, self.k, self.where, calls)
        self.times.append((time.perf_counter_ns() - started, each))
        return self.times[-1][0]

    def rounds(self, name: str, samples: Samples) -> list[np.ndarray]:
        """Nanoseconds of each query, round by round, without the warm-up."""
        times = list(self.times)
        if times[-1][0] / samples.calls[name] != samples.of(name)[-1]:
            times.pop()  # from an interrupted round
        return [each for _, each in times[-len(samples.rounds) :]]


def search_all(
    workers: Workers,
    pairs: Mapping[str, str],
    truth: GroundTruth,
    plan: TimingPlan,
    *,
    batch: int = 0,
    batched: Collection[str] | None = None,
    clients: Mapping[str, Sequence[int]] | None = None,
    progress: Progress = lambda doing: None,
) -> SearchState:
    """Times all contenders with single queries and, unless `batch` is 0, with batches.

    Args:
        workers: contenders by name, `NULL` among them.
        pairs: store → library called directly, both among `workers`.
        truth: the correct results.
        plan: the rounds.
        batch: maximum number of queries per batch.
        batched: contenders to time with batches; None for all.
        clients: numbers of concurrent clients by contender, 1 among them; 1 by default.
        progress: called with a description of the current step.
    """
    contenders: dict[str, SearchedContender] = {}
    for name, worker in workers.items():
        if name != NULL:
            progress(f"answers of {name}")
            first, answers = worker.call(ContenderWorker.answers, truth.k, truth.where, _ANSWERS_S)
            contenders[name] = cast(
                SearchedContender, {"first_search_ns": first, **truth.ann_recall(answers)}
            )
    singles = {name: _Singles(worker, truth.k, truth.where) for name, worker in workers.items()}
    samples = measure(singles, plan, progress)
    rounds = {name: single.rounds(name, samples) for name, single in singles.items()}
    for name, contender in contenders.items():
        contender["single"] = _latency(rounds[name])
    state: SearchState = {
        "complete": samples.complete,
        "contenders": contenders,
        "ratios": _latency_ratios(rounds, pairs),
        "overhead": _overhead(rounds),
    }
    if samples.complete and batch:
        names = [name for name in contenders if batched is None or name in batched]
        counts = {name: tuple((clients or {}).get(name, (1,))) for name in names}
        try:
            _add_batches(state, workers, pairs, truth, plan, counts, most=batch, progress=progress)
        except KeyboardInterrupt:  # the times of single queries are kept
            state["complete"] = False
    return state


def _latency(rounds: Sequence[np.ndarray]) -> QueryLatency:
    """Percentiles over all queries, and of each round."""
    every = np.concatenate(list(rounds))
    p50, p95, p99 = (float(np.percentile(every, at)) for at in _PERCENTS.values())
    return {
        "n": len(every),
        "p50_ns": p50,
        "p95_ns": p95,
        "p99_ns": p99,
        "mean_ns": significant(float(every.mean())),
        "by_round": {
            name: [round(float(np.percentile(times, at)), 1) for times in rounds]
            for name, at in _PERCENTS.items()
        },
    }


def _latency_ratios(
    rounds: Mapping[str, Sequence[np.ndarray]], pairs: Mapping[str, str]
) -> list[Ratio]:
    ratios: list[Ratio] = []
    for store, library in pairs.items():
        for name, at in _PERCENTS.items():
            ours, theirs = (
                [float(np.percentile(times, at)) for times in rounds[contender]]
                for contender in (store, library)
            )
            summary = ratio_summary(paired_ratio(ours, theirs))
            quantity = f"single {name.removesuffix('_ns')}"
            ratios.append(
                {
                    "of": store,
                    "to": library,
                    "what": quantity,
                    "ratio": summary["ratio"],
                    "interval": summary["interval"],
                }
            )
    return ratios


def _overhead(rounds: Mapping[str, Sequence[np.ndarray]]) -> Overhead:
    """Cost of timing: the median of the null store, relative to the fastest search."""
    medians = {name: float(np.median(np.concatenate(list(own)))) for name, own in rounds.items()}
    null = medians.pop(NULL)
    fraction = significant(null / min(medians.values()))
    return {"null_ns": null, "fraction": fraction, "goal": OVERHEAD_GOAL}


def _add_batches(
    state: SearchState,
    workers: Workers,
    pairs: Mapping[str, str],
    truth: GroundTruth,
    plan: TimingPlan,
    clients: Mapping[str, Sequence[int]],
    *,
    most: int,
    progress: Progress,
) -> None:
    """Adds `batch` (one client) and `batch_by_clients` to the contenders in `clients`.

    The size of a contender's batches, at most `most`, depends on its speed. All are timed in the
    same rounds.
    """
    contenders = state["contenders"]
    sizes: dict[str, int] = {}
    samplers: dict[str, Sampler] = {}
    ann_recalls = {}
    for name, counts in clients.items():
        fitting = int(_BATCH_S * 1e9 / contenders[name]["single"]["p50_ns"])
        sizes[name] = max(2, min(most, fitting, len(truth.workload.queries)))
        answers = workers[name].call(ContenderWorker.batch_answers, truth.k, sizes[name])
        ann_recalls[name] = truth.ann_recall(answers)
        for count in counts:
            samplers[_key(name, count)] = _sampler(workers[name], truth.k, sizes[name], count)
    samples = measure(samplers, plan, progress)
    state["complete"] = samples.complete
    for name, counts in clients.items():
        rates: dict[str, RateSummary] = {
            str(count): rate_summary(
                samples, _key(name, count), float(sizes[name] * count), "queries"
            )
            for count in counts
        }
        batch: BatchRate = {**rates.pop("1"), **ann_recalls[name]}
        contenders[name]["batch"] = batch
        contenders[name]["batch_by_clients"] = rates
    units = {_key(name, 1): float(size) for name, size in sizes.items()}
    for store, library in pairs.items():
        ratio = rate_ratio(samples, _key(store, 1), _key(library, 1), units=units)
        ratio |= {"of": store, "to": library, "what": "batch QPS"}
        state["ratios"].append(ratio)


def _key(name: str, clients: int) -> str:
    return f"{name}, {clients} clients"


def _sampler(worker: Worker[ContenderWorker], k: int, size: int, clients: int) -> Sampler:
    return lambda calls: worker.call(ContenderWorker.batches, k, size, clients, calls)


def sweep_steps(
    state: SearchState, steps: Mapping[str, Sequence[Mapping[str, int]]], k: int
) -> list[SweepStep]:
    """Splits the results of a sweep by step.

    The first search of a step is not recorded: the stores have searched before, with other
    settings.

    Args:
        state: results of contenders named `NAME, STEP`.
        steps: the settings of each contender.
        k: rows per query.
    """
    results: list[SweepStep] = []
    for at in range(max(map(len, steps.values()))):
        names = [name for name, own in steps.items() if at < len(own)]
        contenders = {name: state["contenders"][f"{name}, {at}"].copy() for name in names}
        for contender in contenders.values():
            del contender["first_search_ns"]
        results.append(
            {
                "k": k,
                "settings": {name: dict(steps[name][at]) for name in names},
                "complete": state["complete"],
                "contenders": contenders,
                "overhead": state["overhead"],
            }
        )
    return results
