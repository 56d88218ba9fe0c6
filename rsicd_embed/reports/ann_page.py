"""The report of `bench ann`: ANN recall, latency, throughput, and cost of building."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rsicd_embed.reports import svg
from rsicd_embed.reports.page import Report, Section, table
from rsicd_embed.reports.record_metrics import OPTIMIZED, ann_points, rates_by_clients
from rsicd_embed.reports.record_types import (
    BUILD_STEPS,
    PERCENTILES,
    AnnPoint,
    AnnRecord,
    SearchedContender,
    SearchState,
)
from rsicd_embed.reports.svg import Bar, Mark, Series

_GOOD = 0.99
_RADII = (5.0, 4.0, 3.0)  # radii of the marks of p50, p95 and p99
_LIBRARY = "library of "


def report(run: AnnRecord) -> Report:
    """The report of a record of `bench ann`."""
    vectors = run["vectors"]
    title = (
        f"Vector search: {vectors['rows']:,} vectors of length {vectors['dim']} "
        f"({vectors['source']})"
    )
    points = ann_points(run, run["settings"]["k"])
    return Report(title, list(_tiles(run, points)), list(_sections(run, points)))


def colour_of(run: AnnRecord, name: str) -> int:
    """The colour number of a contender; a library has the colour of its store."""
    names = list(run["settings"]["stores"])
    names += [other for other in _contenders(run) if other.removeprefix(_LIBRARY) not in names]
    return names.index(name.removeprefix(_LIBRARY)) % svg.SERIES


def _contenders(run: AnnRecord) -> list[str]:
    searched = [state["contenders"] for state in run["states"].values()]
    searched += [step["contenders"] for step in run.get("sweep", ())]
    return list(dict.fromkeys(name for contenders in searched for name in contenders))


def _optimized(run: AnnRecord) -> Mapping[str, SearchedContender]:
    return run["states"][OPTIMIZED]["contenders"] if OPTIMIZED in run["states"] else {}


def _tiles(run: AnnRecord, points: Sequence[AnnPoint]) -> Iterator[tuple[str, str]]:
    yield "queries", f"{run['queries']['count']:,}"
    k, stores = run["settings"]["k"], run["settings"]["stores"]
    good = [
        point
        for point in points
        if point["k"] == k and point["contender"] in stores and point["ann_recall"] >= _GOOD
    ]
    if good:
        best = min(good, key=lambda point: point["p50_ns"])
        name = f"fastest store with ANN recall@{k} of {_GOOD} or more: {_name(best)}"
        yield name, f"{best['p50_ns'] / 1e6:.2g} ms"
    rates = [(rate, point) for point in good for rate in point["qps"].values()]
    if rates:
        rate, best = max(rates, key=lambda pair: pair[0])
        yield f"highest batched queries per second: {_name(best)}", f"{rate:,.0f}"


def _name(point: AnnPoint) -> str:
    settings = (f"{name}={value}" for name, value in point["settings"].items())
    return ", ".join([point["contender"], *settings])


def _sections(run: AnnRecord, points: Sequence[AnnPoint]) -> Iterator[Section]:
    for k in dict.fromkeys(point["k"] for point in points):
        yield Section(
            f"ANN recall@{k} against latency",
            f"ANN recall@{k} is the fraction of the {k} nearest rows, computed exactly, that a "
            "search returns (not retrieval R@k, which is about captions). Up and to the left is "
            "better. Joined points are one index with different settings; rings are libraries "
            "without a store.",
            _curves(run, [point for point in points if point["k"] == k], k),
        )
    for state, results in run["states"].items():
        if searched := {n: c for n, c in results["contenders"].items() if "single" in c}:
            yield Section(f"Latency, {state}", _latency_caption(results), _latency(run, searched))
    yield from _throughput(run)
    yield from _builds(run)
    if any(state["ratios"] for state in run["states"].values()):
        caption = "Median ratio over the rounds; below 1, the store takes less time."
        yield Section("Stores relative to their libraries", caption, _ratios(run))


def _curves(run: AnnRecord, points: Sequence[AnnPoint], k: int) -> str:
    x = svg.log_axis("p50 of a single query, ms", [point["p50_ns"] / 1e6 for point in points])
    y = svg.share_axis(f"ANN recall@{k}", [point["ann_recall"] for point in points])
    series = []
    for name in dict.fromkeys(point["contender"] for point in points):
        own = [point for point in points if point["contender"] == name]
        swept = [_mark(point) for point in own if point["settings"]]
        default = [_mark(point) for point in own if not point["settings"]]
        colour, hollow = colour_of(run, name), name not in run["settings"]["stores"]
        if swept:
            series.append(Series(name, swept, colour, line=True, hollow=hollow))
        series.append(Series(name, default, colour, hollow=hollow))
    return svg.scatter(series, x, y, f"ANN recall@{k} and latency") + _points_table(points, k)


def _mark(point: AnnPoint) -> Mark:
    title = (
        f"{_name(point)}: ANN recall@{point['k']} {point['ann_recall']:.4f}, "
        f"p50 {point['p50_ns'] / 1e6:.3g} ms, p95 {point['p95_ns'] / 1e6:.3g} ms"
    )
    return Mark(point["p50_ns"] / 1e6, point["ann_recall"], title)


def _points_table(points: Sequence[AnnPoint], k: int) -> str:
    rows: list[tuple[str, ...]]
    rows = [("", f"ANN recall@{k}", "95%", "p50, ms", "p95, ms", "p99, ms", "queries/s")]
    ordered = sorted(points, key=lambda point: (point["contender"], point["p50_ns"]))
    for point in ordered:
        interval = point["ann_recall_interval"]
        ends = "{:.4f}–{:.4f}".format(*interval) if interval else ""
        times = (f"{point[at] / 1e6:.3f}" for at in PERCENTILES)
        rate = f"{max(point['qps'].values()):,.0f}" if point["qps"] else ""
        rows.append((_name(point), f"{point['ann_recall']:.4f}", ends, *times, rate))
    best = [number for number, point in enumerate(ordered, 1) if point["pareto"]]
    summary = "All points; those in bold are on the Pareto curve"
    return f"<details><summary>{summary}</summary>{table(rows, best)}</details>"


def _latency_caption(state: SearchState) -> str:
    where = f" under the filter {state['where']}" if state.get("where") else ""
    return (
        f"Single queries{where}, one after the other: p50, p95 and p99. The benchmark itself takes "
        f"{state['overhead']['null_ns']:.0f} ns per query."
    )


def _latency(run: AnnRecord, searched: Mapping[str, SearchedContender]) -> str:
    strips, rows = [], [("", "ANN recall", "p50, ms", "p95, ms", "p99, ms", "first, ms")]
    for name, contender in searched.items():
        single = contender["single"]
        p50, p95, p99 = (single[at] / 1e6 for at in PERCENTILES)
        marks = [
            Mark(ms, radius, f"{name}: {at.removesuffix('_ns')} {ms:.3g} ms")
            for at, ms, radius in zip(PERCENTILES, (p50, p95, p99), _RADII, strict=True)
        ]
        strips.append((name, colour_of(run, name), marks))
        first_ns = contender.get("first_search_ns")
        first = f"{first_ns / 1e6:.1f}" if first_ns is not None else ""
        times = (f"{p50:.3f}", f"{p95:.3f}", f"{p99:.3f}")
        rows.append((name, f"{contender['ann_recall']:.4f}", *times, first))
    x = svg.log_axis("ms", [mark.x for _, _, marks in strips for mark in marks])
    values = f"<details><summary>Values</summary>{table(rows)}</details>"
    return svg.strips(strips, x, "latency") + values


def _throughput(run: AnnRecord) -> Iterator[Section]:
    bars = []
    for name, contender in _optimized(run).items():
        for clients, rate in rates_by_clients(contender).items():
            label = name if clients == "1" else f"{name}, {clients} clients"
            low, high = rate["per_s_interval"]
            text = f"{rate['per_s']:,.0f}"
            bars.append(Bar(label, rate["per_s"], text, low, high, colour_of(run, name)))
    if bars:
        caption = "Batched queries; the lines are 95% intervals of the median over the rounds."
        yield Section("Queries per second", caption, svg.bars(bars, "queries per second"))


def _builds(run: AnnRecord) -> Iterator[Section]:
    seconds, disk, memory = [], [], []
    for name in [name for name in _contenders(run) if name in run["contenders"]]:
        built, colour = run["contenders"][name], colour_of(run, name)
        build_s = sum(step["s"] for at in BUILD_STEPS if (step := built.get(at)))
        seconds.append(Bar(name, build_s, f"{build_s:.3g} s", colour=colour))
        if size := built.get("disk_bytes"):
            disk.append(Bar(name, size, f"{size / 1e6:,.0f} MB", colour=colour))
    for name, contender in _optimized(run).items():
        if peak := contender.get("peak_bytes"):
            memory.append(Bar(name, peak, f"{peak / 1e6:,.0f} MB", colour=colour_of(run, name)))
    for title, caption, bars in (
        ("Build time", "Upserting and optimizing.", seconds),
        ("Disk usage", "After optimizing.", disk),
        ("Memory usage", "Peak resident memory while searching, mapped files included.", memory),
    ):
        if bars:
            yield Section(title, caption, svg.bars(bars, title))


def _ratios(run: AnnRecord) -> str:
    rows = [("", "", "ratio", "95%")]
    for state, results in run["states"].items():
        for ratio in results["ratios"]:
            ends = "{:.2f}–{:.2f}".format(*ratio["interval"])
            quantity = f"{state}: {ratio.get('what')}"
            rows.append((ratio["of"], quantity, f"{ratio['ratio']:.2f}", ends))
    return table(rows)
