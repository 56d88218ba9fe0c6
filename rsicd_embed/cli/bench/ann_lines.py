"""Tables of the results of `rsicd-embed bench ann`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rsicd_embed.reports.record_types import (
        AnnPoint,
        AnnRecord,
        BuiltContender,
        RateSummary,
        Ratio,
        SearchedContender,
        SearchState,
    )


def lines(run: AnnRecord) -> list[str]:
    """Tables of builds, of each state's searches, of the Pareto curve, and of ratios."""
    from rsicd_embed.reports.record import table
    from rsicd_embed.reports.record_metrics import OPTIMIZED

    vectors, queries = run["vectors"], run["queries"]
    kinds = ", ".join(f"{count} {kind}" for kind, count in queries["kinds"].items())
    optimized = run["states"][OPTIMIZED]["contenders"] if OPTIMIZED in run["states"] else {}
    tables = [_builds(run["contenders"], optimized)]
    ratios = _ratio_rows("build time", run["ratios"])
    for name, state in run["states"].items():
        tables.append(_searches(name, state, state.get("k", run["settings"]["k"])))
        ratios += _ratio_rows(name, state["ratios"])
    ks = dict.fromkeys(point["k"] for point in run["points"])
    tables += [_curve(run["points"], k) for k in ks]
    if ratios:
        tables.append(table([("relative to its library", "", "ratio", "95%"), *ratios]))
    return [
        f"{vectors['rows']} vectors of length {vectors['dim']} ({vectors['source']}); "
        f"{queries['count']} queries: {kinds}",
        *(line for rows in tables for line in ("", *rows)),
    ]


def _builds(
    contenders: Mapping[str, BuiltContender], optimized: Mapping[str, SearchedContender]
) -> list[str]:
    from rsicd_embed.reports.record import table

    head = ("build", "rows/s", "median batch", "optimize s", "disk MB")
    rows: list[tuple[str, ...]] = [(*head, "peak MB: upsert", "optimize", "search")]
    for name, built in contenders.items():
        upsert, optimize = built["upsert"], built.get("optimize")
        peaks = [_highest(upsert["peak_bytes"])]
        peaks.append(_highest(optimize["peak_bytes"]) if optimize else None)
        peaks.append(optimized[name].get("peak_bytes") if name in optimized else None)
        rows.append(
            (
                name,
                f"{upsert['rows_per_s']:.0f}",
                f"{upsert['rows_per_s_of_median_batch']:.0f}",
                f"{optimize['s']:.2f}" if optimize else "",
                *(_megabytes(count) for count in (built.get("disk_bytes"), *peaks)),
            )
        )
    return table(rows)


def _searches(name: str, state: SearchState, k: int) -> list[str]:
    from rsicd_embed.reports.record import table

    contenders = state["contenders"]
    clients = next((list(by) for c in contenders.values() if (by := c.get("batch_by_clients"))), [])
    indexed = any("index" in contender for contender in contenders.values())
    rows: list[tuple[str, ...]] = [
        (
            *(name, f"ANN recall@{k}", "p50 ms", "p95 ms", "p99 ms", "first ms", "QPS", "batch"),
            *(f"QPS of {count} clients" for count in clients),
            *(["index"] if indexed else []),
        )
    ]
    for contender_name, contender in contenders.items():
        if "single" not in contender:
            continue
        single, batch = contender["single"], contender.get("batch")
        by_clients = contender.get("batch_by_clients", {})
        times = (single["p50_ns"], single["p95_ns"], single["p99_ns"])
        rows.append(
            (
                contender_name,
                f"{contender['ann_recall']:.4f}",
                *(f"{ns / 1e6:.3f}" for ns in times),
                f"{contender['first_search_ns'] / 1e6:.1f}",
                _per_s(batch),
                f"{batch['units_per_call']:.0f}" if batch else "",
                *(_per_s(by_clients.get(count)) for count in clients),
                *([contender.get("index", "")] if indexed else []),
            )
        )
    overhead = state["overhead"]
    return [
        *table(rows),
        f"timing costs {overhead['null_ns']:.0f} ns per search, {overhead['fraction']:.2%} of the "
        "fastest",
    ]


def _curve(points: Sequence[AnnPoint], k: int) -> list[str]:
    """The Pareto curve, highest ANN recall first."""
    from rsicd_embed.reports.record import table

    best = [point for point in points if point["pareto"] and point["k"] == k]
    best.sort(key=lambda point: (-point["ann_recall"], point["p50_ns"]))
    rows = [("Pareto curve", "", f"ANN recall@{k}", "p50 ms", "p95 ms")]
    for point in best:
        settings = ", ".join(f"{name}={value}" for name, value in point["settings"].items())
        times = (f"{point['p50_ns'] / 1e6:.3f}", f"{point['p95_ns'] / 1e6:.3f}")
        ann_recall = f"{point['ann_recall']:.4f}"
        rows.append((point["contender"], settings or "default", ann_recall, *times))
    return table(rows)


def _ratio_rows(state: str, ratios: Sequence[Ratio]) -> list[tuple[str, ...]]:
    return [
        (
            ratio["of"],
            f"{state}: {ratio.get('what')}",
            f"{ratio['ratio']:.3f}",
            "{:.3f}–{:.3f}".format(*ratio["interval"]) if ratio.get("n") != 1 else "one build",
        )
        for ratio in ratios
    ]


def _per_s(rate: RateSummary | None) -> str:
    return f"{rate['per_s']:.0f}" if rate else ""


def _highest(peaks: Sequence[int | None]) -> int | None:
    return max((peak for peak in peaks if peak), default=None)


def _megabytes(count: int | None) -> str:
    return f"{count / 1e6:.0f}" if count is not None else ""
