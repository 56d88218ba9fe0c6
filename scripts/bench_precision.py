"""Share of search results that are the same if vectors are computed in bfloat16.

    python scripts/bench_precision.py PATH/TO/rsicd --split test

Searches all images of a split for 1,000 of its captions, by vectors of OpenVINO in float32 and in
bfloat16, and compares the first ten hits. Half of the rows of a mixed store are in bfloat16.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

import rsicd_embed

CAPTIONS, HITS = 1000, 10


def first_hits(queries: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The best rows of each query, int (q, HITS)."""
    return np.argsort(-(queries @ rows.T), axis=1, kind="stable")[:, :HITS]


def same_hits(expected: np.ndarray, found: np.ndarray) -> float:
    """Mean share of the expected hits that were found."""
    shared = [len(np.intersect1d(*pair)) for pair in zip(expected, found, strict=True)]
    return float(np.mean(shared)) / HITS


def main() -> None:
    """Prints the shares as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("--split", default="test")
    parser.add_argument("--model")
    options = parser.parse_args()
    (source,) = rsicd_embed.open_sources([options.source], split=options.split)
    captions = sorted({text for example in source.examples for text in example.captions})
    rng = np.random.default_rng(0)
    texts = [captions[i] for i in rng.permutation(len(captions))[:CAPTIONS]]
    files = [example.file for example in source.examples]
    exact, rough = (
        rsicd_embed.load_embedder(options.model, backend="openvino", precision=precision)
        for precision in ("float32", "bfloat16")
    )
    queries, rows = exact.embed_texts(texts), exact.embed_images(files)
    rounded = rough.embed_images(files)
    mixed = np.where(rng.random((len(rows), 1)) < 0.5, rows, rounded)
    expected = first_hits(queries, rows)
    print(
        json.dumps(
            {
                "rows": len(rows),
                "queries": len(texts),
                "least_cosine": float((rows * rounded).sum(axis=1).min()),
                "mixed_rows": same_hits(expected, first_hits(queries, mixed)),
                "all_rows": same_hits(expected, first_hits(queries, rounded)),
                "rows_and_queries": same_hits(
                    expected, first_hits(rough.embed_texts(texts), rounded)
                ),
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
