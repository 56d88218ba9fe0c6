"""`rsicd-embed bench compare`: two records of one benchmark, figure by figure."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rsicd_embed.cli.base import json_option, note, print_json, show

if TYPE_CHECKING:
    from rsicd_embed.bench.compare import FigureChange

record_argument = click.Path(dir_okay=False, path_type=Path)


@click.command()
@click.argument("before", type=record_argument)
@click.argument("after", type=record_argument)
@click.option(
    "--threshold",
    default=1.1,
    show_default=True,
    type=click.FloatRange(1),
    help="Worse is more than so many times the time or memory, or less than one part in so many of "
    "the rate; and more than the rounds scatter by.",
)
@click.option(
    "--drop",
    default=0.01,
    show_default=True,
    type=click.FloatRange(0, 1),
    help="Worse is, of an ANN recall or an accuracy, so much less.",
)
@json_option
def compare(before: Path, after: Path, threshold: float, drop: float, as_json: bool) -> None:
    """Compare two runs of one benchmark with the same settings; status 1 where AFTER is worse.

    Intervals of ratios come from the rounds of both runs. They know nothing of what else was
    different between the two: run both on one machine that has nothing else to do.
    """
    from rsicd_embed.bench.compare import RegressionLimits, unlike_machines
    from rsicd_embed.bench.compare import compare as compared
    from rsicd_embed.errors import BenchError
    from rsicd_embed.reports.record import read_complete

    one, other = read_complete(before), read_complete(after)
    changes = compared(one, other, RegressionLimits(threshold, drop))
    unlike = unlike_machines(one, other)
    worse = [change for change in changes if change.is_worse]
    for what in unlike:
        note(f"the machines or versions differ: {what}")
    if as_json:
        print_json(_document(one, other, changes, unlike, {"threshold": threshold, "drop": drop}))
    else:
        for line in _lines(changes):
            show(line)
    if worse:
        told = "; ".join(f"{change.name} {_times(change)}" for change in worse)
        raise BenchError(f"{len(worse)} of {len(changes)} figures got worse: {told}")


def _document(
    before: dict[str, Any],
    after: dict[str, Any],
    changes: list[FigureChange],
    unlike: list[str],
    limits: dict[str, float],
) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "task": before["task"],
        "commands": [before["command"], after["command"]],
        **limits,
        "machines_differ": unlike,
        "worse": [change.name for change in changes if change.is_worse],
        "figures": [asdict(change) for change in changes],
    }


def _lines(changes: list[FigureChange]) -> list[str]:
    from rsicd_embed.reports.record import table

    rows = [("", "before", "after", "unit", "ratio", "95%", "")]
    for change in changes:
        interval = "{:.3f}–{:.3f}".format(*change.interval) if change.interval else ""
        ratio = f"{change.ratio:.3f}" if change.ratio is not None else ""
        mark = "worse" if change.is_worse else ""
        figures = (f"{change.before:.5g}", f"{change.after:.5g}", change.unit)
        rows.append((change.name, *figures, ratio, interval, mark))
    return table(rows)


def _times(change: FigureChange) -> str:
    return f"{change.before:.4g} → {change.after:.4g} {change.unit}".rstrip()
