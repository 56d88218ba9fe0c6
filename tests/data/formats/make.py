"""Writes the files beside this script, with the installed version: `python make.py FOLDER`.

FOLDER is new. Everything is made from generated pictures by a CLIP of random weights, small enough
to commit: stores of each kind with a tag, a file of rows, one of vectors, records of a benchmark
and an evaluation, and a training run that was stopped after its first epoch. `expected.json` has
what the commands answered. Never run it again for a folder that is committed: what it wrote stands
for files that users of that version have.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx
from PIL import Image

from rsicd_embed.embedder import export_model
from rsicd_embed.embedder.clip.config import ClipConfig, TowerConfig
from rsicd_embed.embedder.clip.model import Clip
from rsicd_embed.embedder.preprocess import Preprocessor
from rsicd_embed.train.initialization import learn_vocabulary

COLOURS = {"desert": (230, 190, 100), "forest": (20, 90, 20), "sea": (20, 60, 160)}
SHAPE = ClipConfig(
    vision=TowerConfig(16, 1, 2, 32),
    text=TowerConfig(16, 1, 2, 32),
    dim=8,
    image_size=16,
    patch_size=8,
    vocab_size=600,
    context_length=32,
    eos_token_id=599,
)
TRAIN = (
    "train", "--dataset", "images", "--init", "model", "--out", "run", "--set", "epochs=4",
    "--set", "batch_size=8", "--set", "eval_every=1", "--set", "optimizer.learning_rate=0.001",
    "--set", "data.workers=0",
)  # fmt: skip
SCHEMES = ("exact", "nmslib", "lancedb")
QUESTIONS = {
    "info": ("info",),
    "search": ("search", "a forest", "-k", "4"),
    "filtered": ("search", "the sea", "-k", "9", "--where", "level > 3 AND box['left'] >= 2"),
    "as_of": ("search", "a forest", "-k", "20", "--as-of", "first"),
    "sql": ("sql", "SELECT id, label, level, share, taken, tags, box FROM images ORDER BY id"),
    "tags": ("store", "tags"),
}


def command(*arguments: str) -> list[str]:
    """`rsicd-embed ARGUMENTS` by this interpreter."""
    return [sys.executable, "-c", "from rsicd_embed.cli import main; main()", *arguments]


def answer(*arguments: str) -> Any:
    """The JSON document that a command prints."""
    done = subprocess.run(command(*arguments, "--json"), capture_output=True, check=True)
    return json.loads(done.stdout)


def write_pictures() -> None:
    """Three classes of colours in the layout of RSICD, and two manifests of them."""
    Path("images").mkdir()
    draw, entries, rows = np.random.default_rng(0), [], []
    for label, colour in COLOURS.items():
        for i in range(6):
            name = f"{label}_{i}.png"
            noisy = np.clip(draw.normal(colour, 25, (16, 16, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(noisy).save(Path("images", name))
            sentences = [{"raw": f"there is a {label} ."}, {"raw": f"a {label} number {i} ."}]
            split = "val" if i < 2 else "train"
            entries.append({"filename": name, "split": split, "sentences": sentences})
            rows.append(
                {
                    "path": f"images/{name}",
                    "label": label,
                    "level": i,
                    "share": i / 8 if i else None,
                    "tags": [label, "x"] if i % 2 else [],
                    "box": {"left": i, "top": 0.5} if i != 4 else None,
                    "taken": f"2020-01-0{i + 1}T10:00:00",
                }
            )
    Path("images", "dataset_toy.json").write_text(json.dumps({"images": entries}))
    for name, part in {"first.jsonl": rows[:9], "all.jsonl": rows}.items():
        Path(name).write_text("".join(json.dumps(row) + "\n" for row in part))


def write_model() -> None:
    """A CLIP of random weights."""
    texts = [f"there is a {label} . a {label} number {i} ." for label in COLOURS for i in range(6)]
    params = nnx.state(Clip(SHAPE, rngs=nnx.Rngs(0)))
    pixels = Preprocessor(16, (16, 16))
    tokens = learn_vocabulary(texts, SHAPE.vocab_size)
    export_model.save(Path("model"), SHAPE, params, tokens, pixels)


def write_run() -> None:
    """A training run, stopped after its first epoch."""
    run = subprocess.Popen(command(*TRAIN))
    while not Path("run", "metrics.jsonl").exists():
        time.sleep(0.01)
    run.send_signal(signal.SIGTERM)
    if run.wait() != 1:
        sys.exit("the run ended before it could be stopped; try again")


def main() -> None:
    """Writes everything into a new folder."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True)
    os.chdir(folder)
    write_pictures()
    write_model()
    expected: dict[str, Any] = {}
    for scheme in SCHEMES:
        store = ("--store", f"{scheme}:{scheme}")
        answer("ingest", "first.jsonl", *store, "--model", "model")
        subprocess.run(command("store", "tag", "first", *store), check=True)
        answer("ingest", "all.jsonl", *store, "--model", "model")
        expected[scheme] = {name: answer(*ask, *store) for name, ask in QUESTIONS.items()}
    answer("export", "--store", "exact:exact", "-o", "rows.parquet")
    answer("embed", "images", "--model", "model", "-o", "vectors.parquet")
    answer(
        "bench", "ann", "--rows", "300", "--dim", "8", "--stores", "exact", "--queries", "20",
        "--rounds", "2", "--no-sweep", "--against", "none", "-o", "bench-ann",
    )  # fmt: skip
    answer("eval", "zeroshot", "--dataset", "images", "--split", "val", "--model", "model",
           "-o", "eval-zeroshot")  # fmt: skip
    write_run()
    for path in [*Path().glob("*/*.html"), *Path().glob("*/*.png")]:
        if path.parent.name != "images":
            path.unlink()
    Path("expected.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    main()
