"""Upserts, deletes and merges on a folder of segments; each is one commit."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rsicd_embed.records import Provenance
from rsicd_embed.stores.rows import attributes_of, conform, with_attributes
from rsicd_embed.stores.segments.segment_files import Fresh, Piece, Segment
from rsicd_embed.stores.segments.segment_log import SegmentLog, Snapshot
from rsicd_embed.stores.segments.segment_manifest import Manifest, SegmentEntry

_SEGMENT_ROWS = 50_000
CODED_ROWS = 100_000  # fewer are scanned in a few milliseconds without codes


@dataclass(frozen=True)
class _Staged:
    """A segment on its way into the next state; `died` tells that its tombstones are to change."""

    segment: Segment
    died: bool


def upsert(log: SegmentLog, now: Snapshot, table: pa.Table, keep: int) -> Snapshot:
    """Adds rows in place of those with the same ids.

    Args:
        log: locked for writing.
        now: its newest state.
        table: at least one row, each id once, of the schema of the next state.
        keep: how many of the first segments are not to be merged or rewritten.
    """
    staged, _ = _bury(now, table["id"])
    # Merging a segment at most twice as long as what follows leaves O(log n) segments after n
    # upserts, and writes each row O(log n) times.
    pieces: list[Piece] = [Fresh(table)]
    rows = table.num_rows
    while len(staged) > keep and staged[-1].segment.live_rows <= 2 * rows:
        pieces.insert(0, staged.pop().segment)
        rows += pieces[0].live_rows
    segments = _settled(log, staged, table.schema, keep)
    return log.commit(_next(now, [*segments, log.add_rows(pieces, table.schema)], table.schema))


def delete(log: SegmentLog, now: Snapshot, ids: pa.Array, keep: int) -> int:
    """Removes the rows of these ids; returns how many there were."""
    staged, buried = _bury(now, ids)
    if buried:
        schema = now.rows.schema
        log.commit(_next(now, _settled(log, staged, schema, keep), schema))
    return buried


def drop_columns(log: SegmentLog, now: Snapshot, schema: pa.Schema) -> None:
    """Leaves the columns of `schema` only; the vectors and the graph over them stay."""
    segments = [log.without_columns(segment, schema) for segment in now.segments]
    log.commit(_next(now, segments, schema))


def replace_all(
    log: SegmentLog, now: Snapshot, batches: Iterable[pa.RecordBatch], provenance: Provenance
) -> int:
    """Puts rows of another model in place of all there are, as one change; returns how many.

    Args:
        log: locked for writing.
        now: its newest state.
        batches: each id once, in all of them; of one schema.
        provenance: what made their vectors.
    """
    segments: list[SegmentEntry] = []
    schema = with_attributes(provenance.dim, pa.schema([]))
    held: list[pa.RecordBatch] = []
    for batch in chain(batches, [None]):
        if batch is not None:
            held.append(batch)
        if held and (batch is None or sum(len(one) for one in held) >= _SEGMENT_ROWS):
            rows = conform(held, schema)
            schema, held = rows.schema, []
            segments.append(log.add_rows([Fresh(rows)], schema))
    state = replace(now.manifest, provenance=provenance)
    log.commit(_next(replace(now, manifest=state), segments, schema))
    return sum(segment.rows for segment in segments)


def merge_all(log: SegmentLog, now: Snapshot) -> Snapshot:
    """Leaves one segment without dead rows, or none, and codes of its vectors if they are many."""
    segments, schema = now.segments, now.rows.schema
    if len(segments) > 1 or any(segment.part.live is not None for segment in segments):
        live = [segment for segment in segments if segment.live_rows]
        merged = [log.add_rows(live, schema)] if live else []
        now = log.commit(_next(now, merged, schema))
    if now.segments and now.segments[0].entry.codes is None and len(now.rows) >= CODED_ROWS:
        now = log.commit(_next(now, [log.add_codes(now.segments[0])], schema))
    return now


def _bury(now: Snapshot, ids: pa.Array | pa.ChunkedArray) -> tuple[list[_Staged], int]:
    """The segments with the rows of `ids` dead, and how many rows that newly are."""
    staged, buried = [], 0
    for segment in now.segments:
        part = segment.part
        hit = pc.is_in(part.attributes["id"], value_set=ids).to_numpy()
        if part.live is not None:
            hit &= part.live
        count = int(np.count_nonzero(hit))
        if count:
            live = ~hit if part.live is None else part.live & ~hit
            segment = replace(segment, part=replace(part, live=live))
        staged.append(_Staged(segment, died=count > 0))
        buried += count
    return staged, buried


def _settled(
    log: SegmentLog, staged: list[_Staged], schema: pa.Schema, keep: int
) -> list[SegmentEntry]:
    """Writes what has changed in segments: tombstones, or fewer rows where most are dead."""
    settled = []
    for index, one in enumerate(staged):
        entry, part = one.segment.entry, one.segment.part
        live = part.live_rows
        if live == 0:
            continue
        if one.died and index >= keep and 2 * live < len(part):
            settled.append(log.add_rows([one.segment], schema))
        elif one.died and part.live is not None:
            dead = np.flatnonzero(~part.live)
            settled.append(replace(entry, dead=len(dead), tombstones=log.add_numbers("dead", dead)))
        else:
            settled.append(entry)
    return settled


def _next(now: Snapshot, segments: list[SegmentEntry], schema: pa.Schema) -> Manifest:
    graph = now.manifest.graph
    if graph and graph.segment not in {segment.vectors.name for segment in segments}:
        graph = None
    return replace(
        now.manifest,
        generation=now.manifest.generation + 1,
        attributes=attributes_of(schema),
        segments=tuple(segments),
        graph=graph,
    )
