"""The record of a benchmark or an evaluation: saved, with its page, and shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rsicd_embed.cli.base import print_json, show


def save_and_show(
    run: Mapping[str, Any],
    output: Path | None,
    name: str,
    lines: Callable[[Any], list[str]],
    *,
    as_json: bool,
) -> Path | None:
    """Saves a record and its page of plots, and prints its results on stdout.

    Args:
        run: the record.
        output: folder of the record; None saves nothing.
        name: what the record's file is named after.
        lines: from the record to its results in words.
        as_json: print the record as JSON instead.

    Returns:
        The record's file, None if none was saved.
    """
    saved: dict[str, Path] = {}
    if output is not None:
        from rsicd_embed.reports import record, write

        saved["record"] = record.save(output, name, run)
        saved["report"] = write.beside(saved["record"], run)
    if as_json:
        print_json(run)
    else:
        for line in [*lines(run), *(f"{kind}: {path}" for kind, path in saved.items())]:
            show(line)
    return saved.get("record")
