"""Figures in README.md and docs/ about speed and accuracy, from recorded runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from scripts import bench_tables

METRICS = Path(__file__).parents[1] / "rsicd_embed" / "embedder" / "bundled" / "metrics.json"
_ACCURACY = {
    "zeroshot_top1": "zero-shot top-1",
    "zeroshot_top5": "zero-shot top-5",
    "i2t_r1": "image→text R@1",
    "t2i_r1": "text→image R@1",
    "mr": "mR",
}


def stores(run: dict[str, Any]) -> Iterator[str]:
    """A table of each store's ANN recall and speed."""
    searched = run["states"]["optimized"]["contenders"]
    yield f"| store | ANN recall@{run['settings']['k']} | p50, ms | batch queries/s |"
    yield "|---|---|---|---|"
    for name in run["settings"]["stores"]:
        contender = searched[name]
        yield (
            f"| {name} | {contender['ann_recall']:.4f} | "
            f"{contender['single']['p50_ns'] / 1e6:.2f} | {contender['batch']['per_s']:,.0f} |"
        )


def rows(run: dict[str, Any]) -> str:
    """Title of a search benchmark: number, length and origin of the vectors."""
    vectors = run["vectors"]
    text = f"Searching {vectors['rows']:,} vectors of length {vectors['dim']}"
    if ":" not in vectors["source"]:
        return f"{text}, generated ({vectors['source']})"
    command = f"rsicd-embed ingest PATH/TO/rsicd --store {vectors['source']}"
    return f"{text}, RSICD, all splits (`{command}`)"


def cold(run: dict[str, Any]) -> str:
    """Title of the benchmark of searches from a cold shell."""
    return f"`rsicd-embed search` from a cold shell, {run['candidates']['exact']['ns']['n']} times"


def ingest(run: dict[str, Any]) -> str:
    """Title of an ingest benchmark: number and size of the images, and the model."""
    low, high = run["settings"]["sides"]
    sides = f"{low}" if low == high else f"{low} to {high}"
    return (
        f"Ingesting {run['images']:,} generated JPEGs of {sides} px a side, "
        f"model: {run['settings']['model']}"
    )


def embed(run: dict[str, Any]) -> str:
    """Title of an embedding benchmark: batch size and model."""
    settings = run["settings"]
    sizes = str(settings["batch_size"]).strip("[]")
    return f"Embedding, batches of {sizes} images, model: {settings['model']}"


def accuracy(metrics: dict[str, Any]) -> Iterator[str]:
    """The bundled model's scores by the published protocols."""
    yield "| | " + " | ".join(_ACCURACY.values()) + " |"
    yield "|---|" + "---|" * len(_ACCURACY)
    for split, scores in metrics["figures"].items():
        yield f"| {split} | " + " | ".join(f"{scores[name]:.3f}" for name in _ACCURACY) + " |"
    yield (
        f"\n`rsicd-embed eval zeroshot --dataset PATH/TO/rsicd --split test` (prompt: "
        f"“{metrics['prompt']}”) and\n`rsicd-embed eval retrieval --dataset PATH/TO/rsicd --split "
        "test`; `--split val` or UCM's folder for the other\nrows. Results on other hardware "
        "differ only by rounding. The model saw the train splits of both datasets\nand the names "
        f"of their classes. Its weights are "
        f"{metrics['fingerprint'].partition('/')[0].partition(':')[2]}."
    )


# The records that docs/benchmarks.md shows: the title above a table, and the table.
SHOWN: dict[str, tuple[Callable[[Any], str], Callable[[Any], Iterator[str]]]] = {
    "ann-rsicd": (rows, stores),
    "ann-100k": (rows, stores),
    "ingest-bundled-224": (ingest, bench_tables.ingest),
    "embed-vit-b-32": (embed, bench_tables.embed),
    "cold-search": (cold, bench_tables.cold),
}


def section() -> str:
    """All tables, each with its title above it and its command below it."""
    lines: list[str] = []
    for name, (title, table) in SHOWN.items():
        run = record(name)
        lines += [f"**{title(run)}**\n", *table(run), "", bench_tables.head(run)]
    return "\n".join(lines).rstrip("\n") + "\n"


def accuracy_section() -> str:
    """The scores of the bundled model, with the commands that measure them."""
    return "\n".join(accuracy(bench_tables.read(METRICS))) + "\n"


