"""How many operations an image costs, from the shape of its tower alone."""

from __future__ import annotations

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
    def flops(self) -> int:
        """Floating-point operations of an image's matrix products, two for a multiply-add.

        With t tokens, p pixels a patch side, width w, hidden width h, embedding d and L layers:

            patches     2 · (t - 1) · 3p² · w
            a layer     8 · t · w²  (query, key, value, out)  +  4 · t² · w  (attention)
                        + 4 · t · w · h  (up, down)
            projection  2 · w · d

        Norms, activations, softmax and residuals are not counted: they are no matrix products, and
        the figure is there to be compared with the peak of those.

        Example:
            >>> ImageTower(224, 32, 768, 12, 3072, 512).flops / 1e9  # ViT-B/32
            8.81762304
        """
        t, w, h = self.tokens, self.width, self.mlp_width
        patches = 2 * (t - 1) * 3 * self.patch_size**2 * w
        layer = 8 * t * w**2 + 4 * t**2 * w + 4 * t * w * h
        return patches + self.layers * layer + 2 * w * self.dim
