"""Rounds and their order, calls per sample, and the cost of timing."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from rsicd_embed.bench.embed_rates import NULL
from rsicd_embed.reports.timing import (
    Sampler,
    Samples,
    TimingPlan,
    calls_for,
    measure,
    rate_ratio,
    rate_summary,
    rounds,
    sampler,
)


class Clockwork:
    """Candidates with fixed times, and the order in which they ran."""

    def __init__(self, **ns: int) -> None:
        self.ran: list[str] = []
        self.ns = ns

    def samplers(self) -> Mapping[str, Sampler]:
        def take(name: str) -> Sampler:
            def run(calls: int) -> int:
                self.ran.append(name)
                return calls * self.ns[name]

            return run

        return {name: take(name) for name in self.ns}


def test_every_round_runs_each_candidate_once_in_a_new_order() -> None:
    clock = Clockwork(a=1, b=2, c=3)
    times = list(rounds(clock.samplers(), dict.fromkeys("abc", 1), TimingPlan(rounds=20, seed=3)))
    orders = [tuple(clock.ran[i : i + 3]) for i in range(0, 60, 3)]
    assert all(sorted(order) == ["a", "b", "c"] for order in orders)
    assert len(set(orders)) > 2
    assert times == [{"a": 1.0, "b": 2.0, "c": 3.0}] * 20
    again = Clockwork(a=1, b=2, c=3)
    list(rounds(again.samplers(), dict.fromkeys("abc", 1), TimingPlan(rounds=20, seed=3)))
    assert again.ran == clock.ran


def test_short_calls_are_repeated_until_a_sample_is_long_enough() -> None:
    clock = Clockwork(short=1_000, long=10**9)
    take = clock.samplers()
    assert 1_000 <= calls_for(take["short"], 0.001) <= 2_500
    assert calls_for(take["long"], 0.2) == 1
    assert calls_for(take["short"], 0) == 1


def test_samples_are_per_call_and_exclude_the_warm_up() -> None:
    samples = measure(Clockwork(a=500, b=1000).samplers(), TimingPlan(rounds=3, least_s=1e-5))
    assert samples.complete
    assert samples.of("a") == [500.0] * 3
    assert samples.calls["a"] >= 20


def test_an_interrupted_measurement_keeps_complete_rounds() -> None:
    clock = Clockwork(a=1, b=2)
    take = dict(clock.samplers())

    def stop(calls: int) -> int:
        if clock.ran.count("b") > 4:
            raise KeyboardInterrupt
        return clock.samplers()["b"](calls)

    samples = measure(take | {"b": stop}, TimingPlan(rounds=50, least_s=0))
    assert not samples.complete
    assert 0 < len(samples.rounds) < 50
    assert len(samples.of("a")) == len(samples.of("b"))
    with pytest.raises(KeyboardInterrupt):
        measure({"b": stop}, TimingPlan(rounds=1, least_s=0))


def test_rates_and_ratios_account_for_the_units_per_call() -> None:
    samples = Samples({"a": 1, "b": 1}, ({"a": 1e9, "b": 1e9}, {"a": 2e9, "b": 2e9}), True)
    rate = rate_summary(samples, "a", 64.0, "images")
    assert (rate["per_s"], rate["per_s_best"]) == (pytest.approx(42.6667), 64.0)
    assert rate["samples_ns"] == [1e9, 2e9]
    assert rate_ratio(samples, "a", "b", units={"a": 64.0, "b": 32.0})["ratio"] == 2.0


def test_timing_costs_almost_nothing() -> None:
    """Relative to a call of a millisecond, shorter than any that is measured."""
    samples = measure({NULL: sampler(lambda: None)}, TimingPlan(rounds=3, least_s=0.001))
    assert min(samples.of(NULL)) < 0.02 * 1e6
