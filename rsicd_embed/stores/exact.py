"""`exact:PATH`: every search looks at every row, by matrix products over memory-mapped files."""

from __future__ import annotations

from rsicd_embed.stores.segments.segment_store import SegmentStore


class ExactStore(SegmentStore):
    """The reference: always right, and fast enough for some hundred thousand rows."""

    kind = "exact"
