"""Captions for all rows of a store, from their vectors; no image is decoded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rsicd_embed.captioning.caption_config import Decoding
from rsicd_embed.captioning.captioner import Captioner
from rsicd_embed.curation.column_update import Values, require_new_columns, values_before
from rsicd_embed.curation.vector_columns import compute_columns
from rsicd_embed.errors import FingerprintError, SchemaError, StoreError
from rsicd_embed.records import (
    Provenance,
    all_of,
    differences,
    sql_name,
)
from rsicd_embed.stores.base import VectorStore

ROWS_PER_WRITE = 20_000  # take minutes to caption
_WHILE_BUSY = 1024  # rows between reports of progress


@dataclass(frozen=True)
class CaptionedRows:
    """Result of captioning a store.

    Attributes:
        captioned: number of rows captioned now.
        kept: number of rows that had a caption already and kept it.
        column: the column of captions; their log-probabilities are in `{column}_log_probability`.
    """

    captioned: int
    kept: int
    column: str


def caption_columns(column: str) -> pa.Schema:
    """The columns of captions: the text, and its mean log-probability per word."""
    return pa.schema([(column, pa.string()), (f"{column}_log_probability", pa.float32())])


def require_captioner_of(made_by: Provenance, captioner: Captioner, source: str) -> None:
    """Checks that a captioner was trained on the vectors of a model.

    Args:
        made_by: what made the vectors to caption.
        captioner: the captioner.
        source: where the vectors are, for the error message.

    Raises:
        FingerprintError: it was trained on the vectors of another model.
    """
    own = captioner.made_by
    if made_by.fingerprint == own.fingerprint:
        return
    raise FingerprintError(
        f"{source} holds vectors of model {made_by.model!r}, but captioner {captioner.name!r} "
        f"was trained on those of {own.model!r} ({differences(made_by, own)}); use vectors of that "
        "model, or train a captioner for this one: rsicd-embed train caption --model "
        f"{made_by.model}"
    )


def caption_store(
    store: VectorStore,
    captioner: Captioner,
    *,
    column: str = "caption_auto",
    decoding: Decoding | None = None,
    where: str | None = None,
    overwrite: bool = False,
    rows_per_write: int = ROWS_PER_WRITE,
    progress: Callable[[int], object] = lambda done: None,
) -> CaptionedRows:
    """Writes a caption and its log-probability for each row that has none yet.

    Rows are written in parts, each in one atomic step, so that an interrupted call loses at most
    one part: the next call captions the rows that are left.

    Args:
        store: the store.
        captioner: a captioner that was trained on vectors of the store's model.
        column: name of the column of captions.
        decoding: how captions are decoded; beam search by default.
        where: SQL condition; other rows keep their values.
        overwrite: caption rows again that have a caption.
        rows_per_write: rows per part.
        progress: called with the number of rows just captioned.

    Raises:
        FingerprintError: another model made the vectors.
        StoreError: the store is empty, or has no versions.
        SchemaError: a column exists with another type, or is not one of captions.
        ModelError: the captioner's outputs are not finite.
    """
    require_captioner_of(store.provenance, captioner, store.uri)
    if not len(store):
        raise StoreError(f"{store.uri}: expected rows to caption, found none; ingest images first")
    columns = caption_columns(column)
    require_new_columns(store, columns, overwrite=True)  # names and types
    with store.scan(["id"], where):
        pass  # refuses an invalid condition before it is joined with others
    resumed = not overwrite and _has_captions(store, columns)
    decoded = captioned = 0

    def compute(vectors: np.ndarray) -> Values:
        nonlocal decoded
        texts: list[str] = []
        likely: list[float] = []
        for start in range(0, len(vectors), _WHILE_BUSY):
            part = vectors[start : start + _WHILE_BUSY]
            generated = captioner.caption_vectors(part, decoding, first=decoded)
            texts += generated.texts
            likely += generated.log_probabilities.tolist()
            decoded += len(part)
            progress(len(part))
        return dict(zip(columns.names, (pa.array(texts), pa.array(likely)), strict=True))

    def settle(rows: pa.RecordBatch, values: Values) -> Values:
        """Keeps captions that others wrote meanwhile, unless they are to be replaced."""
        nonlocal captioned
        present = pa.array(np.zeros(len(rows), bool))
        if not overwrite and column in rows.schema.names:
            present = rows[column].is_valid()
        captioned += len(rows) - pc.sum(present).as_py()
        return {
            field.name: pc.if_else(present, values_before(rows, field), values[field.name])
            for field in columns
        }

    kept = _count(store, _captioned(where, column, absent=False)) if resumed else 0
    condition = _captioned(where, column, absent=True) if resumed else where
    compute_columns(
        store, columns, compute, condition, settle=settle, rows_per_write=rows_per_write
    )
    return CaptionedRows(captioned, kept, column)


def _has_captions(store: VectorStore, columns: pa.Schema) -> bool:
    """Whether the store has the columns of an earlier call.

    Raises:
        SchemaError: it has a column of captions that no earlier call wrote.
    """
    present = [name for name in columns.names if name in store.schema.names]
    if present and len(present) < len(columns.names):
        raise SchemaError(
            f"column {present[0]!r} exists already and was not written by `caption`; choose "
            "another with --column, or replace its values with --overwrite"
        )
    return bool(present)


def _captioned(where: str | None, column: str, *, absent: bool) -> str:
    """The condition for rows without a caption, or with one."""
    own = f"{sql_name(column)} IS {'' if absent else 'NOT '}NULL"
    return own if where is None else all_of([where, own])


def _count(store: VectorStore, where: str | None) -> int:
    with store.scan(["id"], where) as reader:
        return int(np.sum([len(batch) for batch in reader], dtype=np.int64))
