"""Printed summaries of an ingest or an import."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rsicd_embed.cli.base import note, print_json, report_skipped, report_source, show, warn
from rsicd_embed.cli.terminal_text import counted

if TYPE_CHECKING:
    from rsicd_embed.indexing import Summary


def report_summary(
    summary: Summary, rows: int, store_uri: str, unit: str, *, as_json: bool, profile: bool
) -> None:
    """Prints a summary on stdout, and notes and problems on stderr.

    Args:
        summary: the result of an ingest or an import.
        rows: number of rows that the store now has.
        store_uri: the store.
        unit: "images" for an ingest, "rows" for an import.
        as_json: print the summary as JSON instead of text.
        profile: also print the time of each stage.
    """
    if unit == "rows":
        counts, done = f"{summary.imported} imported", summary.imported
    else:
        counts, done = f"{summary.embedded} embedded, {summary.updated} updated", summary.embedded
    if as_json:
        print_json(summary.as_json())
    else:
        rate = done / summary.seconds if summary.seconds else 0.0
        engine = f", {summary.engine}" if summary.engine and done else ""
        show(
            f"{counts}, {summary.unchanged} unchanged, {summary.removed} removed, "
            f"{len(summary.skipped)} skipped in {summary.seconds:.1f} s "
            f"({rate:.1f} {unit}/s{engine}); {counted(rows, 'row')} in {store_uri}"
        )
    if summary.stretched:
        from rsicd_embed.images import STRETCH_RULE

        warn(
            f"images scaled to 8 bits: {summary.stretched}; {STRETCH_RULE}. Use "
            "--stretch for one range per scene, or --stretch LOW:HIGH for one range of all"
        )
    if summary.blank:
        note(f"tiles left out because of nodata: {summary.blank:,}; see --max-nodata")
    if profile:
        _print_profile(summary, done, unit)
    if summary.displaced:
        first = summary.displaced[0]
        warn(
            f"{counted(len(summary.displaced), 'image')} replaced the rows of others with the same "
            f"ids: {first.by} that of {first.uri}; ingest their common folder to keep both"
        )
    report_skipped(summary.skipped)
    report_source(summary.unread, summary.notes)


def _print_profile(summary: Summary, done: int, unit: str) -> None:
    from rsicd_embed.indexing.stages import elapsed_s

    for name, seconds in summary.stages.items():
        note(f"{name:<7} {seconds:8.2f} s busy")
    stages_s = elapsed_s(summary.stages)
    slowest = max(stages_s, key=lambda name: stages_s[name])
    rate = done / stages_s[slowest] if stages_s[slowest] else 0.0
    share = stages_s[slowest] / summary.seconds if summary.seconds else 0.0
    note(
        f"limited by {slowest}: {stages_s[slowest]:.2f} s of {summary.seconds:.2f} s "
        f"({share:.0%}), {rate:.1f} {unit}/s alone"
    )
