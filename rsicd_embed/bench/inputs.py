"""What benchmarks embed: generated pixels and texts, the same for the same seed."""

from __future__ import annotations

import random

import numpy as np

_GRID = 6
_KINDS = ("airport", "beach", "bridge", "farmland", "forest", "harbour", "river", "stadium")
_SURROUNDINGS = ("a road", "bare land", "green trees", "many buildings", "some boats", "the sea")


def pixels(n: int, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """uint8 (n, height, width, 3): blocks of random colours under noise, so that no two are alike.

    Example:
        >>> pixels(2, (7, 9, 3)).shape
        (2, 7, 9, 3)
    """
    height, width, channels = shape
    draw = np.random.default_rng(seed)
    blocks = draw.integers(16, 240, (n, _GRID, _GRID, channels), dtype=np.int16)
    rows, columns = (np.arange(side) * _GRID // side for side in (height, width))
    noise = draw.integers(-16, 16, (n, height, width, channels), dtype=np.int16)
    return (blocks[:, rows][:, :, columns] + noise).astype(np.uint8)


def texts(n: int, seed: int = 0) -> list[str]:
    """Captions of about five to fifteen words.

    Example:
        >>> texts(1)
        ['a stadium near many buildings and a road and green trees and the sea']
    """
    draw = random.Random(seed)
    found = []
    for _ in range(n):
        near = " and ".join(draw.sample(_SURROUNDINGS, draw.randint(1, 4)))
        found.append(f"a {draw.choice(_KINDS)} near {near}")
    return found