def sizes() -> str:
    """Disk, memory and search time of each store with 100,000 and a million vectors."""
    lines = [
        "| rows × length | store | disk, GB | memory, GB | median search, ms | ANN recall@10 |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name in ("ann-100k", "ann-1m"):
        run = record(name)
        vectors, contenders = run["vectors"], run["states"]["optimized"]["contenders"]
        for store in run["settings"]["stores"]:
            searched = contenders[store]
            lines.append(
                f"| {vectors['rows']:,} × {vectors['dim']} | {store} | "
                f"{run['contenders'][store]['disk_bytes'] / 1e9:.1f} | "
                f"{searched['peak_bytes'] / 1e9:.1f} | {searched['single']['p50_ns'] / 1e6:.1f} | "
                f"{searched['ann_recall']:.3f} |"
            )
    return "\n".join(lines) + "\n"


def growth() -> str:
    """Ingest, memory, disk and search time of a LanceDB store, by its number of rows."""
    runs = [record(path.name) for path in bench_tables.FOLDER.glob("growth-*")]
    runs.sort(key=lambda run: run["vectors"]["rows"])
    shares = [name for name in runs[0]["states"] if "%" in name]
    columns = ["rows", "rows/s", "optimize, s", "memory, MB: ingest", "optimize", "search"]
    columns += [
        "disk, GB",
        "ANN recall@10",
        "p50, ms",
        *(f"p50, {share}" for share in shares),
        "on",
    ]
    lines = [f"| {' | '.join(columns)} |", "| --- " * len(columns) + "|"]
    for run in runs:
        built, states = run["contenders"]["lancedb"], run["states"]
        searched = {name: state["contenders"]["lancedb"] for name, state in states.items()}
        steps, optimized = (built["upsert"], built["optimize"]), searched.pop("optimized")
        peaks = (*(max(step["peak_bytes"]) for step in steps), optimized["peak_bytes"])
        cells = [
            f"{run['vectors']['rows']:,}",
            f"{built['upsert']['rows_per_s']:,.0f}",
            f"{built['optimize']['s']:.1f}",
            *(f"{peak / 1e6:,.0f}" for peak in peaks),
            f"{built['disk_bytes'] / 1e9:.3g}",
            f"{optimized['ann_recall']:.3f}",
            *(f"{s['single']['p50_ns'] / 1e6:.1f}" for s in (optimized, *searched.values())),
            bench_tables.processor(run),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    built, rows = runs[-1]["contenders"]["lancedb"], runs[-1]["vectors"]["rows"]
    factor = 1e8 / rows
    lines.append(
        f"\nFrom the last row, 100 million vectors of this length would take "
        f"{built['disk_bytes'] * factor / 1e9:,.0f} GB of disk, "
        f"{built['upsert']['s'] * factor / 60:.0f} minutes to write and at least "
        f"{built['optimize']['s'] * factor / 3600:.1f} hours to optimize."
    )
    return "\n".join(lines) + "\n"


def summary() -> str:
    """The README's table: one row for each kind of benchmark."""
    cold_search, search = record("cold-search"), record("ann-100k")
    ingested, embedded = record("ingest-bundled-224"), record("embed-vit-b-32")
    contenders = search["states"]["optimized"]["contenders"]
    rates = embedded["images"]["candidates"]
    p50 = {
        name: contenders[name]["single"]["p50_ns"] / 1e6 for name in ("nmslib", "exact", "lancedb")
    }
    ann_recall = min(contenders[name]["ann_recall"] for name in p50)
    ingest_rate = ingested["candidates"]["ingest exact"]["per_s"]
    median = {
        name: candidate["ns"]["median"] / 1e9
        for name, candidate in cold_search["candidates"].items()
    }
    lines = [
        "| measured | result | on |",
        "| --- | --- | --- |",
        f"| `search` from a cold shell, {cold_search['settings']['rows']:,} rows | "
        f"{median['exact']:.2f} s (exact), {median['lancedb']:.2f} s (lancedb) "
        f"| {bench_tables.processor(cold_search)} |",
        f"| one search among {search['vectors']['rows']:,} vectors of length "
        f"{search['vectors']['dim']}, median | "
        + ", ".join(f"{value:.1f} ms ({name})" for name, value in p50.items())
        + f"; ANN recall@10 {ann_recall:.2f} | {bench_tables.processor(search)} |",
        f"| ingest of JPEGs of 224 px, bundled model | {ingest_rate:.0f} images/s "
        f"| {bench_tables.processor(ingested)} |",
        "| embedding with CLIP ViT-B/32 | "
        f"{rates['rsicd-embed openvino bfloat16']['per_s']:.0f} images/s (OpenVINO bfloat16), "
        f"{rates['rsicd-embed jax']['per_s']:.0f} (JAX), "
        f"{rates['torch float32']['per_s']:.0f} (PyTorch, for comparison) "
        f"| {bench_tables.processor(embedded)} |",
    ]
    return "\n".join(lines) + "\n"


def record(name: str) -> dict[str, Any]:
    """The record of a recorded run."""
    (path,) = (bench_tables.FOLDER / name).glob("*.json")
    return bench_tables.read(path)
