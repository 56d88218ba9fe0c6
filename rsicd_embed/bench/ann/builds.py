"""How long it took to fill and to optimize, and how long beside the library."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rsicd_embed.reports import record
from rsicd_embed.reports.statistics import paired_ratio, spread

Contenders = dict[str, dict[str, Any]]


def keep(contenders: Contenders, name: str, step: str, told: Mapping[str, Any]) -> None:
    """Adds what `ContenderWorker.fill` or `ContenderWorker.optimize` told of one build."""
    one = contenders.setdefault(name, {}).setdefault(step, {"samples_ns": [], "peak_bytes": []})
    one["samples_ns"].append(told["ns"])
    one["peak_bytes"].append(told["peak_bytes"])
    if "batch_ns" in told:
        one.setdefault("batch_ns", []).append(told["batch_ns"])


def summarise(contenders: Contenders, rows: int, batch_rows: int) -> None:
    """Adds seconds and rates, medians over the builds."""
    for own in contenders.values():
        for one in own.values():
            if isinstance(one, dict) and one.get("samples_ns"):
                one["s"] = record.significant(spread(one["samples_ns"]).median / 1e9)
        upsert = own["upsert"]
        upsert["rows_per_s"] = record.significant(rows / upsert["s"])
        # Of a batch as most are: without those in which a store brought its index up to date.
        middle = spread([one for some in upsert["batch_ns"] for one in some]).median
        upsert["rows_per_s_of_median_batch"] = record.significant(
            min(batch_rows, rows) * 1e9 / middle
        )


def ratios(contenders: Contenders, pairs: Mapping[str, str]) -> list[dict[str, Any]]:
    """Time of each store to time of its library, build by build: of each step, and of both."""
    found = []
    for one, other in pairs.items():
        if not all("optimize" in contenders.get(name, {}) for name in (one, other)):
            continue
        steps = {
            step: [contenders[name][step]["samples_ns"] for name in (one, other)]
            for step in ("upsert", "optimize")
        }
        both = zip(*steps.values(), strict=True)
        steps["both"] = [[a + b for a, b in zip(*pair, strict=True)] for pair in both]
        for what, (ours, theirs) in steps.items():
            n = min(len(ours), len(theirs))  # the last build may have been interrupted
            told = record.ratio(paired_ratio(ours[:n], theirs[:n]))
            found.append({"of": one, "to": other, "what": what, "n": n, **told})
    return found
