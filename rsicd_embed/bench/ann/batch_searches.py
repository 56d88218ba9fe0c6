"""Searches for many queries at once, from one client and from several at the same time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rsicd_embed.bench.ann.ground_truth import Truth
from rsicd_embed.bench.ann.worker import ContenderWorker
from rsicd_embed.bench.workers import Worker
from rsicd_embed.reports import record
from rsicd_embed.reports.timing import Progress, Sampler, TimingPlan, measure

_SAMPLE_S = 1.0  # so long, about, one call may take


def add_batches(
    found: dict[str, Any],
    workers: Mapping[str, Worker[ContenderWorker]],
    pairs: Mapping[str, str],
    right: Truth,
    plan: TimingPlan,
    clients: Mapping[str, Sequence[int]],
    *,
    most: int,
    progress: Progress = lambda doing: None,
) -> None:
    """Adds `batch` (one client) and `batch_by_clients` to what was told of some contenders.

    `clients` says of which, and how many clients. Each gets as many queries at once, up to `most`,
    as its own speed allows. All are timed in the same rounds.
    """
    told = found["contenders"]
    sizes: dict[str, int] = {}
    samplers: dict[str, Sampler] = {}
    ann_recalls: dict[str, dict[str, Any]] = {}
    for name, counts in clients.items():
        fitting = int(_SAMPLE_S * 1e9 / told[name]["single"]["p50_ns"])
        sizes[name] = max(2, min(most, fitting, len(right.workload.queries)))
        answers = workers[name].call(ContenderWorker.batch_answers, right.k, sizes[name])
        ann_recalls[name] = right.ann_recall(answers)
        for count in counts:
            samplers[_key(name, count)] = _sampler(workers[name], right.k, sizes[name], count)
    samples = measure(samplers, plan, progress)
    found["complete"] = samples.complete
    for name, counts in clients.items():
        by_clients = {
            str(count): record.candidate(
                samples, _key(name, count), float(sizes[name] * count), "queries"
            )
            for count in counts
        }
        told[name]["batch"] = by_clients.pop("1") | ann_recalls[name]
        told[name]["batch_by_clients"] = by_clients
    units = {_key(name, 1): float(size) for name, size in sizes.items()}
    for one, other in pairs.items():
        ratio = record.rate_ratio(samples, _key(one, 1), _key(other, 1), units=units)
        found["ratios"].append({"what": "batch QPS", **ratio, "of": one, "to": other})


def _key(name: str, clients: int) -> str:
    return f"{name}, {clients} clients"


def _sampler(worker: Worker[ContenderWorker], k: int, size: int, clients: int) -> Sampler:
    return lambda calls: worker.call(ContenderWorker.batches, k, size, clients, calls)
