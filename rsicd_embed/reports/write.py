"""Pages of records, as files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rsicd_embed.files import make_folder, storage_errors, sync_folder, write_file
from rsicd_embed.reports import ann_page, evaluation_page, rates_page
from rsicd_embed.reports.page import Report, page

_OF: Mapping[str, Callable[[Mapping[str, Any]], Report]] = {
    "ann": ann_page.report,
    "embed": rates_page.embed,
    "ingest": rates_page.ingest,
    "serve": rates_page.serve,
}


def html(runs: Sequence[Mapping[str, Any]]) -> str:
    """One page about some records, complete in itself."""
    return page(runs, [_report(run) for run in runs])


def beside(path: Path, run: Mapping[str, Any]) -> Path:
    """Writes the page of a record beside it, under its name.

    Raises:
        StoreError: the folder cannot be written to.
    """
    return save(path.with_suffix(".html"), [run])


def save(path: Path, runs: Sequence[Mapping[str, Any]]) -> Path:
    """Writes a page about some records in one step.

    Raises:
        StoreError: it cannot be written.
    """
    text = html(runs)
    with storage_errors(f"cannot write {path}"):
        make_folder(path.parent)
        write_file(path, lambda aside: aside.write_text(text, "utf-8"))
        sync_folder(path.parent)
    return path


def _report(run: Mapping[str, Any]) -> Report:
    others = rates_page.others if "candidates" in run else evaluation_page.report
    return _OF.get(run["task"], others)(run)
