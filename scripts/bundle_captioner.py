"""Bundles the best captioner of a run in eight bits, with its figures on RSICD.

    python -m scripts.bundle_captioner --run runs/captioner --rsicd PATH/TO/rsicd \
        --vectors runs/vectors --machine "two cores of an AMD EPYC" --hours 0.7
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

import rsicd_embed
from rsicd_embed.captioning import captioner_files, loading_captioner
from rsicd_embed.captioning.caption_config import Decoding
from rsicd_embed.captioning.captioner import Captioner
from rsicd_embed.datasets import captions
from rsicd_embed.embedder.clip import int8_weights
from rsicd_embed.evaluation import caption_protocol
from rsicd_embed.evaluation.metrics import Bootstrap
from rsicd_embed.train import journal
from rsicd_embed.train.captioner.caption_vectors import view_vectors
from rsicd_embed.train.run_folder import replace_directory

OUT = Path(loading_captioner.__file__).parent / "bundled"
SHOWN = ("bleu1", "bleu2", "bleu3", "bleu4", "rouge_l", "cider_d")
DECODINGS = {"beam 5": Decoding("beam"), "greedy": Decoding("greedy")}
BASELINES = {"nearest": "nearest image's caption", "most_frequent": "most frequent caption"}

README = """---
license: apache-2.0
library_name: rsicd-embed
pipeline_tag: image-to-text
tags: [clip, remote-sensing, captioning]
---

# The bundled captioner

Writes a sentence for a vector of the bundled model; the default of `rsicd-embed caption`.

| | |
| --- | --- |
| design | ClipCap (arXiv:2111.09734): a perceptron maps the vector to {prefix} positions of a causal decoder |
| decoder | {layers} layers of width {width}, {words:,} words |
| parameters | {parameters:.1f} million, {megabytes:.1f} MB in int8 with a scale per channel |
| data | the captions of the train splits of RSICD and UCM: {images:,} images |
| selected | epoch {epoch} of {epochs}, by CIDEr-D on the val split of RSICD |
| cost | {hours} hours on {machine}, besides embedding the images once |

## Figures

RSICD test, {n:,} images with five captions each, all of them references; metrics as by pycocoevalcap.

{table}

The margin is the difference to the nearest image's caption, with its 95% bootstrap interval over the images.{seeds}

## Training data

RSICD (Lu et al. 2017, arXiv:1712.07835) and UC Merced Land Use (Yang & Newsam 2010; captions: Qu et al.
2016). Images and captions of these datasets are not included, but for the list of words.

## Limitations

Captions describe the subjects of the two datasets in their words, and are wrong for others; the
log-probability of a caption is no measure of truth. The captioner knows nothing of an image but its vector,
so small objects, counts and colours are guesses.
"""  # noqa: E501


def test_scores(
    captioner: Captioner, rsicd: Path, folder: Path
) -> dict[str, caption_protocol.CaptionEvaluation]:
    """The scores on RSICD test by decoding."""
    embedder = rsicd_embed.load_embedder()
    examples = captions.read(rsicd).examples
    train, test = ([e for e in examples if e.split == name] for name in ("train", "test"))
    (vectors,) = view_vectors(embedder, test, 1, folder)
    (train_vectors,) = view_vectors(embedder, train, 1, folder)
    baselines = {
        caption_protocol.NEAREST: caption_protocol.nearest_captions(vectors, train_vectors, train),
        caption_protocol.MOST_FREQUENT: [caption_protocol.most_frequent_caption(train)] * len(test),
    }
    references = [example.captions for example in test]
    return {
        name: caption_protocol.evaluate_captions(
            captioner.caption_vectors(vectors, decoding).texts, references, baselines, Bootstrap()
        )
        for name, decoding in DECODINGS.items()
    }


def table(scores: dict[str, caption_protocol.CaptionEvaluation]) -> str:
    """The figures as a Markdown table."""
    best = scores["beam 5"]
    nearest = best["baselines"][caption_protocol.NEAREST]
    heads = [*scores, *BASELINES.values(), "margin"]
    lines = ["| | " + " | ".join(heads) + " |", "| --- |" + " --- |" * len(heads)]
    for name in SHOWN:
        low, high = nearest["margin_intervals"][name]
        values = [scores[decoding]["metrics"][name] for decoding in scores]
        values += [best["baselines"][baseline]["metrics"][name] for baseline in BASELINES]
        shown = [*(f"{value:.3f}" for value in values)]
        shown.append(f"{nearest['margin'][name]:+.3f} ({low:+.3f} to {high:+.3f})")
        lines.append(f"| {name} | " + " | ".join(shown) + " |")
    return "\n".join(lines)


def seeds_line(seeds: list[dict[str, float]]) -> str:
    """The spread of the test figures over the seeds, by beam search."""
    if len(seeds) < 2:
        return ""
    parts = [
        f"{name} {min(s[name] for s in seeds):.3f} to {max(s[name] for s in seeds):.3f}"
        for name in ("bleu4", "rouge_l", "cider_d")
    ]
    return f" Over {len(seeds)} seeds with beam search: {', '.join(parts)}."


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--other-seed", type=Path, action="append", default=[])
    parser.add_argument("--rsicd", type=Path, required=True)
    parser.add_argument("--vectors", type=Path, required=True)
    parser.add_argument("--machine", required=True)
    parser.add_argument("--hours", type=float, required=True)
    options = parser.parse_args()
    parts = captioner_files.read(options.run / "best", "bundled")
    rows = [row for row in journal.read(options.run / "metrics.jsonl") if "cider_d" in row]
    settings = json.loads((options.run / "run.json").read_text())["settings"]
    best = max(rows, key=lambda row: row["cider_d"])

    def write(aside: Path) -> None:
        captioner_files.save(aside, parts, int8=True)
        scores = test_scores(
            loading_captioner.load_captioner(aside), options.rsicd, options.vectors
        )
        seeds: list[dict[str, Any]] = [scores["beam 5"]["metrics"]]
        for run in options.other_seed:
            other = loading_captioner.load_captioner(run)
            seeds.append(test_scores(other, options.rsicd, options.vectors)["beam 5"]["metrics"])
        decoder, arrays = parts.config.decoder, captioner_files.named_arrays(parts.params)
        text = README.format(
            prefix=parts.config.prefix, layers=decoder.layers, width=decoder.width,
            words=decoder.vocab_size - 2,
            parameters=sum(np.size(a) for a in arrays.values()) / 1e6,
            megabytes=(aside / int8_weights.FILE).stat().st_size / 1e6,
            images=10_624, epoch=best["epoch"], epochs=settings["epochs"], hours=options.hours,
            machine=options.machine, n=scores["beam 5"]["n"], table=table(scores),
            seeds=seeds_line(seeds),
        )  # fmt: skip
        (aside / "README.md").write_text(text, "utf-8")
        figures = {"settings": settings, "val": best, "RSICD test": scores, "seeds": seeds}
        (aside / "metrics.json").write_text(json.dumps(figures, indent=2) + "\n", "utf-8")
        print(text)

    replace_directory(OUT, write)


if __name__ == "__main__":
    main()
