"""Ingest of files of rows: which of the sources are such files, and what becomes of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rsicd_embed.indexing import Summary
    from rsicd_embed.rowfile import RowFile


def row_files(sources: Sequence[Path]) -> list[RowFile]:
    """The sources, if they are Parquet files that hold vectors; none, if they hold images.

    Raises:
        UsageError: some are such files, and some are not.
    """
    from rsicd_embed.rowfile import RowFile

    opened = [(source, RowFile.open(source)) for source in sources]
    files = [file for _, file in opened if file]
    others = [source for source, file in opened if not file]
    if files and others:
        raise click.UsageError(
            f"{files[0].path} holds vectors, {others[0]} does not: ingest one after the other"
        )
    return files


def import_rows(
    files: Sequence[RowFile], store_uri: str, model: str | None, split: str | None, *, strict: bool
) -> tuple[Summary, int]:
    """Imports files that fit each other, the model if it is named, and the store.

    Returns the summary, and the number of rows that the store has then.
    """
    from rsicd_embed.cli.progress import image_progress
    from rsicd_embed.indexing import import_rows

    if model:
        from rsicd_embed.embedder.base import provenance
        from rsicd_embed.embedder.loading import load_for_a_query

        import_rows.require_fit(files[0], provenance(load_for_a_query(model)), f"--model {model}")
    with image_progress("check", sum(file.rows for file in files), "rows") as advance:
        checked = import_rows.check_rows(files, split, advance)
    with import_rows.open_store_for(files[0], store_uri) as store:
        with image_progress("ingest", sum(map(len, checked)), "rows") as advance:
            summary = import_rows.import_rows(checked, store, strict=strict, progress=advance)
        return summary, len(store)
