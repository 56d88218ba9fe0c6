"""The records of benchmarks as tables: what `write_docs.py` puts into `benchmarks/README.md`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rsicd_embed.bench.combined import to_first

FOLDER = Path(__file__).parents[1] / "benchmarks"


def head(run: dict[str, Any]) -> str:
    """What ran, and where."""
    machine, command = run["machine"], run["command"]
    if " -o " not in command:  # records leave out where they are
        command += " -o DIR"
    noise = f"load {machine['load_1min']} before it"
    if machine.get("others_share") is not None:
        noise += f", others took {machine['others_share']:.1%} of the processors meanwhile"
    where = f"{machine['cpu']}, {machine['cores']} cores"
    return f"`{command}`: {where}, {run['started'][:10]}, {noise}.\n"


def read(path: Path) -> dict[str, Any]:
    """A record."""
    run: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return run


def timing(overhead: dict[str, float], what: str) -> str:
    """What the benchmark itself costs."""
    return (
        f"Timing costs {overhead['null_ns']:.0f} ns a {what}, "
        f"{overhead['fraction']:.1g} of the fastest."
    )


def embed(run: dict[str, Any]) -> Iterator[str]:
    """Models alone, beside references."""
    yield "| | images/s (95%) | best | × first | of float32 peak |\n|---|---|---|---|---|"
    ratios = to_first(run["images"])
    for name, one in run["images"]["candidates"].items():
        (low, high), part = one["per_s_interval"], one.get("of_float32_peak")
        yield (
            f"| {name} | {one['per_s']:.1f} ({low:.1f}–{high:.1f}) | {one['per_s_best']:.1f} | "
            f"{ratios[name]['ratio']:.2f} | " + (f"{part['ratio']:.0%} |" if part else "|")
        )
    peak = run["peak"]
    if peak:
        yield f"\nFloat32 peak: {peak['gflop_per_s']:.0f} GFLOP/s ({peak['best']})."
    yield timing(run["images"]["overhead"], "call")


def ingest(run: dict[str, Any]) -> Iterator[str]:
    """End to end, beside its halves; or its memory."""
    if run["memory"]:  # the rates of such a run are of few images
        yield "| images | peak memory, MB | more than with the model loaded, MB |\n|---|---|---|"
        for one in run["memory"]:
            more = one["peak_bytes"] - one["loaded_bytes"]
            yield f"| {one['images']:,} | {one['peak_bytes'] / 1e6:.0f} | {more / 1e6:.0f} |"
        return
    yield "| | images/s | of the slower alone | of both in turn | slowest stage |"
    yield "|---|---|---|---|---|"
    for name, one in run["candidates"].items():
        line = f"| {name} | {one['per_s']:.1f} |"
        part = run["ingests"].get(name)
        if part:
            line += f" {part['of_slower_alone']['ratio']:.0%} | {part['of_sum']['ratio']:.0%} | "
            line += f"{part['limited_by']} |"
        else:
            line += " | | |"
        yield line


def function(run: dict[str, Any]) -> Iterator[str]:
    """LanceDB's embedding functions."""
    yield "| | images/s |\n|---|---|"
    for name, one in run["candidates"].items():
        yield f"| {name} | {one['per_s']:.1f} |"
    for one in run["ratios"]:
        low, high = one["interval"]
        yield f"\n{one['of']} is {one['ratio']:.2f} ({low:.2f}–{high:.2f}) × {one['to']}."


def cold(run: dict[str, Any]) -> Iterator[str]:
    """Searches from a cold shell, or starts of a server."""
    yield f"{run['settings']['rows']:,} rows.\n\n| | median, s | best, s |\n|---|---|---|"
    for name, one in run["candidates"].items():
        yield f"| {name} | {one['ns']['median'] / 1e9:.2f} | {one['ns']['min'] / 1e9:.2f} |"


