"""Reading, decoding and embedding of images, by this process or by workers elsewhere."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import numpy as np

from rsicd_embed.datasets.base import ETAG, Example, Skipped, why_missing
from rsicd_embed.embedder.base import Embedder, engine_of, provenance
from rsicd_embed.errors import ImageError, RemoteAccessError, RemoteError
from rsicd_embed.images import (
    Picture,
    SceneWindow,
    TableCell,
    TarMember,
    read_bytes,
    read_picture,
)
from rsicd_embed.indexing.reconcile import KnownRows
from rsicd_embed.indexing.stages import Stages
from rsicd_embed.parallel import cpu_count, ordered_map
from rsicd_embed.records import Provenance
from rsicd_embed.remote import THREADS, Reservation, fetch, is_remote


@dataclass(frozen=True)
class Loaded:
    """A new or changed image.

    Attributes:
        array: its preprocessed pixels, uint8 (H, W, 3); or its vector, float32 (dim,), if remote
            workers have embedded it.
        stretched: whether its samples were scaled to 8 bits (see `images.Picture.stretch`).
        replaces: whether the store has a row with this id.
    """

    example: Example
    uri: str
    sha256: str
    array: np.ndarray
    width: int
    height: int
    stretched: bool = False
    replaces: bool = False


# What becomes of an image: new, unchanged, unreadable, or a tile with too little data.
Outcome = Loaded | Example | Skipped | None


class ImageWorkers(Protocol):
    """Turns images into vectors, for a process that writes them to a store."""

    @property
    def provenance(self) -> Provenance:
        """What a store records about the model."""
        ...

    @property
    def batch_size(self) -> int:
        """Number of images that are embedded together."""
        ...

    @property
    def engine(self) -> str | None:
        """Engine and precision of the model, if known."""
        ...

    def outcomes(
        self, examples: Sequence[Example], known: KnownRows, max_nodata: float, stages: Stages
    ) -> Iterator[Outcome]:
        """Reads images, in order.

        Args:
            examples: the images.
            known: the store's rows of these images.
            max_nodata: tiles with a larger share of missing data are left out.
            stages: measures the stages.

        Raises:
            RemoteAccessError: a bucket or the credentials are refused, so all images would be.
        """
        ...

    def vectors(self, images: Sequence[Loaded]) -> np.ndarray:
        """The vectors of images: float32 (n, dim)."""
        ...


class LocalWorkers:
    """Reads images on threads of this process, which embeds them."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self.provenance, self.batch_size = provenance(embedder), embedder.batch_size
        self.engine = engine_of(embedder)

    def outcomes(
        self, examples: Sequence[Example], known: KnownRows, max_nodata: float, stages: Stages
    ) -> Iterator[Outcome]:
        """See `ImageWorkers`."""
        loader = _Loader(self._embedder, max_nodata, stages)
        return ordered_map(
            partial(loader.load, known=known),
            examples,
            ahead=4 * self.batch_size,
            threads=THREADS if any(is_remote(example.file) for example in examples) else None,
        )

    def vectors(self, images: Sequence[Loaded]) -> np.ndarray:
        """See `ImageWorkers`."""
        return self._embedder.embed_pixels(np.stack([image.array for image in images]))


class _Loader:
    """Reads and preprocesses images on threads."""

    def __init__(self, embedder: Embedder, max_nodata: float, stages: Stages) -> None:
        self._embedder, self._max_nodata, self._stages = embedder, max_nodata, stages
        # More threads than processors wait for remote images; only as many decode them.
        self._processors = threading.BoundedSemaphore(cpu_count())

    def load(self, example: Example, known: KnownRows) -> Outcome:
        """Reads an image; returns the example if the store has the same bytes, and None for a tile
        with too little data.

        Raises:
            RemoteAccessError: a bucket or the credentials are refused, so all images would be.
        """
        try:
            if SceneWindow.parse(example.file):
                return self._load_window(example, known)
            with Reservation() as reservation:
                with self._stages("read"):
                    read = self._read(example, known, reservation)
                if isinstance(read, Example):
                    return read
                example, data = read
                sha256 = hashlib.sha256(data).hexdigest()
                if known.sha256(example.id) == sha256:
                    return example
                with self._processors:
                    with self._stages("decode"):
                        picture = read_picture(data)
                    return self._loaded(example, known, picture, sha256)
        except (ImageError, RemoteError) as error:
            if isinstance(error, RemoteAccessError):
                raise
            return Skipped(example.uri, str(error))

    def _load_window(self, example: Example, known: KnownRows) -> Loaded | Example | None:
        with self._processors, self._stages("decode"):
            picture = read_picture(example.file)
            sha256 = hashlib.sha256(picture.image.tobytes()).hexdigest()
        if picture.nodata > self._max_nodata:
            return None
        attributes = {**example.attributes, "nodata": round(picture.nodata, 4)}
        example = replace(example, attributes=attributes)
        if known.sha256(example.id) == sha256:
            return example
        return self._loaded(example, known, picture, sha256)

    def _loaded(self, example: Example, known: KnownRows, picture: Picture, sha256: str) -> Loaded:
        with self._stages("resize"):
            pixels = self._embedder.preprocess(picture.image)
        return Loaded(
            example,
            example.uri,
            sha256,
            pixels,
            *picture.image.size,
            stretched=picture.stretch is not None,
            replaces=known.is_known(example.id),
        )

    def _read(
        self, example: Example, known: KnownRows, reservation: Reservation
    ) -> Example | tuple[Example, bytes]:
        """Reads an image's bytes; returns the example if its ETag is the store's."""
        listed, stored = example.attributes.get(ETAG) or "", known.etag(example)
        if listed and listed == stored:
            return example
        if member := TarMember.parse(example.file):
            return example, member.read(etag=listed, reservation=reservation)
        if cell := TableCell.parse(example.file):
            return example, cell.read(etag=listed)
        if not is_remote(example.file):
            return example, _file_bytes(example)
        content = fetch(example.file, etag=listed, known=stored, reservation=reservation)
        etag = content.object.etag if content else stored
        if etag != listed:
            example = replace(example, attributes={**example.attributes, ETAG: etag or None})
        return (example, content.data) if content else example


def _file_bytes(example: Example) -> bytes:
    try:
        return read_bytes(example.path)
    except ImageError as error:
        reason = why_missing(example.file)
        raise (ImageError(f"no such file: {reason}") if reason else error) from None
