"""Generated inputs: pixels, captions, and JPEG files. The same seed gives the same inputs."""

from __future__ import annotations

import os
import random
import shutil
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from rsicd_embed.parallel import ordered_map

_BLOCKS = 6
_KINDS = ("airport", "beach", "bridge", "farmland", "forest", "harbour", "river", "stadium")
_SURROUNDINGS = ("a road", "bare land", "green trees", "many buildings", "some boats", "the sea")
# Grids of random colours that are added up: cells per side, and strength.
_OCTAVES = ((4, 48.0), (16, 32.0), (64, 20.0), (256, 10.0))
_QUALITY = 85
_FILES_PER_FOLDER = 1000


def pixels(n: int, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """uint8 (n, height, width, 3): blocks of random colours with noise, all different.

    Example:
        >>> pixels(2, (7, 9, 3)).shape
        (2, 7, 9, 3)
    """
    height, width, channels = shape
    draw = np.random.default_rng(seed)
    blocks = draw.integers(16, 240, (n, _BLOCKS, _BLOCKS, channels), dtype=np.int16)
    rows, columns = (np.arange(side) * _BLOCKS // side for side in (height, width))
    noise = draw.integers(-16, 16, (n, height, width, channels), dtype=np.int16)
    return (blocks[:, rows][:, :, columns] + noise).astype(np.uint8)


def texts(n: int, seed: int = 0) -> list[str]:
    """Captions of about five to fifteen words.

    Example:
        >>> texts(1)
        ['a stadium near many buildings and a road and green trees and the sea']
    """
    draw = random.Random(seed)
    captions = []
    for _ in range(n):
        near = " and ".join(draw.sample(_SURROUNDINGS, draw.randint(1, 4)))
        captions.append(f"a {draw.choice(_KINDS)} near {near}")
    return captions


def write_jpegs(
    folder: Path, n: int, sides: tuple[int, int], *, seed: int = 0, distinct: int = 256
) -> None:
    """Writes `n` square JPEGs below `folder`, their sides spread evenly over `sides` (inclusive).

    Size and detail are like those of photographs. Only the first `distinct` are generated; the
    others are hard links to them (or copies), which an ingest reads and embeds like any other file.
    """
    generated = min(n, distinct)
    paths = [folder / f"{i // _FILES_PER_FOLDER:03d}" / f"{i:06d}.jpg" for i in range(n)]
    for parent in dict.fromkeys(path.parent for path in paths):
        parent.mkdir(parents=True, exist_ok=True)
    spread = np.linspace(*sides, generated).round().astype(int)
    np.random.default_rng(seed).shuffle(spread)
    save = partial(_save, seed=seed)
    sized = zip(paths[:generated], spread.tolist(), strict=True)
    for _ in ordered_map(save, sized, ahead=generated):
        pass
    for i in range(generated, n):
        original = paths[i % generated]
        try:
            os.link(original, paths[i])
        except OSError:  # hard links are not supported, or there are too many
            shutil.copyfile(original, paths[i])


def _save(item: tuple[Path, int], *, seed: int) -> None:
    path, side = item
    image(side, seed * 1_000_003 + int(path.stem)).save(path, quality=_QUALITY)


def image(side: int, seed: int) -> Image.Image:
    """A square RGB image with detail at every scale."""
    draw = np.random.default_rng(seed)
    total = np.full((side, side, 3), 128.0, np.float32)
    for cells, strength in _OCTAVES:
        grid = draw.integers(0, 256, (min(cells, side),) * 2 + (3,), dtype=np.uint8)
        scaled = Image.fromarray(grid).resize((side, side), Image.Resampling.BICUBIC)
        total += (np.asarray(scaled, np.float32) / 128 - 1) * strength
    return Image.fromarray(total.clip(0, 255).astype(np.uint8))