def ann(run: dict[str, Any]) -> Iterator[str]:
    """Vector stores, and their libraries on the same vectors with the same settings."""
    vectors, told = run["vectors"], run["states"]["optimized"]
    yield f"{vectors['rows']:,} vectors of length {vectors['dim']} ({vectors['source']}).\n"
    yield "| | rows/s of a median batch | optimize, s | ANN recall@10 | p50, ms | p95, ms | QPS |"
    yield "|---|---|---|---|---|---|---|"
    for name, one in told["contenders"].items():
        single, batch, filled = one["single"], one.get("batch", {}), "| |"
        if name in run["contenders"]:
            built = run["contenders"][name]
            filled = f"{built['upsert']['rows_per_s_of_median_batch']:,.0f} | "
            filled += f"{built['optimize']['s']:.1f} |"
        yield (
            f"| {name} | {filled} {one['ann_recall']:.4f} | {single['p50_ns'] / 1e6:.2f} | "
            f"{single['p95_ns'] / 1e6:.2f} | "
            + (f"{batch['per_s']:,.0f} |" if "per_s" in batch else "|")
        )
    yield f"\n{timing(told['overhead'], 'search')}"
    if told["ratios"]:
        yield "\n| beside its library | | ratio (95%) |\n|---|---|---|"
    for one in told["ratios"]:
        if one["what"] in ("single p50", "batch QPS"):
            low, high = one["interval"]
            yield f"| {one['of']} | {one['what']} | {one['ratio']:.2f} ({low:.2f}–{high:.2f}) |"


def serve(run: dict[str, Any]) -> Iterator[str]:
    """Searches over HTTP, batched and one by one."""
    yield f"{run['settings']['rows']:,} rows.\n\n| | searches/s (95%) | p50, ms | p99, ms |"
    yield "|---|---|---|---|"
    for name, one in run["candidates"].items():
        clients, _, how = name.partition(", ")
        alone = run["latency_ms"][how] if clients == "1 client" else None
        low, high = one["per_s_interval"]
        latency = f"{alone['p50']:.1f} | {alone['p99']:.1f} |" if alone else "| |"
        yield f"| {name} | {one['per_s']:.0f} ({low:.0f}–{high:.0f}) | {latency}"


def train_step(run: dict[str, Any]) -> Iterator[str]:
    """A training step beside the device's peak."""
    step, part = run["candidates"]["step"], run["of_peak"]
    low, high = part["interval"]
    yield (
        f"{run['settings']['shape']}, batch of {run['settings']['batch_size']}, "
        f"{run['settings']['precision']}, on {', '.join(run['devices'])}: {step['per_s']:.3g} "
        f"images/s, {part['ratio']:.0%} ({low:.0%}–{high:.0%}) of the peak ({part['by']})."
    )


def loader(run: dict[str, Any]) -> Iterator[str]:
    """The input pipeline of training, alone and beside a step."""
    settings = run["settings"]
    yield (
        f"{settings['shape']}; alone in batches of {settings['batch_size']}, beside "
        f"{settings['steps']} steps of {settings['step_batch_size']} images.\n"
    )
    yield "| views | worker processes | images/s alone | a step takes, s | it waits for data |"
    yield "|---|---|---|---|---|"
    for one in run["rows"]:
        yield (
            f"| {one['engine']} | {one['workers']} | {one['images_per_s']:.0f} | "
            f"{one['step_ms'] / 1e3:.2f} | {one['waiting']:.2%} |"
        )


def agreement(run: dict[str, Any]) -> Iterator[str]:
    """The same benchmark, run twice."""
    found, others = run["figures"], run["others_share_each"]
    agreed = sum(one["agree"] for one in found)
    yield (
        f"Two runs, while others took {others[0]:.1%} and {others[1]:.1%} of the processors: the "
        f"95% intervals of {agreed} of {len(found)} figures overlap."
    )
    if agreed < len(found):
        yield "\n| differs | first | second |\n|---|---|---|"
    for one in found:
        if not one["agree"]:
            told = " | ".join("{:.4g}–{:.4g}".format(*some) for some in one["intervals"])
            yield f"| {one['figure']} | {told} |"


SHOWN = {
    "agreement": agreement,
    "embed": embed,
    "ingest": ingest,
    "lancedb-function": function,
    "cold-search": cold,
    "first-picture": cold,
    "ann": ann,
    "loader": loader,
    "serve": serve,
    "train-step": train_step,
}


def page() -> str:
    """The whole page."""
    lines = [
        "# Recorded runs\n",
        "Written by `python -m scripts.write_docs` from the JSON files here, which hold the raw "
        "samples.\nCompare figures of one table only: machines differ, and so do their hours.",
    ]
    for path in sorted(FOLDER.glob("*/*.json")):
        run = read(path)
        show = SHOWN.get(run.get("task"))
        if show:
            lines += [f"\n## {path.parent.name}\n", head(run), *show(run)]
    return "\n".join(lines) + "\n"
