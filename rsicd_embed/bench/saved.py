"""Records that were saved: read back, and refused where they are something else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rsicd_embed.errors import BenchError
from rsicd_embed.reports.record import FORMAT

TASKS = ("ann", "embed", "ingest", "serve", "zeroshot", "retrieval", "probe", "forgetting")
_HEAD = {"task": str, "command": str, "machine": dict, "settings": dict}


def read(path: Path) -> dict[str, Any]:
    """The record of a run.

    Raises:
        BenchError: it cannot be read, is no record, or one of another version.
    """
    try:
        run = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BenchError(f"{path}: expected a record, found {error.strerror}") from None
    except ValueError as error:  # of JSON, and of UTF-8
        raise BenchError(f"{path}: expected a record, which is JSON: {error}") from None
    if not isinstance(run, dict) or "format" not in run:
        raise BenchError(f"{path}: expected a record of `rsicd-embed bench` or `eval`")
    if run["format"] != FORMAT:
        raise BenchError(
            f"{path}: expected a record of version {FORMAT}, found {run['format']!r}; "
            "run the benchmark again, or take the rsicd-embed that wrote it"
        )
    wrong = [name for name, kind in _HEAD.items() if not isinstance(run.get(name), kind)]
    # Scripts write records of their own, of candidates and their rates.
    if wrong or not (run["task"] in TASKS or "candidates" in run):
        raise BenchError(
            f"{path}: expected a record of {', '.join(TASKS)}, found "
            + (f"none of its {', '.join(wrong)}" if wrong else f"one of {run['task']!r}")
        )
    return run


def read_complete(path: Path) -> dict[str, Any]:
    """The record of a run that came to its end.

    Raises:
        BenchError: as `read`; or it was interrupted.
    """
    run = read(path)
    if not run.get("complete", True):
        raise BenchError(
            f"{path}: expected a run that came to its end, found one that was interrupted; "
            "run it again"
        )
    return run
