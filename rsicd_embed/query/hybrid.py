"""Hybrid search: similarity and full text fused by reciprocal rank (Cormack et al. 2009).

A row's fused score is the sum of 1 / (60 + rank) over the two rankings; the first `WINDOW` rows of
each count.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rsicd_embed.errors import QueryError
from rsicd_embed.geography.overlap import separate
from rsicd_embed.query import full_text
from rsicd_embed.query.area import FOOTPRINT
from rsicd_embed.query.composed import Query

WINDOW = 1000
FUSED, TEXT_SCORE = "fused_score", "text_score"
_CONSTANT = 60


def query_words(query: Query) -> list[str]:
    """The words of the texts to look for, without stop words if there are others.

    Raises:
        QueryError: there are none, or the requested hits reach beyond the window.
    """
    texts = [part.text for part in query.parts if part.text is not None and part.weight > 0]
    words = full_text.words(texts)
    if not words:
        given = f"no words in {texts[0]!r}" if texts else "no texts"
        raise QueryError(f"expected a text with words for a hybrid search, found {given}")
    if query.k is None or query.k + query.offset > WINDOW:
        given = "all hits" if query.k is None else str(query.k + query.offset)
        raise QueryError(
            f"expected k and offset of at most {WINDOW} together in a hybrid search, found {given}"
        )
    return [word for word in words if word not in full_text.stop_words()] or words


def fused(
    query: Query, rows: pa.Table, similar: Sequence[str], matching: Sequence[tuple[str, float]]
) -> pa.Table:
    """Hits by (-fused score, id), of the rows in one of the rankings.

    Args:
        query: the query, with k, offset, overlap to merge and minimum score.
        rows: rows of both rankings, as hits with a score.
        similar: ids by similarity.
        matching: (id, text score) by full text.
    """
    scores = dict.fromkeys(rows["id"].to_pylist(), 0.0)
    for ids in (similar, [id_ for id_, _ in matching]):
        for rank, id_ in enumerate(ids, start=1):
            scores[id_] += 1 / (_CONSTANT + rank)
    by_text = dict(matching)
    for name, values in ((FUSED, scores), (TEXT_SCORE, by_text)):
        column = pa.array([values.get(id_) for id_ in scores], pa.float64())
        if name in rows.schema.names:
            rows = rows.drop_columns([name])
        rows = rows.append_column(name, column)
    if query.min_score is not None:
        least = pa.scalar(np.float32(query.min_score), pa.float32())
        rows = rows.filter(pc.greater_equal(rows["score"], least))
    rows = rows.sort_by([(FUSED, "descending"), ("id", "ascending")])
    if query.merge is not None:
        most = query.offset + (query.k or WINDOW)
        rows = rows.take(separate(rows[FOOTPRINT].combine_chunks(), query.merge, most))
    rows = rows.slice(query.offset, query.k)
    ranks = np.arange(query.offset + 1, query.offset + 1 + len(rows), dtype=np.int32)
    place = rows.schema.get_field_index("rank")
    return rows.set_column(place, rows.schema.field(place), pa.array(ranks))
