"""Effect and cost of composed queries ("X not Y" on a labelled dataset), and cost of labels.

    python scripts/bench_queries.py RSICD_FOLDER --split test -o composed.json

For all ordered pairs of classes (X, Y), the share of X and of Y in the first 20 hits of the query
"X", with "not Y" at several weights. Then the median time of plain and composed queries, taken in
turns, on stores of random vectors, and the time in which all of their rows are labelled.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

import rsicd_embed
from rsicd_embed import Part, Query
from rsicd_embed.curation.labels import label_few_shot
from rsicd_embed.datasets.classes import readable
from rsicd_embed.embedder.base import Embedder
from rsicd_embed.json_output import as_json
from rsicd_embed.records import Provenance, vector_array
from rsicd_embed.stores.base import VectorStore

TOP = 20
WEIGHTS = (0.0, -0.25, -0.5, -0.75, -1.0)


def shares(vectors: np.ndarray, labels: list[str], embedder: Embedder) -> list[dict[str, float]]:
    """Mean share of X and Y in the first hits over all pairs, by weight of Y.

    `y_confused` is the share of Y over the pairs in which the plain query has any.
    """
    classes = sorted(set(labels))
    truth = np.array([classes.index(label) for label in labels])
    texts = embedder.embed_texts([readable(name) for name in classes]).astype(np.float64)
    pairs = list(itertools.permutations(range(len(classes)), 2))
    by_weight = {}
    for weight in WEIGHTS:
        rows = []
        for x, y in pairs:
            first = np.argsort(-(vectors @ (texts[x] + weight * texts[y])), kind="stable")[:TOP]
            rows.append(((truth[first] == x).mean(), (truth[first] == y).mean()))
        by_weight[weight] = np.array(rows)
    confused = by_weight[0.0][:, 1] > 0
    return [
        {
            "weight": weight,
            "x": float(rows[:, 0].mean()),
            "y": float(rows[:, 1].mean()),
            "y_confused": float(rows[confused, 1].mean()),
        }
        for weight, rows in by_weight.items()
    ]


def times_ms(store: VectorStore, embedder: Embedder, rounds: int) -> dict[str, float]:
    """Median time of a search, in ms: plain, with a text to avoid, and with a row as well."""
    queries = {
        "plain": [Part("a harbour full of boats")],
        "not": [Part("a harbour full of boats"), Part("oil tanks", weight=-0.5)],
        "not_like": [
            Part("a harbour full of boats"), Part("oil tanks", weight=-0.5), Part(id="7"),
        ],
    }  # fmt: skip
    samples: dict[str, list[float]] = {name: [] for name in queries}
    for _ in range(rounds):
        for name, parts in queries.items():
            started = time.perf_counter()
            rsicd_embed.search(Query(parts), store, embedder)
            samples[name].append((time.perf_counter() - started) * 1e3)
    return {name: statistics.median(values) for name, values in samples.items()}


def few_shot_s(store: VectorStore) -> float:
    """Seconds to learn five classes from 50 examples each, and to label all rows."""
    examples = {str(i): f"class {i % 5}" for i in range(250)}
    started = time.perf_counter()
    label_few_shot(store, examples)
    return time.perf_counter() - started


def main() -> None:
    """Prints both tables, and writes them as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("source", type=Path)
    parser.add_argument("--split", default="test")
    parser.add_argument("--model")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--schemes", default="exact,nmslib,lancedb")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    embedder = rsicd_embed.load_embedder(options.model, backend="numpy")
    (source,) = rsicd_embed.open_sources([options.source], split=options.split)
    labels = [str(example.attributes["label"]) for example in source.examples]
    vectors = embedder.embed_images([example.file for example in source.examples])
    table = shares(vectors.astype(np.float64), labels, embedder)
    print("| weight of Y | X in the top 20 | Y in the top 20 | Y, where plain has any |")
    print("| ---: | ---: | ---: | ---: |")
    for row in table:
        print("| {weight:g} | {x:.1%} | {y:.3%} | {y_confused:.1%} |".format(**row))
    made_by = Provenance.of(embedder)
    numbers = np.random.default_rng(0).standard_normal((options.rows, made_by.dim))
    units = (numbers / np.linalg.norm(numbers, axis=1, keepdims=True)).astype(np.float32)
    rows = pa.table({"id": [str(i) for i in range(options.rows)], "vector": vector_array(units)})
    medians = {}
    with tempfile.TemporaryDirectory() as folder:
        for scheme in options.schemes.split(","):
            with rsicd_embed.open_store(f"{scheme}:{folder}/{scheme}", made_by) as store:
                store.upsert(rows.to_batches())
                store.optimize()
                times_ms(store, embedder, 5)
                medians[scheme] = times_ms(store, embedder, options.rounds)
                medians[scheme]["few_shot_s"] = few_shot_s(store)
            print(scheme, {name: round(value, 2) for name, value in medians[scheme].items()})
    if options.output:
        document = {"model": made_by.model, "x_not_y": table, "p50_ms": medians}
        options.output.write_bytes(as_json(document))


if __name__ == "__main__":
    main()
