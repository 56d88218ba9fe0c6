"""The float32 matrix product, as fast as NumPy's and PyTorch's libraries do it: the peak."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from rsicd_embed.bench.timing import sample
from rsicd_embed.parallel import cpu_count

LIBRARIES = ("numpy", "torch")


@dataclass(frozen=True)
class Shape:
    """(m, k) by (k, n)."""

    m: int
    k: int
    n: int

    @property
    def flops(self) -> int:
        """Operations of a product, two for a multiply-add."""
        return 2 * self.m * self.k * self.n

    def __str__(self) -> str:
        return f"{self.m}×{self.k}×{self.n}"


class Product:
    """Two random matrices whose product is timed."""

    def __init__(self, library: str, shape: Shape) -> None:
        draw = np.random.default_rng(0)
        one = draw.standard_normal((shape.m, shape.k), np.float32)
        other = draw.standard_normal((shape.k, shape.n), np.float32)
        self._run: Callable[[], object]
        if library == "torch":
            import torch

            torch.set_num_threads(cpu_count())
            a, b = torch.from_numpy(one), torch.from_numpy(other)
            self._run = partial(torch.mm, a, b, out=torch.empty((shape.m, shape.n)))
        else:
            out = np.empty((shape.m, shape.n), np.float32)
            self._run = partial(np.matmul, one, other, out=out)

    def sample(self, calls: int) -> int:
        """Nanoseconds that `calls` products take."""
        return sample(self._run, calls)


def candidates(shapes: list[Shape]) -> dict[str, tuple[Shape, Callable[[], Product]]]:
    """Every shape with every library that is installed, by name."""
    installed = [name for name in LIBRARIES if importlib.util.find_spec(name)]
    return {
        f"sgemm {library} {shape}": (shape, partial(Product, library, shape))
        for library in installed
        for shape in shapes
    }
