"""Search satellite imagery in plain words: fine-tuned CLIP in JAX, vectors in the store you prefer.

Importing this package imports neither jax nor lancedb.

    import rsicd_embed as r

    embedder = r.load_embedder()
    with r.open_store("lancedb:./tiles", embedder=embedder) as store:
        r.ingest(r.open_sources(["./images"]), embedder, store)
        hits = store.search(embedder.embed_texts(["a harbour full of boats"]), k=10)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rsicd_embed.errors import RsicdEmbedError

if TYPE_CHECKING:
    import pyarrow as pa

    from rsicd_embed.datasets.base import Source
    from rsicd_embed.embedder.base import Embedder
    from rsicd_embed.embedder.clip.backends.base import Backend, Precision
    from rsicd_embed.indexing import Summary
    from rsicd_embed.indexing.export_rows import ExportedRows
    from rsicd_embed.stores.base import VectorStore

    __version__: str

__all__ = [
    "RsicdEmbedError",
    "__version__",
    "export_rows",
    "import_rows",
    "ingest",
    "load_embedder",
    "open_sources",
    "open_store",
    "sql",
]


def __getattr__(name: str) -> str:
    """`__version__`, from the metadata of the installed package, whose reading takes time."""
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import metadata

    try:
        return metadata.version("rsicd-embed")
    except metadata.PackageNotFoundError:  # run from a copy of the sources
        return "0+unknown"


def load_embedder(
    model: str | Path | None = None,
    *,
    batch_size: int = 64,
    precision: Precision | None = None,
    backend: Backend | None = None,
) -> Embedder:
    """Loads a CLIP; see `rsicd_embed.embedder.loading.load_embedder`."""
    from rsicd_embed.embedder.loading import load_embedder as load

    return load(model, batch_size=batch_size, precision=precision, backend=backend)


def open_store(uri: str, *, embedder: Embedder | None = None) -> VectorStore:
    """Opens a store for an embedder, making it where it is absent; refuses another model's vectors.

    Without an embedder the store must exist, and holds whatever model's vectors.
    See `rsicd_embed.stores.base.open_store` for the errors.
    """
    from rsicd_embed.embedder.base import provenance, require_embedder
    from rsicd_embed.stores.base import open_store as open_

    if embedder is None:
        return open_(uri)
    require_embedder(embedder)
    return open_(uri, provenance(embedder))


def open_sources(
    paths: Sequence[str | Path],
    *,
    split: str | None = None,
    allow_empty: bool = False,
    column_types: Mapping[str, str] | None = None,
) -> list[Source]:
    """Folders, image files and manifests; see `rsicd_embed.datasets.sources.open_sources`."""
    from rsicd_embed.arguments import require_items
    from rsicd_embed.datasets.sources import open_sources as open_

    require_items(paths, "paths", (str, Path))
    return open_(
        [Path(path) for path in paths],
        split=split,
        allow_empty=allow_empty,
        column_types=column_types,
    )


def ingest(
    sources: Sequence[Source],
    embedder: Embedder,
    store: VectorStore,
    *,
    strict: bool = False,
    prune: bool = False,
    column_types: Mapping[str, str] | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> Summary:
    """Brings a store up to date with sources; see `rsicd_embed.indexing.ingest`."""
    from rsicd_embed.indexing import ingest as run

    return run(
        sources,
        embedder,
        store,
        strict=strict,
        prune=prune,
        column_types=column_types,
        progress=progress,
    )


def export_rows(
    store: VectorStore, output: str | Path, *, where: str | None = None
) -> ExportedRows:
    """Writes a store's rows, vectors and all, to a Parquet file that `import_rows` takes.

    See `rsicd_embed.indexing.export_rows.export_rows`.
    """
    from rsicd_embed.indexing.export_rows import export_rows as run

    return run(store, Path(output), where=where)


def import_rows(paths: Sequence[str | Path], store_uri: str) -> Summary:
    """Brings a store up to date with files that `export_rows` or `rsicd-embed embed` wrote.

    It is made where it is absent. See `rsicd_embed.indexing.import_rows`.
    """
    from rsicd_embed.arguments import require_items
    from rsicd_embed.indexing import import_rows

    require_items(paths, "paths", (str, Path))
    checked = import_rows.check_rows(import_rows.open_files([Path(path) for path in paths]))
    with import_rows.open_store_for(checked[0].file, store_uri) as store:
        return import_rows.import_rows(checked, store)


def sql(query: str, store: VectorStore, embedder: Embedder | None = None) -> pa.Table:
    """Answers a SQL query over the rows of a store, its table `images`; see `rsicd_embed.query`.

    Without an embedder, `similarity` and `similarity_image` load the model that made the store.
    `rsicd_embed.query.run` gives the same in batches.
    """
    from rsicd_embed.embedder.base import require_embedder
    from rsicd_embed.query import run

    if embedder is not None:
        require_embedder(embedder)

    def load() -> Embedder:
        from rsicd_embed.embedder.loading import load_for_a_query

        return load_for_a_query(store.provenance.model) if embedder is None else embedder

    return run(query, store, load).read_all()
