"""The float32 matrix product, as fast as NumPy's and PyTorch's libraries do it: the peak."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from rsicd_embed.parallel import cpu_count
from rsicd_embed.reports.timing import sample

LIBRARIES = ("numpy", "torch")
# Environment variables that make a library take older kernels than the processor has. They are
# unset where the peak is measured: with OPENBLAS_CORETYPE=Haswell, as some machines are set up, an
# AVX-512 processor reaches half its peak, and a model would seem to exceed it.
SLOWER = (
    *("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "MKL_ENABLE_INSTRUCTIONS", "MKL_CBWR"),
    *("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY"),
)


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


class Products:
    """A library, and pairs of random matrices whose product it is timed at."""

    def __init__(self, library: str, shapes: Sequence[Shape]) -> None:
        self._run = {shape: _product(library, shape) for shape in shapes}

    def sample(self, shape: Shape, calls: int) -> int:
        """Nanoseconds that `calls` products take."""
        return sample(self._run[shape], calls)


def installed() -> list[str]:
    """Those of LIBRARIES that are there."""
    return [name for name in LIBRARIES if importlib.util.find_spec(name)]


def _product(library: str, shape: Shape) -> Callable[[], object]:
    draw = np.random.default_rng(0)
    one = draw.standard_normal((shape.m, shape.k), np.float32)
    other = draw.standard_normal((shape.k, shape.n), np.float32)
    if library == "torch":
        import torch

        torch.set_num_threads(cpu_count())
        out = torch.empty((shape.m, shape.n))
        return partial(torch.mm, torch.from_numpy(one), torch.from_numpy(other), out=out)
    return partial(np.matmul, one, other, out=np.empty((shape.m, shape.n), np.float32))
