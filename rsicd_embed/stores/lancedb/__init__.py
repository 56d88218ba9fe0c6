"""Stores in LanceDB tables, local or remote."""

from rsicd_embed.stores.lancedb.lance_store import LanceStore

__all__ = ["LanceStore"]
