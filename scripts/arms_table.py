"""What docs/training.md says of augmentation, from the log of `train arms`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "docs" / "arms"
_ARMS = {"none": "none", "images": "images", "images-captions": "images and captions"}


def section() -> str:
    """The last epoch of each arm, and when its loss on val was least."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield "| augmentation | train loss | val loss | least val loss | zero-shot top-1 | mR |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for name, words in _ARMS.items():
        text = (FOLDER / f"{name}.jsonl").read_text(encoding="utf-8")
        rows = [json.loads(line) for line in text.splitlines()]
        last, least = rows[-1], min(rows, key=lambda row: float(row["val_loss"]))
        yield (
            f"| {words} | {last['loss']:.2f} | {last['val_loss']:.2f} | "
            f"{least['val_loss']:.2f}, epoch {least['epoch']} of {last['epoch']} | "
            f"{last['zeroshot_top1']:.3f} | {last['mr']:.3f} |"
        )
