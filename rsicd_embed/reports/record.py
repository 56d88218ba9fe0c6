"""The record of a run: one JSON document, written, read back and checked."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rsicd_embed.errors import BenchError
from rsicd_embed.files import make_folder, storage_errors, sync_folder, write_file
from rsicd_embed.reports.machine import describe
from rsicd_embed.reports.statistics import Spread, paired_ratio, spread
from rsicd_embed.reports.timing import Samples

# Grows when a field changes its meaning; fields may be added without.
FORMAT = 1

TASKS = ("ann", "embed", "ingest", "serve", "zeroshot", "retrieval", "probe", "forgetting")
_HEAD = {"task": str, "command": str, "machine": dict, "settings": dict}


def document(
    task: str,
    settings: Mapping[str, Any],
    *,
    command: str,
    accelerators: Sequence[str] = (),
) -> dict[str, Any]:
    """The head of a run's record; what was measured is added by the task."""
    return {
        "format": FORMAT,
        "task": task,
        "command": command,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": describe(accelerators),
        "settings": dict(settings),
    }


def candidate(samples: Samples, name: str, units: float, unit: str) -> dict[str, Any]:
    """What was timed of a candidate that does `units` of something a call.

    `samples_ns` are raw: nanoseconds a call, a round each. `per_s` and its interval come from their
    median, `per_s_best` from the shortest.
    """
    taken = samples.of(name)
    found = spread(taken)
    return {
        "unit": unit,
        "units_per_call": units,
        "calls_per_sample": samples.calls[name],
        "samples_ns": [round(one, 1) for one in taken],
        "ns": {key: round(value, 1) for key, value in asdict(found).items()},
        "per_s": significant(units * 1e9 / found.median),
        "per_s_interval": [significant(units * 1e9 / ns) for ns in (found.high, found.low)],
        "per_s_best": significant(units * 1e9 / found.min),
    }


def rate_ratio(
    samples: Samples, one: str, other: str, *, units: Mapping[str, float]
) -> dict[str, Any]:
    """How many times the rate of `other` that of `one` is: the median over rounds."""
    scale = units[one] / units[other]
    found = paired_ratio(samples.of(other), samples.of(one))
    return {"of": one, "to": other, **ratio(found, scale)}


def ratio(found: Spread, scale: float = 1.0) -> dict[str, Any]:
    """A ratio's median and interval."""
    return {
        "ratio": significant(found.median * scale),
        "interval": [significant(found.low * scale), significant(found.high * scale)],
    }


def significant(value: float, digits: int = 6) -> float:
    """Rounded to so many digits, wherever the point is.

    Example:
        >>> significant(1234.56789), significant(0.000123456789)
        (1234.57, 0.000123457)
    """
    if value == 0 or not math.isfinite(value):
        return value
    return round(value, digits - 1 - math.floor(math.log10(abs(value))))


def claim(folder: Path) -> None:
    """Makes the folder of a record, and finds out now, not after an hour, if it can be written to.

    Raises:
        StoreError: it cannot.
    """
    with storage_errors(f"cannot write to {folder}"):
        make_folder(folder)
        probe = folder / ".tmp-probe"
        probe.touch()
        probe.unlink()


def save(folder: Path, name: str, run: Mapping[str, Any]) -> Path:
    """Writes `folder/name.json` in one step.

    Raises:
        StoreError: the folder cannot be written to.
    """
    path = folder / f"{name}.json"
    text = json.dumps(run, indent=1, ensure_ascii=False) + "\n"
    with storage_errors(f"cannot write {path}"):
        make_folder(folder)
        write_file(path, lambda aside: aside.write_text(text, "utf-8"))
        sync_folder(folder)
    return path


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of aligned columns, the first to the left and the others to the right.

    Example:
        >>> table([("a", "rate"), ("torch", "17.0")])
        ['a      rate', 'torch  17.0']
    """
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


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
