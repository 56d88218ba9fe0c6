"""What turns pictures and texts into vectors: the one interface of every embedder."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol, get_args, runtime_checkable

import numpy as np
from PIL import Image

from rsicd_embed.arguments import require_items, require_object
from rsicd_embed.images import ImageLike
from rsicd_embed.records import Provenance


@runtime_checkable
class Embedder(Protocol):
    """Maps pictures and texts to unit vectors of one space.

    Every method that embeds returns float32 (n, dim), C-contiguous, finite, L2-normalised to 1e-5,
    in input order; (0, dim) for no input.
    """

    @property
    def name(self) -> str:
        """As `--model` takes it."""
        ...

    @property
    def dim(self) -> int:
        """Length of a vector."""
        ...

    @property
    def fingerprint(self) -> str:
        """`str(records.Fingerprint)`; equal where vectors may be compared."""
        ...

    @property
    def batch_size(self) -> int:
        """How many images are best embedded at once."""
        ...

    def preprocess(self, image: Image.Image) -> np.ndarray:
        """An upright RGB picture → uint8 (H, W, 3), always of one shape. Safe in many threads."""
        ...

    def embed_pixels(self, pixels: np.ndarray) -> np.ndarray:
        """What `preprocess` gave, stacked: uint8 (n, H, W, 3) → float32 (n, dim)."""
        ...

    def embed_images(self, images: Iterable[ImageLike]) -> np.ndarray:
        """Pictures, paths or the bytes of files → float32 (n, dim).

        Raises:
            ImageError: one of them cannot be read; its position is named.
            ArgumentError: a single image or path, which belongs in a list.
        """
        ...

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Texts → float32 (n, dim); one longer than the context is cut.

        Raises:
            ArgumentError: a single text, which belongs in a list.
        """
        ...


def require_texts(texts: object) -> None:
    """Refuses a single text, whose letters would be embedded one by one; ArgumentError."""
    require_items(texts, "texts", str)


def require_images(images: object) -> None:
    """Refuses a single image, path or the bytes of one; ArgumentError."""
    require_items(images, "images", get_args(ImageLike))


def require_embedder(embedder: object) -> None:
    """Refuses the name of a model, say, in the place of an embedder; ArgumentError."""
    methods = ("embed_images", "embed_texts", "fingerprint")
    require_object(embedder, methods, "an embedder", "rsicd_embed.load_embedder")


def provenance(embedder: Embedder) -> Provenance:
    """What a store remembers of the embedder that made its vectors."""
    return Provenance(embedder.name, embedder.fingerprint, embedder.dim)
