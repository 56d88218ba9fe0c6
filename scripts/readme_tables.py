"""Tables of speed and accuracy in the README, from recorded runs."""

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
    """ANN recall, latency and throughput of the stores."""
    searched = run["states"]["optimized"]["contenders"]
    yield f"| store | ANN recall@{run['settings']['k']} | p50, ms | queries/s, batched |"
    yield "|---|---|---|---|"
    for name in run["settings"]["stores"]:
        store = searched[name]
        yield (
            f"| {name} | {store['ann_recall']:.4f} | {store['single']['p50_ns'] / 1e6:.2f} | "
            f"{store['batch']['per_s']:,.0f} |"
        )


def rows(run: dict[str, Any]) -> str:
    """The vectors that were searched."""
    vectors = run["vectors"]
    text = f"Searching {vectors['rows']:,} vectors of length {vectors['dim']}"
    if ":" not in vectors["source"]:
        return f"{text}, generated ({vectors['source']})"
    command = f"rsicd-embed ingest PATH/TO/rsicd --store {vectors['source']}"
    return f"{text}: RSICD, all splits (`{command}`)"


def cold(run: dict[str, Any]) -> str:
    """The cold searches that were timed."""
    return f"`rsicd-embed search` from a cold shell, {run['candidates']['exact']['ns']['n']} times"


def ingest(run: dict[str, Any]) -> str:
    """The images that were ingested."""
    low, high = run["settings"]["sides"]
    sides = f"{low}" if low == high else f"{low} to {high}"
    return (
        f"Ingesting {run['images']:,} generated JPEGs of {sides} px per side, "
        f"model: {run['settings']['model']}"
    )


def embed(run: dict[str, Any]) -> str:
    """The images that were embedded."""
    settings = run["settings"]
    sizes = str(settings["batch_size"]).strip("[]")
    return f"Embedding, {sizes} images per batch, model: {settings['model']}"


def accuracy(metrics: dict[str, Any]) -> Iterator[str]:
    """Accuracy of the bundled model by the published protocols."""
    yield f"**The bundled model** ({metrics['fingerprint'].partition('/')[0]})\n"
    yield "| | " + " | ".join(_ACCURACY.values()) + " |"
    yield "|---|" + "---|" * len(_ACCURACY)
    for split, figures in metrics["figures"].items():
        yield f"| {split} | " + " | ".join(f"{figures[name]:.3f}" for name in _ACCURACY) + " |"
    yield (
        f"\n`rsicd-embed eval zeroshot --dataset PATH/TO/rsicd --split test` (prompt: "
        f"“{metrics['prompt']}”) and\n`rsicd-embed eval retrieval --dataset PATH/TO/rsicd --split "
        "test`; for the other rows `--split val`, or UCM's\nfolder. Results on other hardware "
        "differ only by rounding. The train splits of both\ndatasets, and the names of their "
        "classes, were used in training.\n"
    )


# The records that are shown: functions for the title above the table, and for the table.
SHOWN: dict[str, tuple[Callable[[Any], str], Callable[[Any], Iterator[str]]]] = {
    "ann-rsicd": (rows, stores),
    "ann-100k": (rows, stores),
    "ingest-bundled-224": (ingest, bench_tables.ingest),
    "embed-vit-b-32": (embed, bench_tables.embed),
    "cold-search": (cold, bench_tables.cold),
}


def section() -> str:
    """All tables, each with its title above and its command below."""
    lines = list(accuracy(bench_tables.read(METRICS)))
    for name, (title, table) in SHOWN.items():
        (path,) = (bench_tables.FOLDER / name).glob("*.json")
        run = bench_tables.read(path)
        lines += [f"**{title(run)}**\n", *table(run), "", bench_tables.head(run)]
    return "\n".join(lines).rstrip("\n") + "\n"
