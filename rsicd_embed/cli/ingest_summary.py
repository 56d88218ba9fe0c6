"""What `ingest` and `import` print when they are done."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from rsicd_embed.cli.base import note, print_json, report_source, show, tell_skipped

if TYPE_CHECKING:
    from rsicd_embed.indexing import Summary

profile_option = click.option(
    "--profile", is_flag=True, help="Print how long each stage took, and which one limits."
)


def report(
    summary: Summary, rows: int, store_uri: str, unit: str, *, as_json: bool, profile: bool
) -> None:
    """Prints a summary on stdout, and what needs attention on stderr.

    Args:
        summary: of an ingest or an import.
        rows: number of rows in the store afterwards.
        store_uri: the store.
        unit: "images" of an ingest, "rows" of an import.
        as_json: print the summary as JSON instead of in words.
        profile: also print how long each stage took.
    """
    if unit == "rows":
        counts, done = f"{summary.imported} imported", summary.imported
    else:
        counts, done = f"{summary.embedded} embedded, {summary.updated} updated", summary.embedded
    if as_json:
        print_json(summary.as_json())
    else:
        rate = done / summary.seconds if summary.seconds else 0.0
        show(
            f"{counts}, {summary.unchanged} unchanged, {summary.removed} removed, "
            f"{len(summary.skipped)} skipped in {summary.seconds:.1f} s "
            f"({rate:.1f} {unit}/s); {rows} rows in {store_uri}"
        )
    if summary.stretched:
        from rsicd_embed.images import STRETCH_RULE

        note(f"images scaled to 8 bits: {summary.stretched}; {STRETCH_RULE}")
    if profile:
        for line in _profile(summary, done, unit):
            note(line)
    if summary.displaced:
        first = summary.displaced[0]
        note(
            f"warning: {len(summary.displaced)} images took the rows of others that have the same "
            f"ids: {first.by} that of {first.uri}; ingest their common folder to have both"
        )
    tell_skipped(summary.skipped)
    report_source(summary.unread, summary.notes)


def _profile(summary: Summary, done: int, unit: str) -> list[str]:
    from rsicd_embed.indexing.writer import elapsed_s

    alone = elapsed_s(summary.stages)
    slowest = max(alone, key=lambda name: alone[name])
    lines = [f"{name:<7} {seconds:8.2f} s busy" for name, seconds in summary.stages.items()]
    rate = done / alone[slowest] if alone[slowest] else 0.0
    share = alone[slowest] / summary.seconds if summary.seconds else 0.0
    lines.append(
        f"limited by {slowest}: {alone[slowest]:.2f} s of {summary.seconds:.2f} s ({share:.0%}), "
        f"{rate:.1f} {unit}/s alone"
    )
    return lines
