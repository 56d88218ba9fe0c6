"""`rsicd-embed bench compare`, `recommend` and `report`: commands on records of earlier runs."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from rsicd_embed.cli.base import json_option, note, print_json, show
from rsicd_embed.cli.number_range import NumberRange

if TYPE_CHECKING:
    from rsicd_embed.bench.compare import FigureChange
    from rsicd_embed.bench.recommend import StoreChoice
    from rsicd_embed.reports.record_types import AnnRecord

_PAGE = "report.html"
_MS = {"us": 1e-3, "µs": 1e-3, "ms": 1.0, "s": 1e3}
_DECIMAL = {f"{prefix}B": 1e3**power for power, prefix in enumerate("kMGT", 1)}
_BINARY = {f"{prefix}iB": 1024.0**power for power, prefix in enumerate("KMGT", 1)}

_record_path = click.Path(dir_okay=False, path_type=Path)


@click.command()
@click.argument("before", type=_record_path)
@click.argument("after", type=_record_path)
@click.option(
    "--threshold",
    default=1.1,
    show_default=True,
    type=NumberRange(1),
    help="Factor that counts as a regression: growth in time or memory usage, or fall in a rate, "
    "if beyond the scatter of the rounds.",
)
@click.option(
    "--drop",
    default=0.01,
    show_default=True,
    type=NumberRange(0, 1),
    help="Drop in ANN recall or accuracy that counts as a regression.",
)
@json_option
def compare(before: Path, after: Path, threshold: float, drop: float, as_json: bool) -> None:
    """Compare two runs of one benchmark with the same settings; status 1 if AFTER is worse.

    The intervals of ratios come from the rounds of both runs. They do not cover other differences
    between the runs: run both on the same, otherwise idle machine.
    """
    from rsicd_embed.bench.compare import RegressionLimits, machine_differences, missing
    from rsicd_embed.bench.compare import compare as compare_records
    from rsicd_embed.errors import BenchError
    from rsicd_embed.reports.record import read_complete

    old, new = read_complete(before), read_complete(after)
    changes = compare_records(old, new, RegressionLimits(threshold, drop))
    differences, absent = machine_differences(old, new), missing(old, new)
    worse = [change for change in changes if change.is_worse]
    for difference in differences:
        note(f"machines or versions differ: {difference}")
    if absent:
        note(f"{len(absent)} metrics are only in {before}, such as {absent[0]}")
    if as_json:
        print_json(
            {
                "task": old["task"],
                "commands": [old["command"], new["command"]],
                "threshold": threshold,
                "drop": drop,
                "machines_differ": differences,
                "missing": absent,
                "worse": [change.name for change in worse],
                "figures": [asdict(change) for change in changes],
            }
        )
    else:
        for line in _change_lines(changes):
            show(line)
    if worse:
        names = "; ".join(
            f"{change.name} {change.before:.4g} → {change.after:.4g} {change.unit}".rstrip()
            for change in worse
        )
        raise BenchError(f"{len(worse)} of {len(changes)} metrics got worse: {names}")


def _change_lines(changes: list[FigureChange]) -> list[str]:
    from rsicd_embed.reports.record import table

    rows = [("", "before", "after", "unit", "ratio", "95%", "")]
    for change in changes:
        interval = "{:.3f}–{:.3f}".format(*change.interval) if change.interval else ""
        ratio = f"{change.ratio:.3f}" if change.ratio is not None else ""
        mark = "worse" if change.is_worse else ""
        values = (f"{change.before:.5g}", f"{change.after:.5g}", change.unit)
        rows.append((change.name, *values, ratio, interval, mark))
    return table(rows)


class Quantity(click.ParamType[float]):
    """A number with a unit, such as `10ms`."""

    def __init__(self, name: str, units: dict[str, float]) -> None:
        self.name, self._units = name, units

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Converts to the unit whose factor is 1."""
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(\D+)", str(value))
        if not match or match[2] not in self._units or not float(match[1]):
            units = ", ".join(self._units)
            self.fail(f"expected a number with a unit ({units}), found {value!r}", param, ctx)
        return float(match[1]) * self._units[match[2]]


