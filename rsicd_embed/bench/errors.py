"""What a benchmark refuses to do."""

from __future__ import annotations

from rsicd_embed.errors import RsicdEmbedError


class BenchError(RsicdEmbedError):
    """A benchmark cannot be run, or what it compares is not the same thing."""
