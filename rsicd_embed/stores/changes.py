"""Upserts, deletes and merges on a folder of segments; each is one commit."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rsicd_embed.records import VECTOR, Provenance, vector_array
from rsicd_embed.stores.manifest import Manifest, SegmentEntry
from rsicd_embed.stores.parts import Part
from rsicd_embed.stores.rows import attributes_of, conform, with_attributes
from rsicd_embed.stores.segments import SegmentLog, Snapshot

_SEGMENT_ROWS = 50_000


@dataclass(frozen=True)
class _Staged:
    """A segment on its way into the next state; `died` tells that its tombstones are to change."""

    entry: SegmentEntry
    part: Part
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
    pieces, rows = [table], table.num_rows
    while len(staged) > keep and staged[-1].part.live_rows <= 2 * rows:
        part = staged.pop().part
        pieces.insert(0, _live_table(part, table.schema))
        rows += part.live_rows
    segments = _settled(log, staged, table.schema, keep)
    return log.commit(_next(now, [*segments, log.add_rows(pa.concat_tables(pieces))], table.schema))


def delete(log: SegmentLog, now: Snapshot, ids: pa.Array, keep: int) -> int:
    """Removes the rows of these ids; returns how many there were."""
    staged, buried = _bury(now, ids)
    if buried:
        schema = now.rows.schema
        log.commit(_next(now, _settled(log, staged, schema, keep), schema))
    return buried


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
            segments.append(log.add_rows(rows))
    state = replace(now.manifest, provenance=provenance)
    log.commit(_next(replace(now, manifest=state), segments, schema))
    return sum(segment.rows for segment in segments)


def merge_all(log: SegmentLog, now: Snapshot) -> Snapshot:
    """Leaves one segment without dead rows, or none."""
    parts, schema = now.rows.parts, now.rows.schema
    if not parts or (len(parts) == 1 and parts[0].live is None):
        return now
    tables = [_live_table(part, schema) for part in parts if part.live_rows]
    segments = [log.add_rows(pa.concat_tables(tables))] if tables else []
    return log.commit(_next(now, segments, schema))


def _bury(now: Snapshot, ids: pa.Array | pa.ChunkedArray) -> tuple[list[_Staged], int]:
    """The segments with the rows of `ids` dead, and how many rows that newly are."""
    staged, buried = [], 0
    for entry, part in zip(now.manifest.segments, now.rows.parts, strict=True):
        hit = pc.is_in(part.attributes.column("id"), value_set=ids).to_numpy(zero_copy_only=False)
        if part.live is not None:
            hit &= part.live
        count = int(np.count_nonzero(hit))
        if count:
            live = ~hit if part.live is None else part.live & ~hit
            part = replace(part, live=live)
        staged.append(_Staged(entry, part, died=count > 0))
        buried += count
    return staged, buried


def _settled(
    log: SegmentLog, staged: list[_Staged], schema: pa.Schema, keep: int
) -> list[SegmentEntry]:
    """Writes what has changed in segments: tombstones, or fewer rows where most are dead."""
    settled = []
    for index, one in enumerate(staged):
        live = one.part.live_rows
        if live == 0:
            continue
        if one.died and index >= keep and 2 * live < len(one.part):
            settled.append(log.add_rows(_live_table(one.part, schema)))
        elif one.died and one.part.live is not None:
            dead = np.flatnonzero(~one.part.live)
            settled.append(
                replace(one.entry, dead=len(dead), tombstones=log.add_numbers("dead", dead))
            )
        else:
            settled.append(one.entry)
    return settled


def _next(now: Snapshot, segments: list[SegmentEntry], schema: pa.Schema) -> Manifest:
    graph = now.manifest.graph
    if graph and graph.segment not in {segment.file.name for segment in segments}:
        graph = None
    return replace(
        now.manifest,
        generation=now.manifest.generation + 1,
        attributes=attributes_of(schema),
        segments=tuple(segments),
        graph=graph,
    )


def _live_table(part: Part, schema: pa.Schema) -> pa.Table:
    """A part's live rows with the columns of `schema`, null where the part lacks them."""
    live = slice(None) if part.live is None else part.live
    attributes = part.attributes
    if part.live is not None:
        attributes = attributes.filter(pa.array(part.live))
    columns = []
    for field in schema:
        if field.name == VECTOR:
            columns.append(vector_array(part.matrix[live]))
        elif field.name in attributes.schema.names:
            columns.append(attributes.column(field.name))
        else:
            columns.append(pa.nulls(len(attributes), field.type))
    return pa.table(columns, schema=schema)
