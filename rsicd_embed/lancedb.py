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

Tables that `rsicd-embed ingest --store lancedb:…` made name this function too; their scores are
1 - `_distance` by cosine:

    lancedb.connect("./tiles").open_table("images").search("a harbour").distance_type("cosine")

JAX is imported when something is embedded, not before.
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


@register(ALIAS)  # type: ignore[no-untyped-call]
class RsicdClip(EmbeddingFunction):
    """Images and texts → unit vectors, by any CLIP that `rsicd_embed.load_embedder` takes.

    A table remembers the model and its fingerprint: it cannot be reopened with another one, even
    of the same name.

    Attributes:
        model: the bundled one, a Hugging Face id (with `@revision`), or a directory.
        batch_size: images embedded at once.
        backend: jax, openvino or numpy.
        precision: float32 or bfloat16; None for what suits the device.
        fingerprint: filled in by `create`.
    """

    model: str | None = None
    batch_size: int = 64
    backend: Backend = "jax"
    precision: Precision | None = None
    fingerprint: str | None = None
    max_retries: int = 0
    _found: Located | None = PrivateAttr(default=None)

    @classmethod
    def create(cls, **settings: Any) -> Self:
        """Finds the model and pins its fingerprint.

        With a `fingerprint`, which is how LanceDB reopens a table, the model is only looked for
        once something is embedded: a table can be written to where its model is not installed.

        Raises:
            ModelError: there is no such model.
        """
        found = None
        if not settings.get("fingerprint"):  # a table remembers it
            found = locate(settings.get("model"))
            fingerprint = _provenance(found, _signature(found.directory)).fingerprint
            settings = settings | {"model": found.name, "fingerprint": fingerprint}
        function: Self = super().create(**settings)  # type: ignore[no-untyped-call]
        function._found = found
        return function

    def ndims(self) -> int:
        """Length of a vector."""
        if self.fingerprint is None:
            raise ModelError(f"expected an embedding function made by {ALIAS}'s create()")
        return int(fingerprint_parts(self.fingerprint)["dim"])

    def compute_source_embeddings(self, images: Any, *_: Any, **__: Any) -> list[Any]:
        """Paths, `file:` URIs, bytes of files or Pillow images → vectors; None stays None.

        Raises:
            ImageError: one of them cannot be read.
        """
        items = _items(images)
        given = [_readable(item) for item in items if item is not None]
        vectors = iter(self._model().embed_images(given))
        return [None if item is None else next(vectors) for item in items]

    def compute_query_embeddings(  # type: ignore[override]
        self, query: Any, *_: Any, **__: Any
    ) -> list[np.ndarray]:
        """A text, or a picture (Pillow image, path object, bytes of a file) → one vector."""
        embedder = self._model()
        if isinstance(query, str):
            return list(embedder.embed_texts([query]))
        return list(embedder.embed_images([_readable(query)]))

    # LanceDB's own would hide the error, and nothing here gets better by waiting.
    def compute_source_embeddings_with_retry(self, *args: Any, **kwargs: Any) -> list[Any]:
        """`compute_source_embeddings`, once."""
        return self.compute_source_embeddings(*args, **kwargs)

    def compute_query_embeddings_with_retry(self, *args: Any, **kwargs: Any) -> list[Any]:
        """`compute_query_embeddings`, once."""
        return self.compute_query_embeddings(*args, **kwargs)

    def _model(self) -> Any:
        found = self._found or locate(self.model)
        signature = _signature(found.directory)
        how = (self.batch_size, self.precision, self.backend)
        loaded = _embedder(found, signature, *how)
        now = provenance(loaded)
        require_same_model(replace(now, fingerprint=self.fingerprint or ""), now, "the table")
        return loaded


# LanceDB makes the function anew for each `add` and `search`, so what is slow is kept here.
Signature = tuple[tuple[str, int, int], ...]


def _signature(directory: Path) -> Signature:
    """What tells that a file of a model has changed: names, sizes, times."""
    states = ((path.name, path.stat()) for path in sorted(directory.iterdir()) if path.is_file())
    return tuple((name, state.st_size, state.st_mtime_ns) for name, state in states)


@lru_cache(maxsize=8)
def _provenance(found: Located, signature: Signature) -> Provenance:
    model = parts.read(found.directory)
    return Provenance(found.name, model.fingerprint, model.config.dim)


@lru_cache(maxsize=2)
def _embedder(
    found: Located,
    signature: Signature,
    batch_size: int,
    precision: Precision | None,
    backend: Backend,
) -> ClipEmbedder:
    from rsicd_embed.embedder.loading import load_clip

    return load_clip(found.name, batch_size=batch_size, precision=precision, backend=backend)


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
            raise ImageError(f"expected a local file, found {item}; fetch it first")
        return url2pathname(parsed.path)
    return item
