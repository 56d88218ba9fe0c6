"""Interleaved timing, and statistics of its samples.

Every round runs all candidates, in a new random order. A machine's speed drifts over minutes;
candidates timed in the same round see the same drift. Ratios of two candidates are therefore taken
round by round (`paired_ratio`).
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from rsicd_embed.reports.record_types import RateSummary, Ratio, RatioSummary

# Runs a candidate the given number of times and returns the nanoseconds that this took.
Sampler = Callable[[int], int]
Progress = Callable[[str], None]

LEVEL = 0.95
_MOST_CALLS = 1_000_000


@dataclass(frozen=True)
class TimingPlan:
    """How to time.

    Attributes:
        rounds: samples of each candidate.
        seed: random seed of the order within each round.
        least_s: shortest sample in seconds, reached by repeating the call; 0 for a single call.
    """

    rounds: int = 10
    seed: int = 0
    least_s: float = 0.2

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise ValueError(f"expected at least one round, found {self.rounds}")


@dataclass(frozen=True)
class Samples:
    """Measured times.

    Attributes:
        calls: calls per sample, by candidate.
        rounds: nanoseconds per call, by candidate; complete rounds only.
        complete: whether all planned rounds were run.
    """

    calls: Mapping[str, int]
    rounds: tuple[Mapping[str, float], ...]
    complete: bool

    def of(self, candidate: str) -> list[float]:
        """Nanoseconds per call of one candidate, round by round."""
        return [times[candidate] for times in self.rounds]


def sample(run: Callable[[], object], calls: int) -> int:
    """Nanoseconds that `calls` calls take."""
    started = time.perf_counter_ns()
    for _ in range(calls):
        run()
    return time.perf_counter_ns() - started


def sampler(run: Callable[[], object]) -> Sampler:
    """A sampler that calls a function of this process."""
    return lambda calls: sample(run, calls)


def calls_for(take: Sampler, least_s: float) -> int:
    """Approximately the fewest calls that take `least_s` seconds. The first call is a warm-up."""
    take(1)
    if least_s <= 0:
        return 1
    calls, least_ns = 1, least_s * 1e9
    while calls < _MOST_CALLS:
        elapsed_ns = max(1, take(calls))
        if elapsed_ns >= least_ns:
            break
        calls = min(_MOST_CALLS, max(calls + 1, int(1.1 * calls * least_ns / elapsed_ns)))
    return calls


def rounds(
    samplers: Mapping[str, Sampler], calls: Mapping[str, int], plan: TimingPlan
) -> Iterator[dict[str, float]]:
    """Yields nanoseconds per call by candidate, one round at a time."""
    draw = random.Random(plan.seed)
    for _ in range(plan.rounds):
        order = list(samplers)
        draw.shuffle(order)
        times = {name: samplers[name](calls[name]) / calls[name] for name in order}
        yield {name: times[name] for name in samplers}


def measure(
    samplers: Mapping[str, Sampler], plan: TimingPlan, progress: Progress = lambda doing: None
) -> Samples:
    """Warms up, then runs the rounds.

    A KeyboardInterrupt after the first round ends the measurement early; the samples returned are
    then marked as incomplete.
    """
    calls = {}
    for name, take in samplers.items():
        progress(f"warming up {name}")
        calls[name] = calls_for(take, plan.least_s)
    done: list[Mapping[str, float]] = []
    try:
        for times in rounds(samplers, calls, plan):
            done.append(times)
            progress(f"round {len(done)} of {plan.rounds}")
    except KeyboardInterrupt:
        if not done:
            raise
    return Samples(calls, tuple(done), complete=len(done) == plan.rounds)


@dataclass(frozen=True)
class Spread:
    """Distribution of samples.

    Attributes:
        n: number of samples.
        median: the value to quote.
        low, high: interval of the median at `LEVEL`; see `median_interval`.
        min, q1, q3, max: extremes and quartiles.
    """

    n: int
    median: float
    low: float
    high: float
    min: float
    q1: float
    q3: float
    max: float


def spread(values: Sequence[float]) -> Spread:
    """Median, its interval, and quartiles of at least one value.

    Example:
        >>> spread([3, 1, 2]).median, spread([3, 1, 2]).min
        (2.0, 1.0)
    """
    samples = np.asarray(values, np.float64)
    if not samples.size:
        raise ValueError("expected at least one sample, found none")
    low, high = median_interval(samples)
    q1, median, q3 = (float(q) for q in np.quantile(samples, (0.25, 0.5, 0.75)))
    least, most = float(samples.min()), float(samples.max())
    return Spread(len(samples), median, low, high, least, q1, q3, most)


def median_interval(values: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """Two of the samples that enclose the median with a probability of at least `LEVEL`.

    The number of samples below the median is binomial for any distribution (Thompson 1936).
    Fewer than six samples cannot reach the level; the interval is then their full range. (A
    percentile bootstrap is too narrow for so few: with seven samples it drops the outermost two and
    covers the median in only 88% of cases.)

    Example:
        >>> median_interval([3, 1, 2, 7, 6, 5, 4]), median_interval(range(1, 11))
        ((1.0, 7.0), (2.0, 9.0))
    """
    ordered = np.sort(np.asarray(values, np.float64))
    n = len(ordered)
    tail, heads = 1, 0  # sequences of n tosses with at most `heads` heads, out of 2**n
    while 2 * tail / 2**n <= 1 - LEVEL:
        heads += 1
        tail += math.comb(n, heads)
    left_out = max(0, heads - 1)
    return float(ordered[left_out]), float(ordered[n - 1 - left_out])


def paired_ratio(numerators: Sequence[float], denominators: Sequence[float]) -> Spread:
    """Ratios of values from the same rounds, so that a slow round cancels out.

    Example:
        >>> paired_ratio([2, 20, 4], [1, 10, 2]).median
        2.0
    """
    if len(numerators) != len(denominators):
        raise ValueError(f"expected pairs, found {len(numerators)} and {len(denominators)} values")
    return spread([top / bottom for top, bottom in zip(numerators, denominators, strict=True)])


def rate_summary(samples: Samples, name: str, units: float, unit: str) -> RateSummary:
    """Rate of a candidate that processes `units` items of `unit` per call, for a record.

    `samples_ns` are raw: nanoseconds per call, one per round. `per_s` and its interval come from
    their median, `per_s_best` from the shortest.
    """
    times = samples.of(name)
    ns = spread(times)
    return {
        "unit": unit,
        "units_per_call": units,
        "calls_per_sample": samples.calls[name],
        "samples_ns": [round(sample, 1) for sample in times],
        "ns": {key: round(value, 1) for key, value in asdict(ns).items()},
        "per_s": significant(units * 1e9 / ns.median),
        "per_s_interval": [significant(units * 1e9 / end) for end in (ns.high, ns.low)],
        "per_s_best": significant(units * 1e9 / ns.min),
    }


def rate_ratio(samples: Samples, first: str, second: str, *, units: Mapping[str, float]) -> Ratio:
    """Rate of `first` divided by the rate of `second`: the median over rounds."""
    scale = units[first] / units[second]
    summary = ratio_summary(paired_ratio(samples.of(second), samples.of(first)), scale)
    return {"of": first, "to": second, "ratio": summary["ratio"], "interval": summary["interval"]}


def ratio_summary(ratio: Spread, scale: float = 1.0) -> RatioSummary:
    """A ratio's median and interval, for a record."""
    return {
        "ratio": significant(ratio.median * scale),
        "interval": [significant(ratio.low * scale), significant(ratio.high * scale)],
    }


def significant(value: float, digits: int = 6) -> float:
    """Rounds to this many significant digits.

    Example:
        >>> significant(1234.56789), significant(0.000123456789)
        (1234.57, 0.000123457)
    """
    if value == 0 or not math.isfinite(value):
        return value
    return round(value, digits - 1 - math.floor(math.log10(abs(value))))
