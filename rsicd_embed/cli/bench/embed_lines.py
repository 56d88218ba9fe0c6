"""The record of `rsicd-embed bench embed` as tables."""

from __future__ import annotations

from typing import Any


def lines(run: dict[str, Any]) -> list[str]:
    """One table of images, one of texts, and the peak."""
    from rsicd_embed.bench.combined import to_first
    from rsicd_embed.reports.record import table

    found = []
    for what in ("images", "texts"):
        if what not in run:
            continue
        ratios = to_first(run[what])
        rows = [("", f"{what}/s", "95%", "best", "× first", "95%", "of peak", "least cosine")]
        for name, one in run[what]["candidates"].items():
            ratio, peak = ratios[name], one.get("of_float32_peak")
            rows.append(
                (
                    name,
                    f"{one['per_s']:.1f}",
                    "{:.1f}–{:.1f}".format(*one["per_s_interval"]),
                    f"{one['per_s_best']:.1f}",
                    f"{ratio['ratio']:.3f}",
                    "{:.3f}–{:.3f}".format(*ratio["interval"]),
                    f"{peak['ratio']:.1%}" if peak else "",
                    f"{one['agreement_with_first']['least_cosine']:.6f}",
                )
            )
        found += table(rows)
        overhead = run[what]["overhead"]
        found.append(
            f"timing costs {overhead['null_ns']:.0f} ns a call, "
            f"{overhead['fraction']:.2g} of the shortest"
        )
    if run.get("peak"):
        peak = run["peak"]
        found.append(f"float32 peak: {peak['gflop_per_s']:.1f} GFLOP/s ({peak['best']})")
    return found
