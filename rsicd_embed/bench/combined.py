"""`bench embed` of several models and batch sizes as one record, each candidate under its own name.

Each model and batch size has rounds of its own, so that ratios are between candidates of one of
them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rsicd_embed.bench.candidates import IMAGES, TEXTS

Run = dict[str, Any]


def merged(runs: Mapping[str, Run]) -> Run:
    """The fields of one record, from those that `embed.run` returned, by model and batch size.

    One run stays as it is. Of several, `peak` is the fastest product of all, and `runs` tells the
    tower and the peak of each, which the parts of the peak are of.

    Raises:
        ValueError: there are none.
    """
    if not runs:
        raise ValueError("expected at least one run, found none")
    if len(runs) == 1:
        return dict(next(iter(runs.values())))
    found: Run = {"complete": all(run["complete"] for run in runs.values())}
    for what in (IMAGES, TEXTS):
        some = {label: run[what] for label, run in runs.items() if what in run}
        if some:
            found[what] = _together(some)
    peaks = [run["peak"] for run in runs.values() if run.get("peak")]
    found["peak"] = max(peaks, key=lambda peak: float(peak["gflop_per_s"]), default=None)
    found["runs"] = {
        label: {name: run[name] for name in run if name not in (IMAGES, TEXTS, "complete")}
        for label, run in runs.items()
    }
    return found


def to_first(told: Mapping[str, Any]) -> dict[str, Any]:
    """The ratio of each candidate to the first of its model and batch size, which itself has 1.

    Args:
        told: `images` or `texts` of a record.
    """
    ratios = {(one["of"], one["to"]): one for one in told["ratios"]}
    found: dict[str, Any] = {}
    first = ""
    for name in told["candidates"]:
        if (name, first) not in ratios:
            first = name
        found[name] = ratios.get((name, first), {"ratio": 1.0, "interval": [1.0, 1.0]})
    return found


def _together(runs: Mapping[str, Run]) -> Run:
    overheads = [run["overhead"] for run in runs.values()]
    return {
        "candidates": {
            f"{label}: {name}": one
            for label, run in runs.items()
            for name, one in run["candidates"].items()
        },
        "ratios": [
            one | {end: f"{label}: {one[end]}" for end in ("of", "to")}
            for label, run in runs.items()
            for one in run["ratios"]
        ],
        "overhead": max(overheads, key=lambda overhead: float(overhead["fraction"])),
    }
