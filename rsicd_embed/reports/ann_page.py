"""What a page says of `bench ann`: how much is found, and how fast."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rsicd_embed.reports import svg
from rsicd_embed.reports.page import Report, Section, table
from rsicd_embed.reports.pareto import OPTIMIZED, points
from rsicd_embed.reports.svg import Axis, Bar, Mark, Series

_GOOD = 0.99
_LATENCIES = (("p50", 5.0), ("p95", 4.0), ("p99", 3.0))
_LIBRARY = "library of "


def report(run: Mapping[str, Any]) -> Report:
    """From the record."""
    vectors = run["vectors"]
    title = (
        f"Vector search: {vectors['rows']:,} vectors of length {vectors['dim']} "
        f"({vectors['source']})"
    )
    return Report(title, list(_tiles(run)), list(_sections(run)))


def colour_of(run: Mapping[str, Any], name: str) -> int:
    """The number of a contender's colour; a library has that of its store."""
    names = list(run["settings"]["stores"])
    names += [one for one in _contenders(run) if one.removeprefix(_LIBRARY) not in names]
    return names.index(name.removeprefix(_LIBRARY)) % svg.SERIES


def _contenders(run: Mapping[str, Any]) -> list[str]:
    states = (*run["states"].values(), *run.get("sweep", ()))
    return list(dict.fromkeys(name for one in states for name in one["contenders"]))


def _is_store(run: Mapping[str, Any], name: str) -> bool:
    return name in run["settings"]["stores"]


