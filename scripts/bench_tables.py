"""Records of benchmarks as tables, which `write_docs.py` writes into `benchmarks/README.md`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rsicd_embed.bench.embed_rates import ratios_to_first

FOLDER = Path(__file__).parents[1] / "benchmarks"


def head(run: dict[str, Any]) -> str:
    """The command, machine, date and load of a run."""
    machine, command = run["machine"], run["command"]
    if " -o " not in command:  # records leave out their folder
        command += " -o DIR"
    load = f"load {machine['load_1min']} before the run"
    if machine.get("others_share") is not None:
        load += f", {machine['others_share']:.1%} of the CPU time used by other processes"
    return f"`{command}`: {processor(run)}, {run['started'][:10]}, {load}.\n"


def processor(run: dict[str, Any]) -> str:
    """The processor of a run, and its number of cores."""
    return f"{run['machine']['cpu']}, {run['machine']['cores']} cores"


def read(path: Path) -> dict[str, Any]:
    """Reads a record."""
    run: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return run


def timing(overhead: dict[str, float], unit: str) -> str:
    """The cost of timing itself."""
    return (
        f"Timing costs {overhead['null_ns']:.0f} ns per {unit}, "
        f"{overhead['fraction']:.1g} of the fastest."
    )


def embed(run: dict[str, Any]) -> Iterator[str]:
    """Models alone, next to references."""
    yield "| | images/s (95%) | best | × first | of float32 peak |\n|---|---|---|---|---|"
    ratios = ratios_to_first(run["images"])
    for name, rate in run["images"]["candidates"].items():
        (low, high), share = rate["per_s_interval"], rate.get("of_float32_peak")
        yield (
            f"| {name} | {rate['per_s']:.1f} ({low:.1f}–{high:.1f}) | {rate['per_s_best']:.1f} | "
            f"{ratios[name]['ratio']:.2f} | " + (f"{share['ratio']:.0%} |" if share else "|")
        )
    peak = run["peak"]
    if peak:
        yield f"\nFloat32 peak: {peak['gflop_per_s']:.0f} GFLOP/s ({peak['best']})."
    yield timing(run["images"]["overhead"], "call")


def ingest(run: dict[str, Any]) -> Iterator[str]:
    """Ingests, next to their halves; or their memory usage."""
    if run["memory"]:  # the rates of such a run are from few images
        yield "| images | peak memory, MB | above the loaded model, MB |\n|---|---|---|"
        for usage in run["memory"]:
            above = usage["peak_bytes"] - usage["loaded_bytes"]
            yield f"| {usage['images']:,} | {usage['peak_bytes'] / 1e6:.0f} | {above / 1e6:.0f} |"
        return
    yield "| | images/s | of the slower alone | of both in sequence | slowest stage |"
    yield "|---|---|---|---|---|"
    for name, rate in run["candidates"].items():
        cells = " | | |"
        if shares := run["ingests"].get(name):
            alone, total = shares["of_slower_alone"]["ratio"], shares["of_sum"]["ratio"]
            cells = f" {alone:.0%} | {total:.0%} | {shares['limited_by']} |"
        yield f"| {name} | {rate['per_s']:.1f} |{cells}"


def function(run: dict[str, Any]) -> Iterator[str]:
    """Candidates and their ratios: embedding functions of LanceDB, ingests from buckets."""
    yield "| | images/s |\n|---|---|"
    for name, rate in run["candidates"].items():
        yield f"| {name} | {rate['per_s']:.1f} |"
    for ratio in run["ratios"]:
        low, high = ratio["interval"]
        yield f"\n{ratio['of']} is {ratio['ratio']:.2f} ({low:.2f}–{high:.2f}) × {ratio['to']}."


def cold(run: dict[str, Any]) -> Iterator[str]:
    """Searches from a cold shell, or starts of a server."""
    yield f"{run['settings']['rows']:,} rows.\n\n| | median, s | best, s |\n|---|---|---|"
    for name, rate in run["candidates"].items():
        yield f"| {name} | {rate['ns']['median'] / 1e9:.2f} | {rate['ns']['min'] / 1e9:.2f} |"


def ann(run: dict[str, Any]) -> Iterator[str]:
    """Vector stores, and their libraries on the same vectors and with the same settings."""
    vectors, state = run["vectors"], run["states"]["optimized"]
    yield f"{vectors['rows']:,} vectors of length {vectors['dim']} ({vectors['source']}).\n"
    yield "| | rows/s of the median batch | optimize, s | ANN recall@10 | p50, ms | p95, ms | QPS |"
    yield "|---|---|---|---|---|---|---|"
    for name, searched in state["contenders"].items():
        single, batch, build = searched["single"], searched.get("batch", {}), "| |"
        if name in run["contenders"]:
            built = run["contenders"][name]
            build = f"{built['upsert']['rows_per_s_of_median_batch']:,.0f} | "
            build += f"{built['optimize']['s']:.1f} |"
        yield (
            f"| {name} | {build} {searched['ann_recall']:.4f} | {single['p50_ns'] / 1e6:.2f} | "
            f"{single['p95_ns'] / 1e6:.2f} | "
            + (f"{batch['per_s']:,.0f} |" if "per_s" in batch else "|")
        )
    yield f"\n{timing(state['overhead'], 'search')}"
    if state["ratios"]:
        yield "\n| relative to its library | | ratio (95%) |\n|---|---|---|"
    for ratio in state["ratios"]:
        if ratio["what"] in ("single p50", "batch QPS"):
            low, high = ratio["interval"]
            value = f"{ratio['ratio']:.2f} ({low:.2f}–{high:.2f})"
            yield f"| {ratio['of']} | {ratio['what']} | {value} |"
    yield from filtered(run)
    yield from settings_of_indexes(run)


def filtered(run: dict[str, Any]) -> Iterator[str]:
    """Searches with filters, by the share of the rows that match."""
    states = {name: state for name, state in run["states"].items() if state.get("where")}
    if states:
        yield "\n| filter that matches | | ANN recall@10 | p50, ms | p95, ms |"
        yield "|---|---|---|---|---|"
    for share, state in states.items():
        for name, searched in state["contenders"].items():
            single = searched["single"]
            yield (
                f"| {share} | {name} | {searched['ann_recall']:.4f} | "
                f"{single['p50_ns'] / 1e6:.2f} | {single['p95_ns'] / 1e6:.2f} |"
            )


def settings_of_indexes(run: dict[str, Any]) -> Iterator[str]:
    """The fastest setting of each contender that reaches an ANN recall of 0.99, or its best."""
    points = [point for point in run.get("points", ()) if point["settings"]]
    if points:
        yield "\n| index | optimize, s | disk, MB | setting | ANN recall@10 | p50, ms |"
        yield "|---|---|---|---|---|---|"
    for name in dict.fromkeys(point["contender"] for point in points):
        own = [point for point in points if point["contender"] == name]
        good = [point for point in own if point["ann_recall"] >= 0.99]
        best = max(own, key=lambda point: (point["ann_recall"], -point["p50_ns"]))
        chosen = min(good, key=lambda point: point["p50_ns"]) if good else best
        built = run["contenders"][name]
        settings = ", ".join(f"{key}={value}" for key, value in chosen["settings"].items())
        yield (
            f"| {name} | {built['optimize']['s']:.1f} | {built['disk_bytes'] / 1e6:,.0f} | "
            f"{settings} | {chosen['ann_recall']:.4f} | {chosen['p50_ns'] / 1e6:.2f} |"
        )


def serve(run: dict[str, Any]) -> Iterator[str]:
    """Searches over HTTP, batched and one by one."""
    yield f"{run['settings']['rows']:,} rows.\n\n| | searches/s (95%) | p50, ms | p99, ms |"
    yield "|---|---|---|---|"
    for name, rate in run["candidates"].items():
        clients, _, server = name.partition(", ")
        latency = run["latency_ms"][server] if clients == "1 client" else None
        low, high = rate["per_s_interval"]
        cells = f"{latency['p50']:.1f} | {latency['p99']:.1f} |" if latency else "| |"
        yield f"| {name} | {rate['per_s']:.0f} ({low:.0f}–{high:.0f}) | {cells}"


def train_step(run: dict[str, Any]) -> Iterator[str]:
    """A training step, relative to the device's peak."""
    step, share = run["candidates"]["step"], run["of_peak"]
    low, high = share["interval"]
    yield (
        f"{run['settings']['shape']}, batch of {run['settings']['batch_size']}, "
        f"{run['settings']['precision']}, on {', '.join(run['devices'])}: {step['per_s']:.3g} "
        f"images/s, {share['ratio']:.0%} ({low:.0%}–{high:.0%}) of the peak ({share['by']})."
    )


