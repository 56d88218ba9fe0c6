"""The record of `rsicd-embed bench ann` as tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_MORE = "batch_by_clients"


def lines(run: dict[str, Any]) -> list[str]:
    """Tables of builds, of each state's searches, of the curve, and of ratios."""
    vectors, queries = run["vectors"], run["queries"]
    kinds = ", ".join(f"{count} {kind}" for kind, count in queries["kinds"].items())
    found = [
        f"{vectors['rows']} vectors of length {vectors['dim']} ({vectors['source']}); "
        f"{queries['count']} queries: {kinds}",
        "",
        *_builds(run["contenders"], run["states"]),
    ]
    for state, told in run["states"].items():
        found += ["", *_searches(state, told, told.get("k", run["settings"]["k"]))]
    for k in dict.fromkeys(one["k"] for one in run["points"]):
        found += ["", *_curve(run["points"], k)]
    ratios = _ratio_rows("build time", run["ratios"])
    for state, told in run["states"].items():
        ratios += _ratio_rows(state, told["ratios"])
    if ratios:
        found += ["", *_table([("beside its library", "", "ratio", "95%"), *ratios])]
    return found


def _builds(contenders: dict[str, Any], states: dict[str, Any]) -> list[str]:
    searched = states.get("optimized", {}).get("contenders", {})
    head = ("build", "rows/s", "median batch", "optimize s", "disk MB")
    rows: list[tuple[str, ...]] = [(*head, "peak MB: upsert", "optimize", "search")]
    for name, one in contenders.items():
        optimize = one.get("optimize", {})
        peaks = [one["upsert"]["peak_bytes"], optimize.get("peak_bytes", [])]
        most = [max((peak for peak in some if peak), default=None) for some in peaks]
        most.append(searched.get(name, {}).get("peak_bytes"))
        rows.append(
            (
                name,
                f"{one['upsert']['rows_per_s']:.0f}",
                f"{one['upsert']['rows_per_s_of_median_batch']:.0f}",
                f"{optimize['s']:.2f}" if optimize else "",
                _megabytes(one.get("disk_bytes")),
                *(_megabytes(peak) for peak in most),
            )
        )
    return _table(rows)


def _searches(state: str, told: dict[str, Any], k: int) -> list[str]:
    head: tuple[str, ...] = (
        state,
        f"ANN recall@{k}",
        "p50 ms",
        "p95 ms",
        "p99 ms",
        "first ms",
        "QPS",
        "at once",
    )
    clients = next((list(one[_MORE]) for one in told["contenders"].values() if one.get(_MORE)), [])
    head = (*head, *(f"QPS of {count} clients" for count in clients))
    indexed = any("index" in one for one in told["contenders"].values())
    rows: list[tuple[str, ...]] = [(*head, "index") if indexed else head]
    for name, one in told["contenders"].items():
        if "single" not in one:
            continue
        batch = one.get("batch")
        rows.append(
            (
                name,
                f"{one['ann_recall']:.4f}",
                *(f"{one['single'][f'{at}_ns'] / 1e6:.3f}" for at in ("p50", "p95", "p99")),
                f"{one['first_search_ns'] / 1e6:.1f}",
                f"{batch['per_s']:.0f}" if batch and "per_s" in batch else "",
                f"{batch['units_per_call']:.0f}" if batch and "per_s" in batch else "",
                *(_rate(one.get(_MORE, {}).get(count)) for count in clients),
                *([one.get("index", "")] if indexed else []),
            )
        )
    over = told["overhead"]
    return [
        *_table(rows),
        f"timing costs {over['null_ns']:.0f} ns a search, {over['fraction']:.2%} of the fastest",
    ]


def _curve(points: list[dict[str, Any]], k: int) -> list[str]:
    """The points that no other beats, the most thorough first."""
    best = [one for one in points if one["pareto"] and one["k"] == k]
    best.sort(key=lambda one: (-one["ann_recall"], one["p50_ns"]))
    head = ("nothing finds more in less time", "", f"ANN recall@{k}", "p50 ms", "p95 ms")
    rows = [
        (
            one["contender"],
            ", ".join(f"{name}={value}" for name, value in one["settings"].items()) or "as it is",
            f"{one['ann_recall']:.4f}",
            f"{one['p50_ns'] / 1e6:.3f}",
            f"{one['p95_ns'] / 1e6:.3f}",
        )
        for one in best
    ]
    return _table([head, *rows])


def _ratio_rows(state: str, ratios: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    return [
        (
            one["of"],
            f"{state}: {one['what']}",
            f"{one['ratio']:.3f}",
            "{:.3f}–{:.3f}".format(*one["interval"]) if one.get("n") != 1 else "one build",
        )
        for one in ratios
    ]


def _rate(batch: dict[str, Any] | None) -> str:
    return f"{batch['per_s']:.0f}" if batch else ""


def _megabytes(count: int | None) -> str:
    return f"{count / 1e6:.0f}" if count is not None else ""


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    from rsicd_embed.reports.record import table

    return table(rows)
