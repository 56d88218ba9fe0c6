"""Vector stores behind one interface, and the building blocks for your own.

`open_store` opens any store, and `VectorStore` is its contract. A plug-in subclasses `RowStore`,
which implements search and scan over its rows; see examples/store_plugin.py for a complete one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rsicd_embed.plugins import lazy_exports

if TYPE_CHECKING:
    from rsicd_embed.files import storage_errors, sync_folder, write_file
    from rsicd_embed.records import Provenance, row_schema
    from rsicd_embed.stores.base import (
        StoreInfo,
        StoreType,
        VectorStore,
        Versioned,
        open_store,
        require_versioned,
    )
    from rsicd_embed.stores.columns import without_columns
    from rsicd_embed.stores.opening import local_folder, not_found, require_provenance
    from rsicd_embed.stores.row_store import RowStore
    from rsicd_embed.stores.row_view import Rows, rows_of
    from rsicd_embed.stores.rows import checked_ids, conform
    from rsicd_embed.stores.uri import StoreURI
else:
    __getattr__, __dir__ = lazy_exports(
        __name__,
        {
            "rsicd_embed.files": ("storage_errors", "sync_folder", "write_file"),
            "rsicd_embed.records": ("Provenance", "row_schema"),
            "rsicd_embed.stores.base": (
                "StoreInfo",
                "StoreType",
                "VectorStore",
                "Versioned",
                "open_store",
                "require_versioned",
            ),
            "rsicd_embed.stores.columns": ("without_columns",),
            "rsicd_embed.stores.opening": ("local_folder", "not_found", "require_provenance"),
            "rsicd_embed.stores.row_store": ("RowStore",),
            "rsicd_embed.stores.row_view": ("Rows", "rows_of"),
            "rsicd_embed.stores.rows": ("checked_ids", "conform"),
            "rsicd_embed.stores.uri": ("StoreURI",),
        },
    )

__all__ = [
    "Provenance",
    "RowStore",
    "Rows",
    "StoreInfo",
    "StoreType",
    "StoreURI",
    "VectorStore",
    "Versioned",
    "checked_ids",
    "conform",
    "local_folder",
    "not_found",
    "open_store",
    "require_provenance",
    "require_versioned",
    "row_schema",
    "rows_of",
    "storage_errors",
    "sync_folder",
    "without_columns",
    "write_file",
]