def loader(run: dict[str, Any]) -> Iterator[str]:
    """The input pipeline of training, alone and feeding a step."""
    settings = run["settings"]
    yield (
        f"{settings['shape']}; alone in batches of {settings['batch_size']}, and feeding "
        f"{settings['steps']} steps of {settings['step_batch_size']} images.\n"
    )
    yield "| views | worker processes | images/s alone | time per step, s | time waiting for data |"
    yield "|---|---|---|---|---|"
    for row in run["rows"]:
        yield (
            f"| {row['engine']} | {row['workers']} | {row['images_per_s']:.0f} | "
            f"{row['step_ms'] / 1e3:.2f} | {row['waiting']:.2%} |"
        )


def agreement(run: dict[str, Any]) -> Iterator[str]:
    """Run-to-run variation: the same benchmark, run twice."""
    metrics, others = run["figures"], run["others_share_each"]
    differing = [metric for metric in metrics if not metric["agree"]]
    yield (
        f"Two runs, with {others[0]:.1%} and {others[1]:.1%} of the CPU time used by other "
        f"processes: the 95% intervals of {len(metrics) - len(differing)} of {len(metrics)} "
        "metrics overlap."
    )
    if differing:
        yield "\n| differs | first | second |\n|---|---|---|"
    for metric in differing:
        ends = " | ".join("{:.4g}–{:.4g}".format(*interval) for interval in metric["intervals"])
        yield f"| {metric['figure']} | {ends} |"


