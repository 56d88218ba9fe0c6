"""JPEG files to ingest, generated: sizes and detail as photographs have them, content random."""

from __future__ import annotations

import os
import shutil
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from rsicd_embed.parallel import ordered_map

# Cells a side of the random grids that are laid over one another, and how strong each is.
_OCTAVES = ((4, 48.0), (16, 32.0), (64, 20.0), (256, 10.0))
_QUALITY = 85
_A_FOLDER = 1000


def write(
    folder: Path, n: int, sides: tuple[int, int], *, seed: int = 0, distinct: int = 256
) -> None:
    """Writes `n` square JPEGs below `folder`, with sides evenly spread over `sides`, ends included.

    Only the first `distinct` are made; the others are the same files under other names (hard links,
    or copies where there are none), which an ingest reads and embeds like any other.
    """
    made = min(n, distinct)
    paths = [folder / f"{i // _A_FOLDER:03d}" / f"{i:06d}.jpg" for i in range(n)]
    for parent in dict.fromkeys(path.parent for path in paths):
        parent.mkdir(parents=True, exist_ok=True)
    spread = np.linspace(*sides, made).round().astype(int)
    np.random.default_rng(seed).shuffle(spread)
    save = partial(_save, seed=seed)
    for _ in ordered_map(save, zip(paths[:made], spread.tolist(), strict=True), ahead=made):
        pass
    for i in range(made, n):
        _same(paths[i % made], paths[i])


def picture(side: int, seed: int) -> Image.Image:
    """A square RGB picture with detail at every scale."""
    draw = np.random.default_rng(seed)
    sum_ = np.full((side, side, 3), 128.0, np.float32)
    for cells, strength in _OCTAVES:
        grid = draw.integers(0, 256, (min(cells, side),) * 2 + (3,), dtype=np.uint8)
        laid = Image.fromarray(grid).resize((side, side), Image.Resampling.BICUBIC)
        sum_ += (np.asarray(laid, np.float32) / 128 - 1) * strength
    return Image.fromarray(sum_.clip(0, 255).astype(np.uint8))


def _save(item: tuple[Path, int], *, seed: int) -> None:
    path, side = item
    picture(side, seed * 1_000_003 + int(path.stem)).save(path, quality=_QUALITY)


def _same(original: Path, path: Path) -> None:
    try:
        os.link(original, path)
    except OSError:  # no hard links here, or too many to this file
        shutil.copyfile(original, path)
