"""`import rsicd_embed.lancedb` registers the embedding function `rsicd-clip` with LanceDB.

    from lancedb.embeddings import get_registry
    from lancedb.pydantic import LanceModel, Vector

    clip = get_registry().get("rsicd-clip").create()  # or model="openai/clip-vit-base-patch32"

    class Tile(LanceModel):
        uri: str = clip.SourceField()
        vector: Vector(clip.ndims()) = clip.VectorField()

    table = lancedb.connect("./db").create_table("tiles", schema=Tile)
    table.add([{"uri": "a.jpg"}])
    table.search("a harbour").distance_type("cosine").limit(5).to_list()

Tables created by `rsicd-embed ingest --store lancedb:…` refer to this function too. With the cosine
distance, a score is 1 - `_distance`:

    lancedb.connect("./tiles").open_table("images").search("a harbour").distance_type("cosine")

JAX is imported when the first image or text is embedded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlparse
from urllib.request import url2pathname

import numpy as np
import pyarrow as pa
from lancedb.embeddings import EmbeddingFunction, register
from PIL import Image
from pydantic import PrivateAttr

from rsicd_embed.embedder.base import provenance
from rsicd_embed.embedder.clip import parts
from rsicd_embed.embedder.clip.backends import Backend, Precision
from rsicd_embed.embedder.locate import Located, locate
from rsicd_embed.errors import ImageError, ModelError
from rsicd_embed.images import ImageLike
from rsicd_embed.records import Provenance, fingerprint_parts, require_same_model

if TYPE_CHECKING:
    from rsicd_embed.embedder.clip.embedder import ClipEmbedder

__all__ = ["ALIAS", "RsicdClip"]

ALIAS = "rsicd-clip"
"""Name of the embedding function in LanceDB's registry."""


@register(ALIAS)  # type: ignore[no-untyped-call]
class RsicdClip(EmbeddingFunction):
    """LanceDB embedding function for any CLIP model that `rsicd_embed.load_embedder` loads.

    A table records the model and its fingerprint, and cannot be reopened with another model, even
    one of the same name.

    Attributes:
        model: None for the bundled model, a Hugging Face id (with `@revision`), or a directory.
        batch_size: number of images per batch.
        backend: auto, jax, openvino or numpy.
        precision: float32 or bfloat16; None to choose by device.
        fingerprint: set by `create`.
    """

    model: str | None = None
    batch_size: int = 64
    backend: Backend = "auto"
    precision: Precision | None = None
    fingerprint: str | None = None
    max_retries: int = 0
    _located: Located | None = PrivateAttr(default=None)

    @classmethod
    def create(cls, **settings: Any) -> Self:
        """Creates the function, and records the model's fingerprint.

        Besides the attributes, `activation` is accepted: "quick_gelu" or "gelu", for a checkpoint
        file that does not specify it; it becomes a part of `model`.

        When LanceDB reopens a table it passes the recorded `fingerprint`. The model is then
        located on first use, so that rows can be written where the model is not installed.

        Raises:
            ModelError: the model does not exist, or a setting is unknown.
        """
        located = None
        if not settings.get("fingerprint"):
            activation = settings.pop("activation", None)
            if unknown := sorted(settings.keys() - cls.model_fields.keys()):
                known = ", ".join(["activation", *sorted(cls.model_fields)])
                raise ModelError(f"expected settings among {known}, found {', '.join(unknown)}")
            located = locate(settings.get("model"), activation=activation)
            fingerprint = _provenance(located, _signature(located.directory)).fingerprint
            settings = settings | {"model": located.name, "fingerprint": fingerprint}
        function: Self = super().create(**settings)  # type: ignore[no-untyped-call]
        function._located = located
        return function

    def ndims(self) -> int:
        """Length of a vector."""
        if self.fingerprint is None:
            raise ModelError(
                f"expected a function created with get_registry().get({ALIAS!r}).create(), "
                "found a function without a fingerprint; call create()"
            )
        return int(fingerprint_parts(self.fingerprint)["dim"])

    def compute_source_embeddings(self, images: Any, *_: Any, **__: Any) -> list[Any]:
        """Embeds images: paths, `file:` URIs, bytes of files or Pillow images; None stays None.

        Raises:
            ImageError: an image cannot be read.
        """
        items = _items(images)
        given = [_readable(item) for item in items if item is not None]
        vectors = iter(self._model().embed_images(given))
        return [None if item is None else next(vectors) for item in items]

    def compute_query_embeddings(  # type: ignore[override]
        self, query: Any, *_: Any, **__: Any
    ) -> list[np.ndarray]:
        """Embeds one query: a text, or an image as a Pillow image, a Path or bytes of a file."""
        embedder = self._model()
        if isinstance(query, str):
            return list(embedder.embed_texts([query]))
        return list(embedder.embed_images([_readable(query)]))

    # LanceDB's retries would hide the error, and no failure here is temporary.
    def compute_source_embeddings_with_retry(self, *args: Any, **kwargs: Any) -> list[Any]:
        """Calls `compute_source_embeddings` without retries."""
        return self.compute_source_embeddings(*args, **kwargs)

    def compute_query_embeddings_with_retry(self, *args: Any, **kwargs: Any) -> list[Any]:
        """Calls `compute_query_embeddings` without retries."""
        return self.compute_query_embeddings(*args, **kwargs)

    def _model(self) -> Any:
        located = self._located or locate(self.model)
        embedder = _embedder(
            located, _signature(located.directory), self.batch_size, self.precision, self.backend
        )
        current = provenance(embedder)
        recorded = replace(current, fingerprint=self.fingerprint or "")
        require_same_model(recorded, current, "the table")
        return embedder


# LanceDB creates the function anew for each `add` and `search`, so models are cached here.
Signature = tuple[tuple[str, int, int], ...]


def _signature(directory: Path) -> Signature:
    """Names, sizes and modification times of a model's files, to notice changes."""
    states = ((path.name, path.stat()) for path in sorted(directory.iterdir()) if path.is_file())
    return tuple((name, state.st_size, state.st_mtime_ns) for name, state in states)


@lru_cache(maxsize=8)
def _provenance(located: Located, signature: Signature) -> Provenance:
    model = parts.read(located)
    return Provenance(located.name, model.fingerprint, model.config.dim)


@lru_cache(maxsize=2)
def _embedder(
    located: Located,
    signature: Signature,
    batch_size: int,
    precision: Precision | None,
    backend: Backend,
) -> ClipEmbedder:
    from rsicd_embed.embedder.loading import load_clip

    return load_clip(located.name, batch_size=batch_size, precision=precision, backend=backend)


def _items(images: Any) -> Sequence[Any]:
    if isinstance(images, pa.Array | pa.ChunkedArray):
        return list(images.to_pylist())
    if isinstance(images, str | bytes | Path | Image.Image):
        return [images]
    return list(images)


def _readable(item: Any) -> ImageLike:
    if not isinstance(item, str | bytes | Path | Image.Image):
        raise ImageError(f"expected a path, bytes or a Pillow image, found {type(item).__name__}")
    if isinstance(item, str) and "://" in item:
        parsed = urlparse(item)
        if parsed.scheme != "file":
            raise ImageError(f"expected a local file, found {item}; download it first")
        return url2pathname(parsed.path)
    return item
