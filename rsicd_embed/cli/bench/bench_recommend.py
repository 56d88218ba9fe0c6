"""`rsicd-embed bench recommend`: a store and its settings, from what was measured."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rsicd_embed.cli.base import json_option, note, print_json, show
from rsicd_embed.cli.bench.bench_compare import record_argument

if TYPE_CHECKING:
    from rsicd_embed.bench.recommend import StoreChoice

_MS = {"us": 1e-3, "µs": 1e-3, "ms": 1.0, "s": 1e3}
_BYTES = {
    "kB": 1e3,
    "MB": 1e6,
    "GB": 1e9,
    "TB": 1e12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}


class Quantity(click.ParamType[float]):
    """A number with a unit: `10ms`."""

    def __init__(self, name: str, units: dict[str, float]) -> None:
        self.name, self._units = name, units

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """In the unit that has 1."""
        found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(\D+)", str(value))
        if not found or found[2] not in self._units or not float(found[1]):
            known = ", ".join(self._units)
            self.fail(f"expected a number with a unit ({known}), found {value!r}", param, ctx)
        return float(found[1]) * self._units[found[2]]


@click.command()
@click.argument("records", nargs=-1, required=True, type=record_argument)
@click.option(
    "--recall",
    "ann_recall",
    required=True,
    type=click.FloatRange(0, 1),
    help="Least ANN recall@k: the part of the k best rows that are found.",
)
@click.option("--p95", type=Quantity("time", _MS), help="Longest p95 of a search, such as 10ms.")
@click.option(
    "--qps",
    type=click.FloatRange(0, min_open=True),
    help="Least rate of searches for many queries at once, a second.",
)
@click.option(
    "--memory",
    type=Quantity("memory", _BYTES),
    help="Most memory of a process that searches, such as 2GB.",
)
@click.option("--k", type=click.IntRange(1), help="Rows a query.  [default: the record's first]")
@click.option("--path", default="./index", show_default=True, help="In the URI that is printed.")
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
    """Pick a store and its settings from runs of `bench ann`; status 1 where none fits.

    Of the stores and settings that do what is wanted it is the one with the least p95. What was
    measured holds for vectors like those of the run, on a machine like that.
    """
    from rsicd_embed.bench.recommend import Goal
    from rsicd_embed.bench.recommend import recommend as advice_of
    from rsicd_embed.errors import BenchError
    from rsicd_embed.reports.record import read_complete

    runs = [read_complete(one) for one in records]
    advice = advice_of(runs, Goal(ann_recall, p95, qps, memory, k), path)
    where = list(dict.fromkeys(_where(run) for run in runs))
    if len(where) > 1:
        note(f"the runs are not of the same vectors on the same machine: {'; '.join(where)}")
    if as_json:
        print_json(
            {
                "uri": advice.best.uri if advice.best else None,
                "best": _document(advice.best) if advice.best else None,
                "others": [_document(one) for one in advice.others],
                "nearest_misses": [_document(one) for one in advice.misses],
                "measured": where,
            }
        )
    elif advice.best:
        show(advice.best.uri)
        for reason in (*advice.best.reasons, *_costs(advice.best)):
            show(f"  {reason}")
        for one in advice.others:
            show(f"also: {one.uri} ({'; '.join(one.reasons)}; {_p95(one)})")
        show(f"measured with {'; '.join(where)}")
    else:
        for one in advice.misses:
            show(f"near: {one.uri} ({'; '.join(one.reasons)}; {_p95(one)})")
    if not advice.best:
        nearest = advice.misses[0]
        short = ", ".join(f"{name} by a factor of {by:.3g}" for name, by in nearest.lacks.items())
        raise BenchError(f"no store that was measured fits: {nearest.uri} misses {short}")


def _where(run: dict[str, Any]) -> str:
    vectors, machine = run["vectors"], run["machine"]
    return (
        f"{vectors['rows']:,} vectors of length {vectors['dim']} ({vectors['source']}) on "
        f"{machine['cpu']}, {machine['cores']} cores"
    )


def _p95(choice: StoreChoice) -> str:
    return f"p95 {choice.point['p95_ns'] / 1e6:.3g} ms"


def _costs(choice: StoreChoice) -> list[str]:
    """What was not asked for, and is good to know."""
    point = choice.point
    told = [f"p50 {point['p50_ns'] / 1e6:.3g} ms, {_p95(choice)}"]
    if point["build_s"]:
        told.append(f"built in {point['build_s']:.3g} s")
    if point["disk_bytes"]:
        told.append(f"{point['disk_bytes'] / 1e6:,.0f} MB on disk")
    if point["peak_bytes"]:
        told.append(f"{point['peak_bytes'] / 1e6:,.0f} MB of memory while it searches")
    return told


def _document(choice: StoreChoice) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(choice)
