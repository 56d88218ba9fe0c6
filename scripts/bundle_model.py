"""Puts a training run's best model into the package, with its model card and the log of the run.

    python scripts/bundle_model.py --run runs/bundled --dataset PATH/TO/rsicd --machine "a laptop"

The figures in the card are measured here, on the val split, with the model as it will be shipped.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

from flax import nnx
from safetensors.numpy import load_file
from tokenizers import Tokenizer as FastTokenizer

import rsicd_embed.embedder
from rsicd_embed.bench.evaluate import PROMPT, Evaluator
from rsicd_embed.datasets import captioned
from rsicd_embed.embedder.clip.model import Clip
from rsicd_embed.embedder.loading import load_clip
from rsicd_embed.train.config import TrainConfig
from rsicd_embed.train.loop import Run

BUNDLED = Path(rsicd_embed.embedder.__file__).parent / "bundled"
FILES = (
    "config.json",
    "model.safetensors",
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
)

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
It was trained from nothing by the project's own `train` command.

| | |
| --- | --- |
| image tower | ViT, {image_size} px, patches of {patch_size} px, width {vision_width}, {vision_layers} layers |
| text tower | causal transformer, {context} tokens of a vocabulary of {vocab}, width {text_width}, {text_layers} layers |
| embedding | {dim} |
| parameters | {parameters:.1f} million, {megabytes:.1f} MB in float16 |
| data | RSICD's train split: {train_images} images, {train_captions} distinct captions (Lu et al. 2017, arXiv:1712.07835) |
| class names | seen in training: {class_share:.0%} of the captions were made from the image's class |
| chosen | epoch {epoch} of {epochs}, by the mean of zero-shot top-1 and mR on val |
| cost | {hours:.1f} hours on {machine}, evaluation on val not counted |

## Figures on RSICD's val split

{table}

Zero-shot: the {zeroshot_images} val images whose file name tells their class, {classes} classes,
prompt "{prompt}" with readable class names; chance for top-1 is {chance:.3f}. Retrieval: {val_images}
images and their five captions each, R@k as fractions, mR their mean; a tie counts against. "Untrained"
is the same model before its first step. The test split was not looked at.

## What it is not

It knows the words of RSICD's captions and few others, was trained on few images, of about 0.5 to 8 m
a pixel, and is far weaker than a fine-tuned OpenAI CLIP (clip-rsicd-v2 reports .883 zero-shot top-1
on RSICD's test split). For real work give one of those to `--model`.

## How to train it again

```sh
rsicd-embed train --dataset PATH/TO/rsicd --out runs/bundled{flags}
python scripts/bundle_model.py --run runs/bundled --dataset PATH/TO/rsicd --machine "…"
```

`training_run.json` and `training_log.jsonl` beside this file are the run's settings and its log, a
row an epoch.
"""

BEGIN, END = "<!-- figures: scripts/bundle_model.py -->", "<!-- end of figures -->"

ROWS = {
    "zeroshot_top1": "zero-shot top-1",
    "zeroshot_top3": "zero-shot top-3",
    "zeroshot_top5": "zero-shot top-5",
    "zeroshot_top10": "zero-shot top-10",
    "i2t_r1": "image→text R@1",
    "i2t_r5": "image→text R@5",
    "i2t_r10": "image→text R@10",
    "t2i_r1": "text→image R@1",
    "t2i_r5": "text→image R@5",
    "t2i_r10": "text→image R@10",
    "mr": "mR",
}


def flags(config: dict[str, Any]) -> str:
    """The options that differ from the defaults of `train`."""
    defaults = TrainConfig()
    return "".join(
        f" --{name.replace('_', '-')} {value}"
        for name, value in config.items()
        if value != getattr(defaults, name)
    )


def main() -> None:
    """Copies, measures, writes the card."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--machine", required=True, help="what it was trained on, for the card")
    options = parser.parse_args()

    aside = BUNDLED.with_name("bundled.new")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    for name in FILES:
        shutil.copy(options.run / "best" / name, aside / name)
    shutil.copy(options.run / "run.json", aside / "training_run.json")
    shutil.copy(options.run / "metrics.jsonl", aside / "training_log.jsonl")
    shutil.rmtree(BUNDLED, ignore_errors=True)
    aside.rename(BUNDLED)

    source = captioned.load(options.dataset)
    train, val = source.split("train"), source.split("val")
    evaluate = Evaluator(val)
    model = load_clip()
    settings = json.loads((options.run / "run.json").read_text())["settings"]
    config = TrainConfig(**settings)
    run = Run(config, options.run, FastTokenizer.from_file(str(BUNDLED / "tokenizer.json")))
    fresh = nnx.state(Clip(run.shape, rngs=nnx.Rngs(config.seed)))
    figures = {"trained": evaluate(model), "untrained": evaluate(run.embedder(fresh))}
    said = {"fingerprint": model.fingerprint, "prompt": PROMPT, **figures}
    (BUNDLED / "val_metrics.json").write_text(json.dumps(said, indent=2) + "\n")

    log = [json.loads(line) for line in (options.run / "metrics.jsonl").read_text().splitlines()]
    best = max(log, key=lambda row: row.get("mr", -1.0) + row.get("zeroshot_top1", -1.0))
    named = [e for e in val if captioned.label_in_name(e.path.name) == e.label]
    classes = {captioned.label_in_name(e.path.name) for e in named}
    table = ["| | trained | untrained |", "| --- | --- | --- |"] + [
        f"| {words} | {figures['trained'][name]:.3f} | {figures['untrained'][name]:.3f} |"
        for name, words in ROWS.items()
    ]
    shape = model.config
    card = CARD.format(
        image_size=shape.image_size,
        patch_size=shape.patch_size,
        vision_width=shape.vision.width,
        vision_layers=shape.vision.layers,
        context=shape.context_length,
        vocab=shape.vocab_size,
        text_width=shape.text.width,
        text_layers=shape.text.layers,
        dim=shape.dim,
        parameters=sum(t.size for t in load_file(BUNDLED / "model.safetensors").values()) / 1e6,
        megabytes=(BUNDLED / "model.safetensors").stat().st_size / 1e6,
        train_images=f"{len(train):,}",
        train_captions=f"{len({c for e in train for c in e.captions}):,}",
        class_share=config.class_captions,
        epoch=best["epoch"],
        epochs=config.epochs,
        hours=sum(row["seconds"] for row in log) / 3600,
        table="\n".join(table),
        zeroshot_images=len(named),
        classes=len(classes),
        prompt=PROMPT,
        chance=1 / len(classes),
        val_images=f"{len(val):,}",
        machine=options.machine,
        flags=flags(settings),
    )
    (BUNDLED / "README.md").write_text(
        "\n".join(line.rstrip() for line in card.splitlines()) + "\n"
    )
    update_readme(figures["trained"], figures["untrained"])
    print("\n".join(table))


def update_readme(trained: dict[str, float], untrained: dict[str, float]) -> None:
    """Puts the headline figures between the marks in the project's README."""
    readme = Path(__file__).parents[1] / "README.md"
    before, _, rest = readme.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    names = ("zeroshot_top1", "zeroshot_top5", "mr")
    lines = [
        "| RSICD val | " + " | ".join(ROWS[name] for name in names) + " |",
        "| --- |" + " --- |" * len(names),
        *(
            f"| {words} | " + " | ".join(f"{row[name]:.3f}" for name in names) + " |"
            for words, row in (("bundled model", trained), ("the same, untrained", untrained))
        ),
    ]
    table = "\n".join(lines)
    readme.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
