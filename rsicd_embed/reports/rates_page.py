"""What pages say of `bench embed`, `bench ingest` and `bench serve`: how much a second."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rsicd_embed.reports import svg
from rsicd_embed.reports.page import Report, Section, table
from rsicd_embed.reports.svg import Bar, Mark

_MEMORY = {"loaded_bytes": "loaded", "ingest_peak_bytes": "ingest peak", "peak_bytes": "peak"}


def embed(run: Mapping[str, Any]) -> Report:
    """From a record of `bench embed`."""
    tiles: list[tuple[str, str]] = []
    sections: list[Section] = []
    for what in ("images", "texts"):
        if what in run:
            candidates = run[what]["candidates"]
            tiles.append(_fastest(candidates, what))
            sections += _rates(candidates, what)
            sections.append(_to_others(run[what]))
    if run.get("peak"):
        tiles.append(("float32 peak of a matrix product", _flops(run["peak"]["gflop_per_s"])))
        sections.append(_peaks(run))
    return Report(f"Embedding with {run['settings']['model']}", tiles, sections)


def ingest(run: Mapping[str, Any]) -> Report:
    """From a record of `bench ingest`."""
    sections = list(_rates(run["candidates"], "images"))
    for name, one in run["ingests"].items():
        bars = [
            Bar(stage, seconds, f"{seconds:.3g} s", colour=at % svg.SERIES)
            for at, (stage, seconds) in enumerate(one["stages_s"].items())
        ]
        parts = (
            ("of_model_alone", "of the model alone"),
            ("of_slower_alone", "of the slower half alone"),
            ("of_sum", "of both halves in turn"),
        )
        told = ", ".join(f"{one[part]['ratio']:.0%} {words}" for part, words in parts)
        words = f"Busy seconds of each stage. The rate is {told}."
        if one.get("limited_by"):
            words += f" Limited by: {one['limited_by']}."
        sections.append(Section(f"Stages: {name}", words, svg.bars(bars, f"stages of {name}")))
    if run["memory"]:
        rows = [("images", *(f"{words}, MB" for words in _MEMORY.values()), "seconds")]
        for one in run["memory"]:
            sizes = (f"{one[name] / 1e6:,.0f}" for name in _MEMORY)
            rows.append((f"{one['images']:,}", *sizes, f"{one['seconds']:.1f}"))
        words = "Resident memory of a process that ingests so many images."
        sections.append(Section("Memory", words, table(rows)))
    tiles = [("images", f"{run['images']:,}"), _fastest(run["candidates"], "images")]
    return Report(f"Ingesting with {run['settings']['model']}", tiles, sections)


def serve(run: Mapping[str, Any]) -> Report:
    """From a record of `bench serve`."""
    sections = list(_rates(run["candidates"], "searches"))
    strips = [
        (
            how,
            at,
            [
                Mark(one[name], radius, f"{how}: {name} {one[name]} ms")
                for name, radius in (("p50", 5.0), ("p90", 4.0), ("p99", 3.0))
            ],
        )
        for at, (how, one) in enumerate(run["latency_ms"].items())
    ]
    x = svg.log_axis("ms", [mark.x for _, _, marks in strips for mark in marks])
    sections.append(
        Section("Latency", "One client: p50, p90 and p99.", svg.strips(strips, x, "latency"))
    )
    rows = [("", "processor, ms a search", "first answer, s")]
    for how, taken in run["cpu_ms_per_search"].items():
        rows.append((how, f"{taken:g}", f"{run['start_s'][how]:g}"))
    sections.append(Section("Cost", "With many clients; and from the start.", table(rows)))
    tiles = [_fastest(run["candidates"], "searches")]
    return Report(f"Serving {run['settings']['rows']:,} rows", tiles, sections)


def others(run: Mapping[str, Any]) -> Report:
    """From a record of candidates and their rates, whatever they are."""
    what = next(iter(run["candidates"].values()))["unit"]
    sections = list(_rates(run["candidates"], what))
    if run.get("ratios"):
        sections.append(_to_others(run))
    return Report(run["task"].capitalize(), [_fastest(run["candidates"], what)], sections)


def _fastest(candidates: Mapping[str, Any], what: str) -> tuple[str, str]:
    name, one = max(candidates.items(), key=lambda item: float(item[1]["per_s"]))
    return f"{what} a second, the most: {name}", _number(one["per_s"])


def _rates(candidates: Mapping[str, Any], what: str) -> Iterator[Section]:
    bars, strips = [], []
    for at, (name, one) in enumerate(candidates.items()):
        low, high = one["per_s_interval"]
        colour = at % svg.SERIES
        bars.append(Bar(name, one["per_s"], _number(one["per_s"]), low, high, colour))
        rates = [one["units_per_call"] * 1e9 / ns for ns in one["samples_ns"]]
        marks = [Mark(rate, 4.0, f"{name}: {_number(rate)} {what} a second") for rate in rates]
        strips.append((name, colour, marks))
    words = "Medians over the rounds; the lines are 95% intervals."
    yield Section(f"{what.capitalize()} a second", words, svg.bars(bars, f"{what} a second"))
    x = svg.log_axis(f"{what} a second", [mark.x for _, _, marks in strips for mark in marks])
    words = "Every round runs all of them, in an order drawn anew."
    yield Section(f"Each round: {what}", words, svg.strips(strips, x, "rounds"))


def _to_others(told: Mapping[str, Any]) -> Section:
    rows = [("", "beside", "times its rate", "95%")]
    for one in told["ratios"]:
        ends = "{:.3f}–{:.3f}".format(*one["interval"])
        rows.append((one["of"], one["to"], f"{one['ratio']:.3f}", ends))
    words = "Medians of ratios of rates, round by round."
    html = f"<details><summary>All pairs</summary>{table(rows)}</details>"
    return Section("Ratios", words, html)


def _peaks(run: Mapping[str, Any]) -> Section:
    rows = [("", "of the float32 peak", "95%")]
    for name, one in run["images"]["candidates"].items():
        part = one.get("of_float32_peak")
        if part:
            low, high = part["interval"]
            rows.append((name, f"{part['ratio']:.0%}", f"{low:.0%}–{high:.0%}"))
    words = (
        f"{_flops(run['peak']['gflop_per_s'])} by {run['peak']['best']}; bfloat16 can be above it."
    )
    return Section("Part of what the machine can do", words, table(rows))


def _flops(giga: float) -> str:
    return f"{giga:,.0f} GFLOP/s"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
