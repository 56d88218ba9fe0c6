"""Ingest, import, export and re-embedding of stores."""

from rsicd_embed.indexing.ingest import Summary, ingest
from rsicd_embed.indexing.reembed import Reembedded, reembed, staging_folder

__all__ = ["Reembedded", "Summary", "ingest", "reembed", "staging_folder"]
