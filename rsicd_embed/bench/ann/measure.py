"""Searches timed in the same rounds: one query at a time, then many at once; and what they find."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rsicd_embed.bench import record
from rsicd_embed.bench.ann import truth
from rsicd_embed.bench.ann.held import Held
from rsicd_embed.bench.ann.workload import FAR, HELD_OUT, MOVED, PART, Workload
from rsicd_embed.bench.isolate import Place
from rsicd_embed.bench.stats import paired_ratio
from rsicd_embed.bench.timing import Plan, Progress, Sampler, Samples, measure

NULL = "null store"
# Of what is timed, the bench's own part must be less than this.
OVERHEAD_GOAL = 0.02
_ANSWERS_S = 30.0  # for the answers of one contender
_BATCH_S = 1.0  # so long, about, a sample of many queries at once may take
_PERCENTILES = {"p50": 50, "p95": 95, "p99": 99}

Places = Mapping[str, Place[Held]]


@dataclass
class _Singles:
    """Times single queries in a contender's process, and keeps what each took."""

    place: Place[Held]
    where: str | None
    taken: list[np.ndarray] = field(default_factory=list)

    def __call__(self, calls: int) -> int:
        self.taken.append(self.place.ask(Held.singles, self.where, calls))
        return int(self.taken[-1].sum())

    def rounds(self, name: str, samples: Samples) -> list[np.ndarray]:
        """Nanoseconds of each query, round by round, without the warm-up."""
        kept = list(self.taken)
        if kept[-1].sum() / samples.calls[name] != samples.of(name)[-1]:
            kept.pop()  # of a round that was cut short
        return kept[-len(samples.rounds) :]


@dataclass(frozen=True)
class Truth:
    """What the searches should find.

    Attributes:
        workload: rows and queries.
        k: rows for each query.
        below: only rows whose part is less count; None for all.
    """

    workload: Workload
    k: int
    below: int | None = None

    @property
    def where(self) -> str | None:
        """For the searches."""
        return None if self.below is None else f"{PART} < {self.below}"

    @property
    def mask(self) -> np.ndarray | None:
        """bool (rows,): those that count."""
        return None if self.below is None else self.workload.parts() < self.below

    def kth_best(self) -> np.ndarray:
        """See `truth.kth_best`."""
        return truth.kth_best(self.workload.base, self.workload.queries, self.k, self.mask)

    def ann_recall(self, found: Sequence[np.ndarray], kth: np.ndarray) -> dict[str, Any]:
        """Mean ANN recall@k, over all queries that were answered and by kind."""
        base, queries = self.workload.base, self.workload.queries
        shares = truth.ann_recalls(found, base, queries, kth, self.k, self.mask)
        kinds = np.array(self.workload.kinds[: len(found)])
        by_kind = {kind: shares[kinds == kind] for kind in (HELD_OUT, MOVED, FAR)}
        return {
            "ann_recall": record.significant(float(shares.mean())),
            "ann_recall_by_kind": {
                kind: record.significant(float(one.mean()))
                for kind, one in by_kind.items()
                if one.size
            },
            "least_of_a_query": record.significant(float(shares.min())),
            "queries": len(found),
        }


def searched(
    places: Places,
    pairs: Mapping[str, str],
    right: Truth,
    plan: Plan,
    *,
    batch: int = 0,
    progress: Progress = lambda doing: None,
) -> dict[str, Any]:
    """Times all contenders, one query at a time and, unless `batch` is 0, up to so many at once.

    Args:
        places: contenders by name, `NULL` among them.
        pairs: store → library called directly, of those in `places`.
        right: what they should find.
        plan: of the rounds.
        batch: queries.
        progress: is told what is being done.
    """
    kth = right.kth_best()
    told: dict[str, dict[str, Any]] = {}
    for name, place in places.items():
        if name != NULL:
            progress(f"answers of {name}")
            first, answers = place.ask(Held.answers, right.where, _ANSWERS_S)
            told[name] = {"first_search_ns": first, **right.ann_recall(answers, kth)}
    singles = {name: _Singles(place, right.where) for name, place in places.items()}
    samples = measure(singles, plan, progress)
    rounds = {name: one.rounds(name, samples) for name, one in singles.items()}
    found: dict[str, Any] = {"complete": samples.complete, "contenders": told}
    for name in told:
        told[name]["single"] = _latency(rounds[name])
    found["ratios"] = _latency_ratios(rounds, pairs)
    found["overhead"] = _overhead(rounds)
    if samples.complete and batch:
        _add_batches(found, places, pairs, right, kth, plan, batch, progress)
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


def _add_batches(
    found: dict[str, Any],
    places: Places,
    pairs: Mapping[str, str],
    right: Truth,
    kth: np.ndarray,
    plan: Plan,
    batch: int,
    progress: Progress,
) -> None:
    """Each with as many queries at once, up to `batch`, as its own speed allows."""
    told = found["contenders"]
    sizes: dict[str, int] = {}
    samplers: dict[str, Sampler] = {}
    for name in told:
        fitting = int(_BATCH_S * 1e9 / told[name]["single"]["p50_ns"])
        sizes[name] = max(2, min(batch, fitting, len(right.workload.queries)))
        answers = places[name].ask(Held.batch_answers, sizes[name])
        told[name]["batch"] = right.ann_recall(answers, kth)
        samplers[name] = _batch_sampler(places[name], sizes[name])
    samples = measure(samplers, plan, progress)
    found["complete"] = samples.complete
    for name in told:
        timed = record.candidate(samples, name, float(sizes[name]), "queries")
        told[name]["batch"] = timed | told[name]["batch"]
    for one, other in pairs.items():
        ratio = record.rate_ratio(samples, one, other, units=sizes)
        found["ratios"].append({"what": "batch QPS", **ratio})


def _batch_sampler(place: Place[Held], size: int) -> Sampler:
    return lambda calls: place.ask(Held.batches, size, calls)
