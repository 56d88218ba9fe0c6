"""Floating-point operations per image, and the measured peak of a float32 matrix product.

The counts are compared with the peak of matrix products. They therefore leave out norms,
activations, softmax, pooling and residuals.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from rsicd_embed.parallel import cpu_count
from rsicd_embed.reports.timing import sample

# Environment variables that make a library use older kernels than the CPU supports. They are unset
# while the peak is measured: with OPENBLAS_CORETYPE=Haswell, which some machines set, an AVX-512
# CPU reaches half its peak, and a model would appear to exceed it.
LIMITING_VARIABLES = (
    *("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "MKL_ENABLE_INSTRUCTIONS", "MKL_CBWR"),
    *("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY"),
)


@dataclass(frozen=True)
class ImageTower:
    """A ViT with a class token and a projection.

    Attributes:
        image_size, patch_size: sides of the square image and of its patches, in pixels.
        width: width of a token.
        layers: number of blocks.
        mlp_width: width of a block's hidden layer.
        dim: length of the embedding.
    """

    image_size: int
    patch_size: int
    width: int
    layers: int
    mlp_width: int
    dim: int

    @property
    def tokens(self) -> int:
        """Number of patches, plus the class token."""
        return (self.image_size // self.patch_size) ** 2 + 1

    @property
    def product(self) -> tuple[int, int, int]:
        """The largest matrix product: rows per image, inner and outer side."""
        return self.tokens, self.width, self.mlp_width

    @property
    def flops(self) -> int:
        """Operations of an image's matrix products; a multiply-add counts as two.

        With t tokens, patch side p in pixels, width w, hidden width h, embedding d and L layers:

            patches     2 · (t - 1) · 3p² · w
            per layer   8 · t · w²  (query, key, value, out)  +  4 · t² · w  (attention)
                        + 4 · t · w · h  (up, down)
            projection  2 · w · d

        Example:
            >>> ImageTower(224, 32, 768, 12, 3072, 512).flops / 1e9  # ViT-B/32
            8.81762304
        """
        t, w, h = self.tokens, self.width, self.mlp_width
        patches = 2 * (t - 1) * 3 * self.patch_size**2 * w
        layer = 8 * t * w**2 + 4 * t**2 * w + 4 * t * w * h
        return patches + self.layers * layer + 2 * w * self.dim


@dataclass(frozen=True)
class ConvolutionalTower:
    """Convolutions, the mean of the last feature map, and a projection.

    Attributes:
        image_size: side of the square image in pixels.
        convolutions: each as a matrix product: positions of the output map, elements of a kernel
            (inputs · side²), outputs.
        dim: length of the embedding.
    """

    image_size: int
    convolutions: tuple[tuple[int, int, int], ...]
    dim: int

    @property
    def product(self) -> tuple[int, int, int]:
        """The largest matrix product: rows per image, inner and outer side."""
        return max(self.convolutions, key=math.prod)

    @property
    def flops(self) -> int:
        """Operations of an image's matrix products; a multiply-add counts as two."""
        width = self.convolutions[-1][-1]
        return 2 * sum(map(math.prod, self.convolutions)) + 2 * width * self.dim


Tower = ImageTower | ConvolutionalTower


@dataclass(frozen=True)
class MatmulShape:
    """Shape of a matrix product: (m, k) by (k, n)."""

    m: int
    k: int
    n: int

    @property
    def flops(self) -> int:
        """Operations of a product; a multiply-add counts as two."""
        return 2 * self.m * self.k * self.n

    def __str__(self) -> str:
        return f"{self.m}×{self.k}×{self.n}"


class Products:
    """Products of random matrices in one library, ready to be timed."""

    def __init__(self, library: str, shapes: Sequence[MatmulShape]) -> None:
        self._run = {shape: _product(library, shape) for shape in shapes}

    def sample(self, shape: MatmulShape, calls: int) -> int:
        """Nanoseconds for `calls` products."""
        return sample(self._run[shape], calls)


def blas_libraries() -> list[str]:
    """The libraries whose matrix product is timed, as far as they are installed."""
    return [name for name in ("numpy", "torch") if importlib.util.find_spec(name)]


def _product(library: str, shape: MatmulShape) -> Callable[[], object]:
    random = np.random.default_rng(0)
    left = random.standard_normal((shape.m, shape.k), np.float32)
    right = random.standard_normal((shape.k, shape.n), np.float32)
    if library == "torch":
        import torch

        torch.set_num_threads(cpu_count())
        out = torch.empty((shape.m, shape.n))
        return partial(torch.mm, torch.from_numpy(left), torch.from_numpy(right), out=out)
    return partial(np.matmul, left, right, out=np.empty((shape.m, shape.n), np.float32))
