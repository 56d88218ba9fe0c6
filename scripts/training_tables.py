"""Tables of docs/training.md about augmentation and distillation, from the logs of runs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_DOCS = Path(__file__).parents[1] / "docs"
_ARMS = {"none": "none", "images": "images", "images-captions": "images and captions"}
_TAUGHT = {"alone": "the captions", "taught": "the captions and a teacher"}


def arms() -> str:
    """The last epoch of each arm, and the epoch with the lowest val loss."""
    return "\n".join(_arms()) + "\n"


def teacher() -> str:
    """The last epoch of a student with and without a teacher."""
    return "\n".join(_teacher()) + "\n"


def _arms() -> Iterator[str]:
    yield "| augmentation | train loss | val loss | least val loss | zero-shot top-1 | mR |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for name, words in _ARMS.items():
        rows = _rows("arms", name)
        last, least = rows[-1], min(rows, key=lambda row: float(row["val_loss"]))
        yield (
            f"| {words} | {last['loss']:.2f} | {last['val_loss']:.2f} | "
            f"{least['val_loss']:.2f}, epoch {least['epoch']} of {last['epoch']} | "
            f"{last['zeroshot_top1']:.3f} | {last['mr']:.3f} |"
        )


def _teacher() -> Iterator[str]:
    yield "| learns from | epochs | val loss | zero-shot top-1 | mR |"
    yield "| --- | --- | --- | --- | --- |"
    for name, words in _TAUGHT.items():
        last = _rows("distillation", name)[-1]
        yield (
            f"| {words} | {last['epoch']} | {last['val_loss']:.2f} | "
            f"{last['zeroshot_top1']:.3f} | {last['mr']:.3f} |"
        )


def _rows(folder: str, name: str) -> list[dict[str, Any]]:
    text = (_DOCS / folder / f"{name}.jsonl").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in text.splitlines()]
    return [row for row in rows if row["epoch"]]  # epoch 0 is the model before training