def _tiles(run: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "queries", f"{run['queries']['count']:,}"
    k = run["settings"]["k"]
    mine = [one for one in points(run) if one["k"] == k and _is_store(run, one["contender"])]
    good = [one for one in mine if one["ann_recall"] >= _GOOD]
    if good:
        best = min(good, key=lambda one: float(one["p50_ns"]))
        named = f"fastest store with ANN recall@{k} of {_GOOD} or more: {_named(best)}"
        yield named, f"{best['p50_ns'] / 1e6:.2g} ms"
    rates = [(rate, one) for one in good for rate in one["qps"].values()]
    if rates:
        rate, best = max(rates, key=lambda one: float(one[0]))
        yield f"most queries a second, many at once: {_named(best)}", f"{rate:,.0f}"


def _named(point: Mapping[str, Any]) -> str:
    words = ", ".join(f"{name}={value}" for name, value in point["settings"].items())
    return f"{point['contender']}{', ' if words else ''}{words}"


def _sections(run: Mapping[str, Any]) -> Iterator[Section]:
    every = points(run)
    for k in dict.fromkeys(one["k"] for one in every):
        some = [one for one in every if one["k"] == k]
        yield Section(
            f"ANN recall@{k} against latency",
            f"ANN recall@{k} is the part of the {k} best rows, computed exactly, that a search "
            "finds (not retrieval R@k, which is about captions). Up and to the left is better; "
            "joined points are one index with different settings; rings are libraries without "
            "a store.",
            _curves(run, some, k),
        )
    for state, told in run["states"].items():
        searched = {name: one for name, one in told["contenders"].items() if "single" in one}
        if searched:
            yield Section(f"Latency, {state}", _said(told), _latency(run, searched))
    yield from _throughput(run)
    yield from _builds(run)
    if any(state["ratios"] for state in run["states"].values()):
        words = "Medians of ratios, round by round: below 1, the store takes less time."
        yield Section("Stores beside their libraries", words, _ratios(run))


def _curves(run: Mapping[str, Any], some: Sequence[Mapping[str, Any]], k: int) -> str:
    x = svg.log_axis("p50 of a single query, ms", [one["p50_ns"] / 1e6 for one in some])
    y = svg.share_axis(f"ANN recall@{k}", [one["ann_recall"] for one in some])
    series = []
    for name in dict.fromkeys(one["contender"] for one in some):
        own = [one for one in some if one["contender"] == name]
        marks = [Mark(one["p50_ns"] / 1e6, one["ann_recall"], _title(one)) for one in own]
        swept = [one for one, point in zip(marks, own, strict=True) if point["settings"]]
        colour, hollow = colour_of(run, name), not _is_store(run, name)
        if swept:
            series.append(Series(name, swept, colour, line=True, hollow=hollow))
            marks = [one for one in marks if one not in swept]
        series.append(Series(name, marks, colour, hollow=hollow))
    return svg.scatter(series, x, y, f"ANN recall@{k} and latency") + _points_table(some, k)


def _title(point: Mapping[str, Any]) -> str:
    return (
        f"{_named(point)}: ANN recall@{point['k']} {point['ann_recall']:.4f}, "
        f"p50 {point['p50_ns'] / 1e6:.3g} ms, p95 {point['p95_ns'] / 1e6:.3g} ms"
    )


def _points_table(some: Sequence[Mapping[str, Any]], k: int) -> str:
    rows: list[tuple[str, ...]]
    rows = [("", f"ANN recall@{k}", "95%", "p50, ms", "p95, ms", "p99, ms", "queries/s")]
    ordered = sorted(some, key=lambda one: (one["contender"], one["p50_ns"]))
    for one in ordered:
        interval = one["ann_recall_interval"]
        ends = "{:.4f}–{:.4f}".format(*interval) if interval else ""
        times = (f"{one[f'{at}_ns'] / 1e6:.3f}" for at, _ in _LATENCIES)
        rate = max(one["qps"].values(), default=None)
        told = f"{rate:,.0f}" if rate is not None else ""
        rows.append((_named(one), f"{one['ann_recall']:.4f}", ends, *times, told))
    best = [number for number, one in enumerate(ordered, 1) if one["pareto"]]
    summary = "All points; nothing finds more in less time than those in bold"
    return f"<details><summary>{summary}</summary>{table(rows, best)}</details>"


def _said(told: Mapping[str, Any]) -> str:
    where = f" under the filter {told['where']}" if told.get("where") else ""
    return (
        f"Single queries{where}, one after the other: p50, p95 and p99. The benchmark itself takes "
        f"{told['overhead']['null_ns']:.0f} ns of each."
    )


def _latency(run: Mapping[str, Any], searched: Mapping[str, Any]) -> str:
    values = [one["single"][f"{at}_ns"] / 1e6 for one in searched.values() for at, _ in _LATENCIES]
    x: Axis = svg.log_axis("ms", values)
    lines: list[tuple[str, ...]]
    rows, lines = [], [("", "ANN recall", "p50, ms", "p95, ms", "p99, ms", "first, ms")]
    for name, one in searched.items():
        times = {at: one["single"][f"{at}_ns"] / 1e6 for at, _ in _LATENCIES}
        marks = [
            Mark(times[at], radius, f"{name}: {at} {times[at]:.3g} ms") for at, radius in _LATENCIES
        ]
        rows.append((name, colour_of(run, name), marks))
        told = (f"{value:.3f}" for value in times.values())
        first = f"{one['first_search_ns'] / 1e6:.1f}" if "first_search_ns" in one else ""
        lines.append((name, f"{one['ann_recall']:.4f}", *told, first))
    figures = f"<details><summary>Figures</summary>{table(lines)}</details>"
    return svg.strips(rows, x, "latency") + figures


def _throughput(run: Mapping[str, Any]) -> Iterator[Section]:
    told = run["states"].get(OPTIMIZED, {}).get("contenders", {})
    some = []
    for name, one in told.items():
        batches = {"1": one.get("batch", {})} | one.get("batch_by_clients", {})
        for clients, batch in batches.items():
            if "per_s" in batch:
                named = name if clients == "1" else f"{name}, {clients} clients"
                low, high = batch["per_s_interval"]
                text = f"{batch['per_s']:,.0f}"
                some.append(Bar(named, batch["per_s"], text, low, high, colour_of(run, name)))
    if some:
        words = "Many queries a call; the lines are 95% intervals of the median over the rounds."
        yield Section("Queries a second", words, svg.bars(some, "queries a second"))


def _builds(run: Mapping[str, Any]) -> Iterator[Section]:
    seconds, disk, memory = [], [], []
    searched = run["states"].get(OPTIMIZED, {}).get("contenders", {})
    for name in [one for one in _contenders(run) if one in run["contenders"]]:
        one, colour = run["contenders"][name], colour_of(run, name)
        taken = sum(one[step]["s"] for step in ("upsert", "optimize") if step in one)
        seconds.append(Bar(name, taken, f"{taken:.3g} s", colour=colour))
        if one.get("disk_bytes"):
            size = one["disk_bytes"]
            disk.append(Bar(name, size, f"{size / 1e6:,.0f} MB", colour=colour))
    for name, one in searched.items():
        if one.get("peak_bytes"):
            text = f"{one['peak_bytes'] / 1e6:,.0f} MB"
            memory.append(Bar(name, one["peak_bytes"], text, colour=colour_of(run, name)))
    for title, words, some in (
        ("Time to build", "Filling and optimizing.", seconds),
        ("Size on disk", "After optimizing.", disk),
        ("Memory", "The most that was resident while it searched, mapped files included.", memory),
    ):
        if some:
            yield Section(title, words, svg.bars(some, title))


def _ratios(run: Mapping[str, Any]) -> str:
    rows = [("", "", "ratio", "95%")]
    for state, told in run["states"].items():
        for one in told["ratios"]:
            ends = "{:.2f}–{:.2f}".format(*one["interval"])
            rows.append((one["of"], f"{state}: {one['what']}", f"{one['ratio']:.2f}", ends))
    return table(rows)
