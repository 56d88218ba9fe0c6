"""What the README says of speed and accuracy, from recorded runs."""

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
    """What the stores find, and how fast."""
    searched = run["states"]["optimized"]["contenders"]
    yield f"| store | ANN recall@{run['settings']['k']} | p50, ms | queries/s, many at once |"
    yield "|---|---|---|---|"
    for name in run["settings"]["stores"]:
        one = searched[name]
        yield (
            f"| {name} | {one['ann_recall']:.4f} | {one['single']['p50_ns'] / 1e6:.2f} | "
            f"{one['batch']['per_s']:,.0f} |"
        )


def rows(run: dict[str, Any]) -> str:
    """What was searched."""
    vectors = run["vectors"]
    text = f"Searching {vectors['rows']:,} vectors of length {vectors['dim']}"
    if ":" not in vectors["source"]:
        return f"{text}, generated ({vectors['source']})"
    made = f"rsicd-embed ingest PATH/TO/rsicd --store {vectors['source']}"
    return f"{text}, of RSICD, all splits (`{made}`)"


def cold(run: dict[str, Any]) -> str:
    """What was searched."""
    return f"`rsicd-embed search` from a cold shell, {run['candidates']['exact']['ns']['n']} times"


def ingest(run: dict[str, Any]) -> str:
    """What was ingested."""
    low, high = run["settings"]["sides"]
    sides = f"{low}" if low == high else f"{low} to {high}"
    return (
        f"Ingesting {run['images']:,} generated JPEGs of {sides} px a side, "
        f"model: {run['settings']['model']}"
    )


def embed(run: dict[str, Any]) -> str:
    """What was embedded."""
    settings = run["settings"]
    sizes = str(settings["batch_size"]).strip("[]")
    return f"Embedding, {sizes} images a call, model: {settings['model']}"


def accuracy(metrics: dict[str, Any]) -> Iterator[str]:
    """The bundled model by the published protocols."""
    yield f"**The bundled model** ({metrics['fingerprint'].partition('/')[0]})\n"
    yield "| | " + " | ".join(_ACCURACY.values()) + " |"
    yield "|---|" + "---|" * len(_ACCURACY)
    for split, found in metrics["figures"].items():
        yield f"| {split} | " + " | ".join(f"{found[name]:.3f}" for name in _ACCURACY) + " |"
    yield (
        f"\n`rsicd-embed eval zeroshot --dataset PATH/TO/rsicd --split test` (prompt: "
        f"“{metrics['prompt']}”) and\n`rsicd-embed eval retrieval --dataset PATH/TO/rsicd --split "
        "test`; for the other rows `--split val`, or UCM's\nfolder. Of machines only the rounding "
        "differs. The\ntrain splits of both data sets, and the names of their classes, were seen "
        "in training.\n"
    )


# The records that are shown: what is said above the table, and the table.
SHOWN: dict[str, tuple[Callable[[Any], str], Callable[[Any], Iterator[str]]]] = {
    "ann-rsicd": (rows, stores),
    "ann-100k": (rows, stores),
    "ingest-bundled-224": (ingest, bench_tables.ingest),
    "embed-vit-b-32": (embed, bench_tables.embed),
    "cold-search": (cold, bench_tables.cold),
}


def section() -> str:
    """All tables, each with what it is above it and how it was made below it."""
    lines = list(accuracy(bench_tables.read(METRICS)))
    for name, (title, table) in SHOWN.items():
        (path,) = (bench_tables.FOLDER / name).glob("*.json")
        run = bench_tables.read(path)
        lines += [f"**{title(run)}**\n", *table(run), "", bench_tables.head(run)]
    return "\n".join(lines).rstrip("\n") + "\n"
