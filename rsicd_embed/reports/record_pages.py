"""Pages of records: reports of evaluations and of rates, and the HTML file of several records."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, cast

from rsicd_embed.reports import ann_page, record, svg
from rsicd_embed.reports.evaluation_types import (
    ClassScores,
    DatasetChanges,
    EvaluationRecord,
    QueryPrecision,
)
from rsicd_embed.reports.page import Report, Section, page, table
from rsicd_embed.reports.record_types import (
    MODALITIES,
    AnnRecord,
    EmbedRecord,
    IngestRecord,
    RatesRecord,
    RateSummary,
    Ratio,
    RunRecord,
    ServeRecord,
)
from rsicd_embed.reports.suite_table import SEEN, suite_rows
from rsicd_embed.reports.svg import Bar, Mark

_MEANING = {
    "zeroshot": "Fraction of images whose class is among the k most similar prompts.",
    "retrieval": "Retrieval R@k: fraction of queries with a correct answer among the first k "
    "(not ANN recall@k, which measures an index).",
    "caption": "Agreement of generated captions with the captions of the images; CIDEr-D is at "
    "most 10, the others at most 1.",
    "probe": "Accuracy of a linear probe and of nearest neighbours on frozen features.",
    "queries": "Fraction of right images among the first k results of a query, averaged.",
}
_MEMORY: Mapping[Literal["loaded_bytes", "ingest_peak_bytes", "peak_bytes"], str] = {
    "loaded_bytes": "loaded",
    "ingest_peak_bytes": "ingest peak",
    "peak_bytes": "peak",
}
_SHARES: Mapping[Literal["of_model_alone", "of_slower_alone", "of_sum"], str] = {
    "of_model_alone": "of the model alone",
    "of_slower_alone": "of the slower half alone",
    "of_sum": "of both halves in sequence",
}
_RADII: Mapping[Literal["p50", "p90", "p99"], float] = {"p50": 5.0, "p90": 4.0, "p99": 3.0}


def html(runs: Sequence[RunRecord]) -> str:
    """One self-contained page of one or more records."""
    return page(runs, [report(run) for run in runs])


def save(path: Path, runs: Sequence[RunRecord]) -> Path:
    """Writes the page of one or more records atomically.

    Raises:
        StoreError: it cannot be written.
    """
    return record.write_text(path, html(runs))


def report(run: RunRecord) -> Report:
    """The report of a record of any task."""
    match run["task"]:
        case "ann":
            return ann_page.report(cast(AnnRecord, run))
        case "embed":
            return _embed(cast(EmbedRecord, run))
        case "ingest":
            return _ingest(cast(IngestRecord, run))
        case "serve":
            return _serve(cast(ServeRecord, run))
    if "candidates" in run:
        return _rates_only(cast(RatesRecord, run))
    return _evaluation(cast(EvaluationRecord, run))


def _embed(run: EmbedRecord) -> Report:
    tiles: list[tuple[str, str]] = []
    sections: list[Section] = []
    for unit in MODALITIES:
        if timed := run.get(unit):
            tiles.append(_fastest(timed["candidates"], unit))
            sections += [*_rates(timed["candidates"], unit), _ratios(timed["ratios"])]
    if peak := run.get("peak"):
        rate = f"{peak['gflop_per_s']:,.0f} GFLOP/s"
        tiles.append(("float32 peak of a matrix product", rate))
        rows = [("", "of the float32 peak", "95%")]
        for name, candidate in run["images"]["candidates"].items():
            if share := candidate.get("of_float32_peak"):
                low, high = share["interval"]
                rows.append((name, f"{share['ratio']:.0%}", f"{low:.0%}–{high:.0%}"))
        caption = f"{rate} by {peak['best']}; bfloat16 can exceed it."
        sections.append(Section("Fraction of the machine's peak", caption, table(rows)))
    return Report(f"Embedding with {run['settings']['model']}", tiles, sections)


def _ingest(run: IngestRecord) -> Report:
    sections = list(_rates(run["candidates"], "images"))
    for name, ingest in run["ingests"].items():
        bars = [
            Bar(stage, seconds, f"{seconds:.3g} s", colour=position % svg.SERIES)
            for position, (stage, seconds) in enumerate(ingest["stages_s"].items())
        ]
        shares = (f"{ingest[share]['ratio']:.0%} {words}" for share, words in _SHARES.items())
        caption = f"Busy seconds per stage. The rate is {', '.join(shares)}."
        if ingest.get("limited_by"):
            caption += f" Limited by: {ingest['limited_by']}."
        sections.append(Section(f"Stages: {name}", caption, svg.bars(bars, f"stages of {name}")))
    if run["memory"]:
        rows = [("images", *(f"{words}, MB" for words in _MEMORY.values()), "seconds")]
        for usage in run["memory"]:
            sizes = (f"{usage[name] / 1e6:,.0f}" for name in _MEMORY)
            rows.append((f"{usage['images']:,}", *sizes, f"{usage['seconds']:.1f}"))
        caption = "Resident memory of a process that ingests this many images."
        sections.append(Section("Memory usage", caption, table(rows)))
    tiles = [("images", f"{run['images']:,}"), _fastest(run["candidates"], "images")]
    return Report(f"Ingesting with {run['settings']['model']}", tiles, sections)


def _serve(run: ServeRecord) -> Report:
    strips = [
        (
            server,
            position,
            [
                Mark(latency[at], radius, f"{server}: {at} {latency[at]} ms")
                for at, radius in _RADII.items()
            ],
        )
        for position, (server, latency) in enumerate(run["latency_ms"].items())
    ]
    x = svg.log_axis("ms", [mark.x for _, _, marks in strips for mark in marks])
    rows = [("", "CPU time per search, ms", "first response, s")]
    for server, cpu_ms in run["cpu_ms_per_search"].items():
        rows.append((server, f"{cpu_ms:g}", f"{run['start_s'][server]:g}"))
    latency_plot = svg.strips(strips, x, "latency")
    sections = [
        *_rates(run["candidates"], "searches"),
        Section("Latency", "One client: p50, p90 and p99.", latency_plot),
        Section("Cost", "CPU time with many clients, and start-up time.", table(rows)),
    ]
    tiles = [_fastest(run["candidates"], "searches")]
    return Report(f"Serving {run['settings']['rows']:,} rows", tiles, sections)


def _rates_only(run: RatesRecord) -> Report:
    unit = next(iter(run["candidates"].values()))["unit"]
    sections = list(_rates(run["candidates"], unit))
    if ratios := run.get("ratios"):
        sections.append(_ratios(ratios))
    return Report(run["task"].capitalize(), [_fastest(run["candidates"], unit)], sections)


def _fastest(candidates: Mapping[str, RateSummary], unit: str) -> tuple[str, str]:
    name, rate = max(candidates.items(), key=lambda item: item[1]["per_s"])
    return f"highest {unit} per second: {name}", _number(rate["per_s"])


def _rates(candidates: Mapping[str, RateSummary], unit: str) -> Iterator[Section]:
    bars, strips = [], []
    for position, (name, rate) in enumerate(candidates.items()):
        low, high = rate["per_s_interval"]
        colour = position % svg.SERIES
        bars.append(Bar(name, rate["per_s"], _number(rate["per_s"]), low, high, colour))
        rates = [rate["units_per_call"] * 1e9 / ns for ns in rate["samples_ns"]]
        marks = [Mark(per_s, 4.0, f"{name}: {_number(per_s)} {unit}/s") for per_s in rates]
        strips.append((name, colour, marks))
    caption = "Medians over the rounds; the lines are 95% intervals."
    yield Section(f"{unit.capitalize()} per second", caption, svg.bars(bars, f"{unit} per second"))
    x = svg.log_axis(f"{unit} per second", [mark.x for _, _, marks in strips for mark in marks])
    caption = "Every round runs all candidates, in a new random order."
    yield Section(f"Rounds: {unit}", caption, svg.strips(strips, x, "rounds"))


def _ratios(ratios: Sequence[Ratio]) -> Section:
    rows = [("", "relative to", "ratio of rates", "95%")]
    for ratio in ratios:
        ends = "{:.3f}–{:.3f}".format(*ratio["interval"])
        rows.append((ratio["of"], ratio["to"], f"{ratio['ratio']:.3f}", ends))
    details = f"<details><summary>All pairs</summary>{table(rows)}</details>"
    return Section("Ratios", "Medians of the ratios of rates, round by round.", details)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _evaluation(run: EvaluationRecord) -> Report:
    title = f"{run['task'].capitalize()}: {run.get('model', 'predictions')}"
    if "results" in run:
        title = f"Suite: {', '.join(model['model'] for model in run['models'])}"
    if "dataset" in run:
        title += f" on {run['dataset']} {run['split']}"
    if "baseline" in run:
        title += f" compared with {run['baseline']}"
    metrics = run.get("metrics", {})
    tiles = [(name, _metric(name, value)) for name, value in list(metrics.items())[:4]]
    if "n" in run:
        tiles.insert(0, ("images", f"{run['n']:,}"))
    sections = []
    if metrics:
        sections.append(_metrics(run, metrics))
    if classes := run.get("per_class"):
        sections.append(_classes(classes))
    if queries := run.get("per_query"):
        sections.append(_queries(queries))
    sections += [_changes(changes) for changes in run.get("datasets", ())]
    sections += [
        Section(name, SEEN, table(rows)) for name, rows in suite_rows(run.get("results", ()))
    ]
    if notes := run.get("notes"):
        rows = [("",), *((note,) for note in notes)]
        sections.append(Section("Notes", "Caveats of these metrics.", table(rows)))
    return Report(title, tiles, sections)


def _metrics(run: EvaluationRecord, metrics: Mapping[str, float]) -> Section:
    intervals = run.get("intervals", {})
    columns = {"argsort": run.get("argsort"), "ceiling": run.get("ceiling")}
    more = {name: values for name, values in columns.items() if values}
    bars: list[Bar] = []
    rows = [("", run["split"], "95%", *more)]
    for name, value in metrics.items():
        ends = intervals.get(name)
        if not _is_rank(name):
            low, high = ends or (None, None)
            colour = len(bars) // 3 % svg.SERIES
            bars.append(Bar(name, value, f"{value:.3f}", low, high, colour))
        interval = "–".join(_metric(name, end) for end in ends) if ends else ""
        others = (_metric(name, v[name]) if name in v else "" for v in more.values())
        rows.append((name, _metric(name, value), interval, *others))
    caption = f"{_MEANING.get(run['task'], '')} Lines are 95% bootstrap intervals."
    return Section("Metrics", caption, svg.bars(bars, "metrics") + table(rows))


def _classes(classes: Sequence[ClassScores]) -> Section:
    bars = []
    for scores in classes:
        if scores["n"]:
            top1, mistaken_for = scores.get("top1") or 0.0, scores.get("most_mistaken_for")
            text = f"{top1:.2f}{f', {mistaken_for}' if mistaken_for else ''}"
            bars.append(Bar(f"{scores['class']} ({scores['n']})", top1, text))
    bars.sort(key=lambda bar: bar.value)
    caption = (
        "Top-1 accuracy per class (number of images), lowest first, with the class that it is most "
        "often mistaken for."
    )
    return Section("Classes", caption, svg.bars(bars, "classes"))


def _queries(queries: Sequence[QueryPrecision]) -> Section:
    ranked = sorted(queries, key=lambda scores: scores["precision"])
    bars = [Bar(q["query"], q["precision"], f"{q['precision']:.2f}") for q in ranked]
    caption = "Precision per query, lowest first."
    return Section("Queries", caption, svg.bars(bars, "queries"))


def _changes(changes: DatasetChanges) -> Section:
    rows = [("", "baseline", "model", "difference", "95%")]
    for metric, change in changes["metrics"].items():
        ends = "–".join(f"{end:+.3f}" for end in change["interval"])
        values = (f"{change['baseline']:.3f}", f"{change['model']:.3f}")
        rows.append((metric, *values, f"{change['difference']:+.3f}", ends))
    title = f"{changes['dataset']} {changes['split']}, {changes['n']:,} images"
    return Section(title, "Gains and losses of the model relative to the baseline.", table(rows))


def _is_rank(name: str) -> bool:
    return "median" in name


def _metric(name: str, value: float) -> str:
    return f"{value:g}" if _is_rank(name) else f"{value:.3f}"
