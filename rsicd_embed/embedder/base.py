"""What turns pictures and texts into vectors: the one interface of every embedder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, get_args, runtime_checkable

import numpy as np
from PIL import Image

from rsicd_embed.arguments import require_items, require_object
from rsicd_embed.errors import ImageError
from rsicd_embed.images import ImageLike, read_rgb
from rsicd_embed.parallel import ordered_map
from rsicd_embed.records import Provenance

_MOST_LISTED = 5  # words in one warning


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
    return Provenance.of(embedder)


@dataclass(frozen=True)
class UnfamiliarWord:
    """A word of a text that a model never saw in training, or hardly ever.

    Attributes:
        word: in lower case.
        images: number of training images whose captions contain it.
    """

    word: str
    images: int


@runtime_checkable
class KnowsItsWords(Protocol):
    """What an `Embedder` may have besides: it knows which words it was trained on."""

    def unfamiliar_words(self, texts: Sequence[str]) -> list[UnfamiliarWord]:
        """The words of some texts that it never saw in training or hardly ever, each once."""
        ...

    def near_words(self, word: str) -> tuple[str, ...]:
        """Familiar words or phrases of similar spelling or meaning, the nearest first."""
        ...


def word_warnings(embedder: object, texts: Sequence[str]) -> list[str]:
    """Lines that warn of words in queries that a model was not trained on.

    Args:
        embedder: any embedder; one that is not `KnowsItsWords` gives no warnings.
        texts: the queries.

    Returns:
        At most one line on words that never occurred in training, and one on rare ones.
    """
    if not isinstance(embedder, KnowsItsWords):
        return []
    words = embedder.unfamiliar_words(texts)
    unseen = [word for word in words if not word.images]
    rare = [word for word in words if word.images]
    lines = []
    if unseen:
        listed = _listed([f"{word.word!r}" for word in unseen])
        lines.append(
            f"{listed} never occurred in this model's training captions, so the ranking may be "
            f"meaningless{_advice(embedder, unseen)}"
        )
    if rare:
        listed = _listed([f"{word.word!r} ({word.images})" for word in rare])
        lines.append(
            f"few of this model's training images have {listed} in their captions, so the ranking "
            f"may be poor{_advice(embedder, rare)}"
        )
    return lines


def _listed(words: list[str]) -> str:
    more = len(words) - _MOST_LISTED
    return ", ".join(words[:_MOST_LISTED]) + (f" and {more} more" if more > 0 else "")


def _advice(embedder: KnowsItsWords, words: Sequence[UnfamiliarWord]) -> str:
    """`; known words near it: port, boats`; nothing where none is near."""
    near = {word.word: embedder.near_words(word.word) for word in words[:_MOST_LISTED]}
    known = {word: ", ".join(others) for word, others in near.items() if others}
    if not known:
        return ""
    if len(words) == 1:
        return f"; known words near it: {known[words[0].word]}"
    listed = "; ".join(f"{word!r}: {others}" for word, others in known.items())
    return f"; known words near {listed}"


def read_pixels(
    images: Iterable[ImageLike], preprocess: Callable[[Image.Image], np.ndarray], *, ahead: int
) -> Iterator[np.ndarray]:
    """What `preprocess` makes of each image, in order; at most `ahead` of them wait.

    Raises:
        ImageError: one of them cannot be read; its name and position are told.
        ArgumentError: a single image instead of several.
    """
    require_images(images)

    def read(item: tuple[int, ImageLike]) -> np.ndarray:
        position, image = item
        try:
            return preprocess(read_rgb(image))
        except ImageError as error:
            what = image if not isinstance(image, bytes | Image.Image) else "image"
            raise ImageError(f"{what} (number {position}): {error}") from error

    return ordered_map(read, enumerate(images), ahead=ahead)
