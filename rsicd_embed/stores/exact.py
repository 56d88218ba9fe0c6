"""`exact:PATH`: exact search by matrix products over memory-mapped files."""

from __future__ import annotations

from rsicd_embed.stores.segments.segment_store import SegmentStore


class ExactStore(SegmentStore):
    """The reference store: always exact, and fast enough for a few hundred thousand rows."""

    kind = "exact"
