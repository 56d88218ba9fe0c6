"""A LanceDB table as a store."""

from rsicd_embed.stores.lancedb.lance_store import LanceStore

__all__ = ["LanceStore"]
