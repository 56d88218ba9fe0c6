"""Bringing a store up to date with images."""

from rsicd_embed.indexing.ingest import Summary, ingest

__all__ = ["Summary", "ingest"]
