"""Writes the training words of a model that was trained before `train` recorded them.

    python scripts/write_training_words.py --model rsicd_embed/embedder/bundled \
        --dataset PATH/TO/rsicd --dataset PATH/TO/ucm

Settings that affect captions are read from `training_run.json` or, for a run's `best` folder, from
the `run.json` above it. The list is correct only if the text tower was trained from scratch.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from rsicd_embed.embedder.training_words import FILE
from rsicd_embed.errors import RsicdEmbedError
from rsicd_embed.train.input.caption_draws import trained_words
from rsicd_embed.train.input.training_data import training_source


def settings_of(model: Path) -> dict[str, object]:
    """Reads the settings of the run that trained a model."""
    for path in (model / "training_run.json", model.parent / "run.json"):
        if path.is_file():
            settings: dict[str, object] = json.loads(path.read_text(encoding="utf-8"))["settings"]
            return settings
    sys.exit(f"error: expected training_run.json in {model} or run.json above it, found neither")


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="a model directory")
    parser.add_argument("--dataset", type=Path, required=True, action="append")
    options = parser.parse_args()
    settings = settings_of(options.model)
    try:
        data = training_source(
            [(path, 1.0) for path in options.dataset],
            augmented_captions=settings["data.augmented_captions"] is True,
        )
    except RsicdEmbedError as error:
        sys.exit(f"error: {error}")
    words = trained_words(data.train, settings["data.class_captions"] != 0)
    words.write(options.model)
    print(f"{options.model / FILE}: {len(words.images):,} words of {len(data.train):,} images")


if __name__ == "__main__":
    main()
