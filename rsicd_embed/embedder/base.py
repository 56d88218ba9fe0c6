"""The interface of embedders, which map images and texts to vectors."""

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

CATEGORY = "{category}"  # where a text goes in a prompt
_MOST_LISTED = 5  # words in one warning


@runtime_checkable
class Embedder(Protocol):
    """Maps images and texts to unit vectors in one space.

    Methods named `embed_*` return float32 (n, dim) in input order: C-contiguous, finite, and
    L2-normalised to 1e-5. Empty input gives (0, dim).
    """

    @property
    def name(self) -> str:
        """Name of the model, as passed to `--model`."""
        ...

    @property
    def dim(self) -> int:
        """Length of a vector."""
        ...

    @property
    def fingerprint(self) -> str:
        """`str(records.Fingerprint)`, equal for embedders with comparable vectors."""
        ...

    @property
    def batch_size(self) -> int:
        """Recommended number of images per batch."""
        ...

    def preprocess(self, image: Image.Image) -> np.ndarray:
        """Converts an upright RGB image to uint8 (H, W, 3) of a fixed shape. Thread-safe."""
        ...

    def embed_pixels(self, pixels: np.ndarray) -> np.ndarray:
        """Embeds stacked results of `preprocess`: uint8 (n, H, W, 3) → float32 (n, dim)."""
        ...

    def embed_images(self, images: Iterable[ImageLike]) -> np.ndarray:
        """Embeds Pillow images, paths or bytes of image files: float32 (n, dim).

        Raises:
            ImageError: an image cannot be read; the message has its position.
            ArgumentError: `images` is a single image or path.
        """
        ...

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Embeds texts: float32 (n, dim). Texts longer than the context are cut.

        Raises:
            ArgumentError: `texts` is a single text.
        """
        ...


def require_texts(texts: object) -> None:
    """Raises ArgumentError for a single text, whose letters would be embedded one by one."""
    require_items(texts, "texts", str)


def require_images(images: object) -> None:
    """Raises ArgumentError for a single image, path or bytes object."""
    require_items(images, "images", get_args(ImageLike))


def require_embedder(embedder: object) -> None:
    """Raises ArgumentError for anything but an embedder, such as the name of a model."""
    methods = ("embed_images", "embed_texts", "fingerprint")
    require_object(embedder, methods, "an embedder", "rsicd_embed.load_embedder")


def provenance(embedder: Embedder) -> Provenance:
    """The provenance that a store records for an embedder's vectors."""
    return Provenance.of(embedder)


def engine_of(embedder: object) -> str | None:
    """The engine and precision that an embedder reports; None if it reports none."""
    engine = getattr(embedder, "engine", None)
    return engine if isinstance(engine, str) else None


@dataclass(frozen=True)
class UnfamiliarWord:
    """A word that is absent or rare in a model's training captions.

    Attributes:
        word: the word in lower case.
        images: number of training images whose captions contain the word.
    """

    word: str
    images: int


@runtime_checkable
class KnowsItsWords(Protocol):
    """Optional interface of embedders that know the words of their training captions."""

    def unfamiliar_words(self, texts: Sequence[str]) -> list[UnfamiliarWord]:
        """Distinct words of the texts that were absent or rare in training."""
        ...

    def near_words(self, word: str) -> tuple[str, ...]:
        """Familiar words or phrases of similar spelling or meaning, nearest first."""
        ...


def prompted_vectors(
    embedder: Embedder, texts: Sequence[str], templates: Sequence[str]
) -> np.ndarray:
    """float32 (texts, dim): the normalised mean of the unit vectors of each text's prompts.

    Args:
        embedder: embeds all prompts in one batch.
        texts: texts that replace `{category}`; other braces are kept.
        templates: at least one prompt.
    """
    prompts = [template.replace(CATEGORY, text) for template in templates for text in texts]
    vectors = embedder.embed_texts(prompts)
    if len(templates) == 1:
        return vectors
    mean = vectors.reshape(len(templates), len(texts), -1).mean(axis=0)
    unit: np.ndarray = mean / np.linalg.norm(mean, axis=1, keepdims=True)
    return unit


def word_warnings(embedder: object, texts: Sequence[str]) -> list[str]:
    """Warnings about query words that a model was not trained on.

    Args:
        embedder: any embedder; there are no warnings unless it implements `KnowsItsWords`.
        texts: the queries.

    Returns:
        At most one line about words that never occurred in training, and one about rare words.
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
    """Advice such as `; known words near it: port, boats`; empty without near words."""
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
    """Reads and preprocesses images on threads, in order.

    Args:
        images: Pillow images, paths or bytes of image files.
        preprocess: `Embedder.preprocess`.
        ahead: maximum number of results waiting to be consumed.

    Raises:
        ImageError: an image cannot be read; the message has its name and position.
        ArgumentError: `images` is a single image.
    """
    require_images(images)

    def read(item: tuple[int, ImageLike]) -> np.ndarray:
        position, image = item
        try:
            return preprocess(read_rgb(image))
        except ImageError as error:
            name = image if not isinstance(image, bytes | Image.Image) else "image"
            raise ImageError(f"{name} (number {position}): {error}") from error

    return ordered_map(read, enumerate(images), ahead=ahead)
