"""Measures relevance feedback on the search page: the next round's precision, and its duration.

    python -m scripts.bench_feedback --rsicd PATH/TO/rsicd
    python -m scripts.bench_feedback --rows 10000

With `--rsicd`, each class of RSICD's test split is a query. Of its first 24 results, some of the
class become examples to look for, and some others examples to avoid. The precision of the next 24
results, without the examples, tells how much each kind of example should count.

With `--rows`, a browser clicks on thumbs and measures the time until the next results are shown.
Needs Chromium and playwright.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import rsicd_embed
from rsicd_embed.datasets.classes import readable
from rsicd_embed.testing.stores import batch

SHOWN = 24
# (examples to look for, examples to avoid) per query.
COUNTS = ((1, 0), (3, 0), (8, 0), (0, 1), (0, 3), (0, 8), (1, 1), (3, 3), (8, 8))
# Name → total weights of the examples to look for and to avoid; None for each example.
WEIGHTS: dict[str, tuple[float, float] | None] = {
    "ignored": (0.0, 0.0),
    "1 and -0.5 each": None,
    "1 and -0.5": (1.0, -0.5),
    "1 and -0.25": (1.0, -0.25),
    "0.5 and -0.15": (0.5, -0.15),
}
ROUNDS = 30
# A person judges results that they see, so each round starts once the pictures have loaded.
SETTLED_MS = 200  # without a finished request
CLICK = """async ([role, settled]) => {
  const requests = () => performance.getEntriesByType("resource").length;
  for (let before = -1; before !== requests();) {
    before = requests();
    await new Promise((resolve) => setTimeout(resolve, settled));
  }
  performance.clearResourceTimings();
  const card = document.querySelector(".card");
  const started = performance.now();
  card.querySelector(`.${role}`).click();
  while (card.isConnected) await new Promise(requestAnimationFrame);
  return performance.now() - started;
}"""


def precision(folder: Path) -> dict[str, dict[str, float]]:
    """Mean precision of the next round, by numbers of examples and weights."""
    source = json.loads(next(folder.glob("dataset_*.json")).read_text(encoding="utf-8"))
    names = [image["filename"] for image in source["images"] if image["split"] == "test"]
    names = [name for name in names if "_" in name]  # the others have no class
    paths = {path.name: path for path in folder.rglob("*.jpg")}
    embedder = rsicd_embed.load_embedder()
    vectors = embedder.embed_images([paths[name] for name in names])
    labels = np.array([name.split("_")[0].lower() for name in names])
    classes = sorted(set(labels))
    texts = embedder.embed_texts([readable(name) for name in classes])
    table: dict[str, dict[str, float]] = {}
    for more, less in COUNTS:
        row = table[f"{more} up, {less} down"] = {}
        for name, weights in WEIGHTS.items():
            shares = [
                _next_round(text, vectors, labels == label, more, less, weights)
                for label, text in zip(classes, texts, strict=True)
            ]
            row[name] = round(float(np.mean([share for share in shares if share is not None])), 4)
    return table


def _next_round(
    text: np.ndarray,
    vectors: np.ndarray,
    wanted: np.ndarray,
    more: int,
    less: int,
    weights: tuple[float, float] | None,
) -> float | None:
    """The precision of one query's next round; None if it has no such examples."""
    first = np.argsort(-(vectors @ text), kind="stable")[:SHOWN]
    liked, disliked = first[wanted[first]][:more], first[~wanted[first]][:less]
    if not len(liked) and not len(disliked):
        return None
    up, down = (len(liked), -0.5 * len(disliked)) if weights is None else weights
    query = text.astype(np.float64)
    if len(liked):
        query = query + up * vectors[liked].mean(axis=0)
    if len(disliked):
        query = query + down * vectors[disliked].mean(axis=0)
    scores = vectors @ query
    scores[[*liked, *disliked]] = -np.inf
    count = min(SHOWN, int(wanted.sum()) - len(liked))
    return float(wanted[np.argsort(-scores, kind="stable")[:count]].mean()) if count else None


def durations(rows: int, scheme: str) -> dict[str, float]:
    """Milliseconds from a click on a thumb until the next results are shown."""
    from playwright.sync_api import sync_playwright

    embedder = rsicd_embed.load_embedder()
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(rows, embedder.dim)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    places = {"lon": rng.uniform(-180, 180, rows), "lat": rng.uniform(-80, 80, rows)}
    with tempfile.TemporaryDirectory() as folder:
        uri = f"{scheme}:{folder}/store"
        picture = Path(folder, "tile.jpg")  # of all rows
        Image.fromarray(rng.integers(0, 255, (256, 256, 3), np.uint8)).save(picture)
        sha256 = hashlib.sha256(picture.read_bytes()).hexdigest()
        files = {"uri": [str(picture)] * rows, "sha256": [sha256] * rows}
        with rsicd_embed.open_store(uri, embedder=embedder) as store:
            store.upsert([batch([f"row{i}" for i in range(rows)], vectors, **files, **places)])
            store.optimize()
        command = [sys.executable, "-c", "from rsicd_embed.cli import main; main()"]
        command += ["serve", "--store", uri, "--port", "0"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            address = server.stdout.readline().split()[-1]
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(
                    executable_path="/usr/bin/chromium", args=["--no-sandbox"]
                )
                page = browser.new_page()
                page.goto(f"{address}?text=a+harbour")
                page.locator(".card .less").first.wait_for()
                measured = [_round(page, i) for i in range(ROUNDS)]
                browser.close()
            server.terminate()
    return {
        "p50_ms": round(statistics.median(measured), 1),
        "p95_ms": round(statistics.quantiles(measured, n=20)[-1], 1),
        "rounds": len(measured),
    }


def _round(page: Any, i: int) -> float:
    """Judges the first result and returns the time to the next results."""
    return float(page.evaluate(CLICK, ["less" if i % 2 else "more", SETTLED_MS]))


def main() -> None:
    """Prints the measurements as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rsicd", type=Path, help="folder of RSICD")
    parser.add_argument("--rows", type=int, help="rows of a store of random vectors")
    parser.add_argument("--scheme", default="exact", help="kind of the store")
    options = parser.parse_args()
    if options.rsicd is None and options.rows is None:
        parser.error("expected --rsicd FOLDER or --rows N")
    if options.rsicd is not None:
        print(json.dumps({"precision": precision(options.rsicd)}, indent=2))
    if options.rows is not None:
        measured = durations(options.rows, options.scheme)
        print(json.dumps({"rows": options.rows, "store": options.scheme, **measured}))


if __name__ == "__main__":
    main()
