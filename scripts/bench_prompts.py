"""Effect of prompt ensembles on zero-shot classification, retrieval and everyday queries.

    python scripts/bench_prompts.py RSICD_FOLDER --split test -o prompts.json

Images are embedded once. For each ensemble of `datasets/prompts.toml`: the accuracy of zero-shot
classes, R@1 to R@10 of captions, and the precision of the first ten images for the queries of
`eval queries`, with the change from texts alone and its 95% interval over the queries.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

import rsicd_embed
from rsicd_embed.datasets.classes import readable
from rsicd_embed.datasets.prompts import ensembles
from rsicd_embed.embedder.base import prompted_vectors
from rsicd_embed.evaluation import query_precision
from rsicd_embed.json_output import as_json

RESULTS, RESAMPLES = 10, 10_000


def hit_rates(texts: np.ndarray, images: np.ndarray, image_of: np.ndarray) -> dict[str, float]:
    """R@1, R@5 and R@10 of captions; an image as similar as the right one ranks above it."""
    similarities = texts @ images.T
    right = similarities[np.arange(len(texts)), image_of]
    ranks = (similarities >= right[:, None]).sum(axis=1)
    return {f"t2i_r{k}": float((ranks <= k).mean()) for k in (1, 5, 10)}


def interval(changes: np.ndarray) -> list[float]:
    """95% interval of a mean: percentile bootstrap."""
    drawn = np.random.default_rng(0).integers(0, len(changes), (RESAMPLES, len(changes)))
    return [float(x) for x in np.quantile(changes[drawn].mean(axis=1), (0.025, 0.975))]


def main() -> None:
    """Prints a table, and writes it as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("source", type=Path)
    parser.add_argument("--split", default="test")
    parser.add_argument("--model")
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    embedder = rsicd_embed.load_embedder(options.model)
    (source,) = rsicd_embed.open_sources([options.source], split=options.split)
    examples = source.examples
    images = embedder.embed_images([example.file for example in examples])
    labels = [str(example.attributes["label"]) for example in examples]
    classes = sorted(set(labels))
    truth = np.array([classes.index(label) for label in labels])
    captions = [(i, text) for i, example in enumerate(examples) for text in example.captions]
    image_of = np.array([i for i, _ in captions])
    queries = query_precision.read(query_precision.EVERYDAY_QUERIES)
    keys = np.array([query_precision.class_key(label) for label in labels])
    relevant = np.array(
        [np.isin(keys, [query_precision.class_key(name) for name in q.classes]) for q in queries]
    )
    scored = np.flatnonzero(relevant.any(axis=1))
    rows = {}
    alone = np.zeros(len(scored))
    for name, templates in ensembles().items():
        names = prompted_vectors(embedder, [readable(label) for label in classes], templates)
        asked = prompted_vectors(embedder, [queries[i].text for i in scored], templates)
        precise = query_precision.precisions(asked @ images.T, relevant[scored], RESULTS)
        alone = precise if name == "none" else alone
        rows[name] = {
            "zeroshot_top1": float(((images @ names.T).argmax(axis=1) == truth).mean()),
            **hit_rates(
                prompted_vectors(embedder, [text for _, text in captions], templates),
                images,
                image_of,
            ),
            f"queries_p{RESULTS}": float(precise.mean()),
            "queries_change": float((precise - alone).mean()),
            "queries_interval": interval(precise - alone),
        }
    print(f"| {embedder.name}: prompts | top-1 | R@1 | R@5 | R@10 | p@10 | change of p@10 |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | --- |")
    for name, row in rows.items():
        shown = " | ".join(f"{row[key]:.1%}" for key in list(row)[:5])
        low, high = row["queries_interval"]
        change = "" if name == "none" else f"{row['queries_change']:+.1%} [{low:+.1%}, {high:+.1%}]"
        print(f"| {name} | {shown} | {change} |")
    if options.output:
        head = {"model": embedder.name, "fingerprint": embedder.fingerprint, "split": options.split}
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_bytes(as_json({**head, "n": len(labels), "prompts": rows}))


if __name__ == "__main__":
    main()