@click.command()
@click.argument("records", nargs=-1, required=True, type=_record_path)
@click.option(
    "--recall",
    "ann_recall",
    required=True,
    type=NumberRange(0, 1),
    help="Minimum ANN recall@k: the fraction of the k nearest rows that a search returns.",
)
@click.option(
    "--p95", type=Quantity("time", _MS), help="Maximum p95 latency of a search, such as 10ms."
)
@click.option(
    "--qps",
    type=NumberRange(0, min_open=True),
    help="Minimum queries per second, in batches.",
)
@click.option(
    "--memory",
    type=Quantity("memory", _DECIMAL | _BINARY),
    help="Maximum memory usage of a process that searches, such as 2GB.",
)
@click.option("--k", type=click.IntRange(1), help="Rows per query.  [default: the record's first]")
@click.option("--path", default="./index", show_default=True, help="Path in the printed URI.")
@json_option
def recommend(
    records: tuple[Path, ...],
    ann_recall: float,
    p95: float | None,
    qps: float | None,
    memory: float | None,
    k: int | None,
    path: str,
    as_json: bool,
) -> None:
    """Recommend a store and its settings from runs of `bench ann`; status 1 if none fits.

    Among the stores and settings that meet the goal, the one with the lowest p95 latency is chosen.
    The measurements hold for similar vectors on a similar machine.
    """
    from rsicd_embed.bench.recommend import Goal
    from rsicd_embed.bench.recommend import recommend as recommend_store
    from rsicd_embed.errors import BenchError
    from rsicd_embed.reports.record import read_complete

    runs = [cast("AnnRecord", read_complete(record)) for record in records]
    advice = recommend_store(runs, Goal(ann_recall, p95, qps, memory, k), path)
    subjects = list(dict.fromkeys(_subject(run) for run in runs))
    if len(subjects) > 1:
        note(f"the runs differ in vectors or machine: {'; '.join(subjects)}")
    if as_json:
        print_json(
            {
                "uri": advice.best.uri if advice.best else None,
                "best": asdict(advice.best) if advice.best else None,
                "others": [asdict(choice) for choice in advice.others],
                "nearest_misses": [asdict(choice) for choice in advice.misses],
                "measured": subjects,
            }
        )
    elif advice.best:
        show(advice.best.uri)
        for reason in (*advice.best.reasons, *_costs(advice.best)):
            show(f"  {reason}")
        for choice in advice.others:
            show(f"also: {choice.uri} ({'; '.join(choice.reasons)}; {_p95(choice)})")
        show(f"measured with {'; '.join(subjects)}")
    else:
        for choice in advice.misses:
            show(f"near: {choice.uri} ({'; '.join(choice.reasons)}; {_p95(choice)})")
    if not advice.best:
        nearest = advice.misses[0]
        factors = ", ".join(f"{name} by a factor of {by:.3g}" for name, by in nearest.lacks.items())
        raise BenchError(f"no measured store meets the goal: {nearest.uri} misses {factors}")


def _subject(run: AnnRecord) -> str:
    vectors, machine = run["vectors"], run["machine"]
    return (
        f"{vectors['rows']:,} vectors of length {vectors['dim']} ({vectors['source']}) on "
        f"{machine['cpu']}, {machine['cores']} cores"
    )


def _p95(choice: StoreChoice) -> str:
    return f"p95 {choice.point['p95_ns'] / 1e6:.3g} ms"


def _costs(choice: StoreChoice) -> list[str]:
    """Measurements that are not part of the goal."""
    point = choice.point
    costs = [f"p50 {point['p50_ns'] / 1e6:.3g} ms, {_p95(choice)}"]
    if point["build_s"]:
        costs.append(f"built in {point['build_s']:.3g} s")
    if point["disk_bytes"]:
        costs.append(f"{point['disk_bytes'] / 1e6:,.0f} MB on disk")
    if point["peak_bytes"]:
        costs.append(f"{point['peak_bytes'] / 1e6:,.0f} MB of memory while searching")
    return costs


@click.command()
@click.argument("records", nargs=-1, required=True, type=_record_path)
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help=f"Folder of the page, {_PAGE}.",
)
def report(records: tuple[Path, ...], output: Path) -> None:
    """Create one HTML page from several records of `bench` and `eval`.

    The page is a single file that works offline, without scripts. Every run already writes its own
    page next to its record.
    """
    from rsicd_embed.reports import record_pages
    from rsicd_embed.reports.record import read

    runs = [read(record) for record in records]
    show(f"report: {record_pages.save(output / _PAGE, runs)}")
