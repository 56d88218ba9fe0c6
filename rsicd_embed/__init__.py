"""Search satellite imagery in plain words: fine-tuned CLIP in JAX, vectors in the store you prefer.

Importing this package does not import jax or lancedb.

    import rsicd_embed as r

    embedder = r.load_embedder()
    with r.open_store("lancedb:./tiles", embedder=embedder) as store:
        r.ingest(r.open_sources(["./images"]), embedder, store)
        hits = store.search(embedder.embed_texts(["a harbour full of boats"]), k=10)

Other public names are in `rsicd_embed.embedder`, `rsicd_embed.stores`, `rsicd_embed.evaluation`,
`rsicd_embed.errors`, `rsicd_embed.pictures`, `rsicd_embed.testing` and `rsicd_embed.lancedb`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rsicd_embed.errors import RsicdEmbedError
from rsicd_embed.plugins import lazy_exports

if TYPE_CHECKING:
    from rsicd_embed.datasets.scenes import Tiling
    from rsicd_embed.datasets.sources import open_sources
    from rsicd_embed.datasets.stac_sources import StacSelection
    from rsicd_embed.embedder.loading import load_embedder
    from rsicd_embed.indexing.export_rows import export_rows
    from rsicd_embed.indexing.import_rows import import_rows
    from rsicd_embed.indexing.ingest import ingest
    from rsicd_embed.pictures.gallery import show
    from rsicd_embed.query.area import Area, Near
    from rsicd_embed.query.composed import Part, Query
    from rsicd_embed.query.run import sql
    from rsicd_embed.query.search import search
    from rsicd_embed.stores.base import open_store

    __version__: str
    """Version of the installed package."""

__all__ = [
    "Area",
    "Near",
    "Part",
    "Query",
    "RsicdEmbedError",
    "StacSelection",
    "Tiling",
    "__version__",
    "export_rows",
    "import_rows",
    "ingest",
    "load_embedder",
    "open_sources",
    "open_store",
    "search",
    "show",
    "sql",
]


def _version() -> str:
    """The installed version, read on demand because reading package metadata is slow."""
    from importlib import metadata

    try:
        return metadata.version("rsicd-embed")
    except metadata.PackageNotFoundError:  # run from a copy of the sources
        return "0+unknown"


if not TYPE_CHECKING:
    _load, _listed = lazy_exports(
        __name__,
        {
            "rsicd_embed.datasets.scenes": ("Tiling",),
            "rsicd_embed.datasets.sources": ("open_sources",),
            "rsicd_embed.datasets.stac_sources": ("StacSelection",),
            "rsicd_embed.embedder.loading": ("load_embedder",),
            "rsicd_embed.indexing.export_rows": ("export_rows",),
            "rsicd_embed.indexing.import_rows": ("import_rows",),
            "rsicd_embed.indexing.ingest": ("ingest",),
            "rsicd_embed.pictures.gallery": ("show",),
            "rsicd_embed.query.area": ("Area", "Near"),
            "rsicd_embed.query.composed": ("Part", "Query"),
            "rsicd_embed.query.run": ("sql",),
            "rsicd_embed.query.search": ("search",),
            "rsicd_embed.stores.base": ("open_store",),
        },
    )

    def __getattr__(name: str) -> object:
        return _version() if name == "__version__" else _load(name)

    def __dir__() -> list[str]:
        return sorted([*_listed(), "__version__"])
