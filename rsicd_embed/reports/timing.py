"""Interleaved timing: every round runs all candidates, in an order drawn anew.

A machine is not equally fast from minute to minute. Candidates that are timed one after the other
are compared at different minutes; candidates of one round, at the same. So the ratios of two
candidates are taken round by round (`stats.paired_ratio`).
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

# Runs a candidate so many times, and tells the nanoseconds that this took.
Sampler = Callable[[int], int]
Progress = Callable[[str], None]

_MOST_CALLS = 1_000_000


@dataclass(frozen=True)
class TimingPlan:
    """How to time.

    Attributes:
        rounds: samples of each candidate.
        seed: of the orders.
        least_s: a sample lasts at least so long, by as many calls as that needs; 0 for one call.
    """

    rounds: int = 10
    seed: int = 0
    least_s: float = 0.2

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise ValueError(f"expected at least one round, found {self.rounds}")


@dataclass(frozen=True)
class Samples:
    """What was timed.

    Attributes:
        calls: calls a sample, by candidate.
        rounds: nanoseconds a call, by candidate; whole rounds only.
        complete: whether these are all rounds that were planned.
    """

    calls: Mapping[str, int]
    rounds: tuple[Mapping[str, float], ...]
    complete: bool

    def of(self, candidate: str) -> list[float]:
        """Nanoseconds a call, round by round."""
        return [one[candidate] for one in self.rounds]


def sample(run: Callable[[], object], calls: int) -> int:
    """Nanoseconds that `calls` calls take."""
    started = time.perf_counter_ns()
    for _ in range(calls):
        run()
    return time.perf_counter_ns() - started


def sampler(run: Callable[[], object]) -> Sampler:
    """Times something in this process."""
    return lambda calls: sample(run, calls)


def calls_for(take: Sampler, least_s: float) -> int:
    """Fewest calls, about, that take `least_s` together. The first call is a warm-up."""
    take(1)
    if least_s <= 0:
        return 1
    calls, wanted_ns = 1, least_s * 1e9
    while calls < _MOST_CALLS:
        taken_ns = max(1, take(calls))
        if taken_ns >= wanted_ns:
            break
        calls = min(_MOST_CALLS, max(calls + 1, int(1.1 * calls * wanted_ns / taken_ns)))
    return calls


def rounds(
    samplers: Mapping[str, Sampler], calls: Mapping[str, int], plan: TimingPlan
) -> Iterator[dict[str, float]]:
    """Nanoseconds a call, by candidate, a round at a time."""
    draw = random.Random(plan.seed)
    for _ in range(plan.rounds):
        order = list(samplers)
        draw.shuffle(order)
        taken = {}
        for name in order:
            taken[name] = samplers[name](calls[name]) / calls[name]
        yield {name: taken[name] for name in samplers}


def measure(
    samplers: Mapping[str, Sampler], plan: TimingPlan, progress: Progress = lambda doing: None
) -> Samples:
    """Warms up, then runs the rounds.

    An interruption by the user (KeyboardInterrupt) after the first round ends the measurement: what
    there is comes back, as not complete.
    """
    calls = {}
    for name, take in samplers.items():
        progress(f"warming up {name}")
        calls[name] = calls_for(take, plan.least_s)
    done: list[Mapping[str, float]] = []
    try:
        for one in rounds(samplers, calls, plan):
            done.append(one)
            progress(f"round {len(done)} of {plan.rounds}")
    except KeyboardInterrupt:
        if not done:
            raise
    return Samples(calls, tuple(done), complete=len(done) == plan.rounds)
