"""The record of a run: one JSON document, written, read and checked."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

from rsicd_embed.errors import BenchError
from rsicd_embed.files import make_folder, storage_errors, sync_folder, write_file
from rsicd_embed.reports.machine import describe
from rsicd_embed.reports.record_types import RunRecord, RunSettings

# Increases when a field changes its meaning; new fields may appear without.
FORMAT = 1

_EVALUATIONS = ("zeroshot", "retrieval", "probe", "forgetting", "queries", "caption", "suite")
TASKS = ("ann", "embed", "ingest", "serve", *_EVALUATIONS)
_HEAD = {"task": str, "command": str, "machine": dict, "settings": dict}


def document(
    task: str,
    settings: Mapping[str, object],
    *,
    command: str,
    accelerators: Sequence[str] = (),
) -> RunRecord:
    """The fields that every record starts with; each task adds its results."""
    return {
        "format": FORMAT,
        "task": task,
        "command": command,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": describe(accelerators),
        "settings": cast(RunSettings, dict(settings)),
    }


def claim(folder: Path) -> None:
    """Creates the folder of a record and checks, before the run, that it is writable.

    Raises:
        StoreError: it is not.
    """
    with storage_errors(f"cannot write to {folder}"):
        make_folder(folder)
        probe = folder / ".tmp-probe"
        probe.touch()
        probe.unlink()


def save(folder: Path, name: str, run: Mapping[str, object]) -> Path:
    """Writes `folder/name.json` atomically.

    Raises:
        StoreError: the folder is not writable.
    """
    text = json.dumps(run, indent=1, ensure_ascii=False) + "\n"
    return write_text(folder / f"{name}.json", text)


def write_text(path: Path, text: str) -> Path:
    """Writes a text file atomically, creating its folder.

    Raises:
        StoreError: it cannot be written.
    """
    with storage_errors(f"cannot write {path}"):
        make_folder(path.parent)
        write_file(path, lambda temporary: temporary.write_text(text, "utf-8"))
        sync_folder(path.parent)
    return path


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of aligned columns, the first left-aligned and the others right-aligned.

    Example:
        >>> table([("a", "rate"), ("torch", "17.0")])
        ['a      rate', 'torch  17.0']
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def read(path: Path) -> RunRecord:
    """Reads the record of a run.

    Raises:
        BenchError: it cannot be read, is not a record, or has another format version.
    """
    try:
        run = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BenchError(f"{path}: expected a record, found {error.strerror}") from None
    except (ValueError, RecursionError) as error:  # invalid JSON or UTF-8
        raise BenchError(f"{path}: expected a record in JSON: {error}") from None
    if not isinstance(run, dict) or "format" not in run:
        raise BenchError(f"{path}: expected a record of `rsicd-embed bench` or `eval`")
    if run["format"] != FORMAT:
        raise BenchError(
            f"{path}: expected a record of version {FORMAT}, found {run['format']!r}; "
            "run the benchmark again, or use the version of rsicd-embed that wrote it"
        )
    missing = [name for name, kind in _HEAD.items() if not isinstance(run.get(name), kind)]
    if missing:
        names = ", ".join(missing)
        raise BenchError(f"{path}: expected a record with the fields {names}, found none of them")
    # Scripts write records of their own tasks, with candidates and their rates.
    if run["task"] not in TASKS and "candidates" not in run:
        raise BenchError(
            f"{path}: expected a record of {', '.join(TASKS)}, found a record of {run['task']!r}"
        )
    return cast(RunRecord, run)


def read_complete(path: Path) -> RunRecord:
    """Reads the record of a run that finished.

    Raises:
        BenchError: as for `read`, or the run was interrupted.
    """
    run = read(path)
    if not run.get("complete", True):
        raise BenchError(f"{path}: expected a complete run, found an interrupted run; run it again")
    return run
