"""Text→image retrieval R@k on RSICD test: vectors, BM25 over generated captions, and both.

    python -m scripts.bench_caption_retrieval --rsicd PATH/TO/rsicd --vectors runs/vectors

Each test caption is a query for its image among all test images; ties count against the image.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

import rsicd_embed
from rsicd_embed.captioning.loading_captioner import load_captioner
from rsicd_embed.curation.caption_column import caption_store
from rsicd_embed.datasets import captions
from rsicd_embed.query import full_text
from rsicd_embed.testing.stores import batch
from rsicd_embed.train.captioner.caption_vectors import view_vectors

KS = (1, 5, 10, 50)
COLUMN = "caption_auto"
_CONSTANT = 60  # of reciprocal rank fusion, as in a hybrid search


def text_scores(ids: list[str], vectors: np.ndarray, queries: list[str]) -> np.ndarray:
    """float (queries, n): BM25 scores of the generated captions of images."""
    places = {id_: place for place, id_ in enumerate(ids)}
    scores = np.zeros((len(queries), len(ids)))
    with (
        tempfile.TemporaryDirectory() as folder,
        rsicd_embed.open_store(
            f"exact:{folder}/store", embedder=rsicd_embed.load_embedder()
        ) as store,
    ):
        store.upsert([batch(ids, vectors)])
        caption_store(store, load_captioner(), column=COLUMN)
        for row, query in enumerate(queries):
            for id_, score in full_text.ranked_ids(store, COLUMN, full_text.words([query]), None):
                scores[row, places[id_]] = score
    return scores


def reciprocal_ranks(scores: np.ndarray) -> np.ndarray:
    """float, of the shape of the scores: 1 / (60 + rank) in each row."""
    order = np.argsort(-scores, axis=1, kind="stable")
    ranks = np.empty_like(scores)
    np.put_along_axis(ranks, order, np.arange(1.0, scores.shape[1] + 1)[None], axis=1)
    return 1 / (_CONSTANT + ranks)


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rsicd", type=Path, required=True)
    parser.add_argument("--vectors", type=Path, required=True)
    options = parser.parse_args()
    embedder = rsicd_embed.load_embedder()
    examples = [e for e in captions.read(options.rsicd).examples if e.split == "test"]
    (vectors,) = view_vectors(embedder, examples, 1, options.vectors)
    texts = [caption for example in examples for caption in example.captions]
    owners = np.repeat(np.arange(len(examples)), [len(e.captions) for e in examples])
    distinct = list(dict.fromkeys(texts))
    places = {text: place for place, text in enumerate(distinct)}
    rows = np.array([places[text] for text in texts])
    similar = (embedder.embed_texts(distinct) @ vectors.T).astype(float)
    matching = text_scores([example.id for example in examples], vectors, distinct)
    fused = reciprocal_ranks(similar) + np.where(matching > 0, reciprocal_ranks(matching), 0.0)
    for name, scores in (("vectors", similar), ("BM25", matching), ("hybrid", fused)):
        own = scores[rows, owners]
        ranks = (scores[rows] >= own[:, None]).sum(axis=1)
        rates = "  ".join(f"R@{k} {np.mean(ranks <= k):.3f}" for k in KS)
        print(f"{name:8}  {rates}  median rank {np.median(ranks):g}")


if __name__ == "__main__":
    main()