def queries(run: dict[str, Any]) -> Iterator[str]:
    """Everyday queries, by their precision."""
    k = run["k"]
    low, high = run["intervals"][f"p{k}"]
    yield (
        f"{run['model']} on {run['dataset']} {run['split']}, {run['n']:,} images: precision@{k} of "
        f"{run['queries']} queries {run['metrics'][f'p{k}']:.3f} ({low:.3f}–{high:.3f}), "
        f"{run['without_hits']} without a right result."
    )
    yield "\n| precision | queries |\n|---|---|"
    by_precision: dict[str, list[str]] = {}
    for row in sorted(run["per_query"], key=lambda row: -row["precision"]):
        by_precision.setdefault(f"{row['precision']:.1f}", []).append(row["query"])
    for value, texts in by_precision.items():
        yield f"| {value} | {', '.join(sorted(texts))} |"


SHOWN = {
    "agreement": agreement,
    "embed": embed,
    "ingest": ingest,
    "lancedb-function": function,
    "remote": function,
    "cold-search": cold,
    "first-picture": cold,
    "ann": ann,
    "queries": queries,
    "loader": loader,
    "serve": serve,
    "train-step": train_step,
}


def page() -> str:
    """The page of all records."""
    lines = [
        "# Recorded runs\n",
        "Written by `python -m scripts.write_docs` from the JSON files in this folder, which hold "
        "the raw samples.\nOnly compare values within a table: machines and their load differ.",
    ]
    for path in sorted(FOLDER.glob("*/*.json")):
        run = read(path)
        show = SHOWN.get(run.get("task"))
        if show:
            lines += [f"\n## {path.parent.name}\n", head(run), *show(run)]
    return "\n".join(lines) + "\n"
