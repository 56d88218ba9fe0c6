"""How many operations an image costs, from the shape of its tower alone.

Norms, activations, softmax, pooling and residuals are not counted: they are no matrix products, and
the figures are there to be compared with the peak of those.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class ImageTower:
    """A ViT with a class token and a projection.

    Attributes:
        image_size, patch_size: sides of the square picture and of its patches, in pixels.
        width: of a token.
        layers: number of blocks.
        mlp_width: of a block's hidden layer.
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
        """Patches and the class token."""
        return (self.image_size // self.patch_size) ** 2 + 1

    @property
    def product(self) -> tuple[int, int, int]:
        """Rows an image, inner and outer side of the largest matrix product."""
        return self.tokens, self.width, self.mlp_width

    @property
    def flops(self) -> int:
        """Floating-point operations of an image's matrix products, two for a multiply-add.

        With t tokens, p pixels a patch side, width w, hidden width h, embedding d and L layers:

            patches     2 · (t - 1) · 3p² · w
            a layer     8 · t · w²  (query, key, value, out)  +  4 · t² · w  (attention)
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
    """Convolutions, their last map's mean, and a projection.

    Attributes:
        image_size: side of the square picture in pixels.
        convolutions: each as the matrix product that it is: positions of the map it makes, elements
            of a kernel (inputs · side²), outputs.
        dim: length of the embedding.
    """

    image_size: int
    convolutions: tuple[tuple[int, int, int], ...]
    dim: int

    @property
    def product(self) -> tuple[int, int, int]:
        """Rows an image, inner and outer side of the largest matrix product."""
        return max(self.convolutions, key=math.prod)

    @property
    def flops(self) -> int:
        """Floating-point operations of an image's matrix products, two for a multiply-add."""
        width = self.convolutions[-1][-1]
        return 2 * sum(map(math.prod, self.convolutions)) + 2 * width * self.dim


Tower = ImageTower | ConvolutionalTower
