"""Groups of near-duplicate images: rows linked by a similarity of at least a threshold.

Neighbours come from the store's own search, through its index if it has one, so that a large
archive need not be compared pair by pair. A group is a set of rows connected by links.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from rsicd_embed.curation.column_update import require_new_columns, update_columns
from rsicd_embed.errors import QueryError
from rsicd_embed.records import VECTOR, vector_matrix
from rsicd_embed.stores.base import VectorStore

_NEIGHBOURS = 16  # fetched per row at first
_MOST_NEIGHBOURS = 1024  # a row with more of them is linked to the group through others
_BATCH_ROWS = 1024


@dataclass(frozen=True)
class DuplicateGroup:
    """Near-duplicates of one another.

    Attributes:
        ids: the representative, which has the most pixels (the first id of equals), then the
            others in the order of their ids.
        similarity: the lowest similarity of a row with the representative; it may be below the
            threshold if rows are linked through others.
    """

    ids: tuple[str, ...]
    similarity: float


def find_duplicates(
    store: VectorStore,
    threshold: float,
    *,
    where: str | None = None,
    progress: Callable[[int], None] = lambda rows: None,
) -> list[DuplicateGroup]:
    """Finds groups of at least two rows, the largest first.

    Args:
        store: the store.
        threshold: lowest similarity of two duplicates, in [-1, 1].
        where: SQL condition; only rows that match it are compared.
        progress: called with the number of rows compared since the last call.

    Raises:
        QueryError: the threshold is outside [-1, 1].
        FilterError: `where` is invalid.
    """
    if not -1 <= threshold <= 1:
        raise QueryError(f"expected a threshold from -1 to 1, as cosines are, found {threshold}")
    with store.scan(["id", VECTOR, "width", "height"], where) as reader:
        rows = reader.read_all().combine_chunks().sort_by("id")
    ids = rows["id"].to_pylist()
    vectors = vector_matrix(rows[VECTOR])
    places = {id_: place for place, id_ in enumerate(ids)}
    links = _Forest(len(ids))
    for start in range(0, len(ids), _BATCH_ROWS):
        pending = np.arange(start, min(start + _BATCH_ROWS, len(ids)))
        k = _NEIGHBOURS
        while len(pending):
            hits = store.search(vectors[pending], k=k, where=where)
            hits = hits.filter(pa.compute.greater_equal(hits["score"], np.float32(threshold)))
            queries = hits["query"].to_numpy()
            for query, id_ in zip(queries, hits["id"].to_pylist(), strict=True):
                if id_ in places:  # it may be new
                    links.join(int(pending[query]), places[id_])
            full = np.flatnonzero(np.bincount(queries, minlength=len(pending)) >= k)
            pending = pending[full] if k < min(_MOST_NEIGHBOURS, len(ids)) else pending[:0]
            k *= 8
        progress(min(_BATCH_ROWS, len(ids) - start))
    sizes = zip(rows["width"].to_pylist(), rows["height"].to_pylist(), strict=True)
    pixels = [(width or 0) * (height or 0) for width, height in sizes]
    groups = []
    for members in links.groups():
        best = max(members, key=lambda place: (pixels[place], -place))
        others = [place for place in members if place != best]
        similarity = float((vectors[others] @ vectors[best]).min())
        groups.append(
            DuplicateGroup((ids[best], *(ids[place] for place in others)), min(1.0, similarity))
        )
    return sorted(groups, key=lambda group: (-len(group.ids), group.ids))


def write_duplicates(
    store: VectorStore, groups: Sequence[DuplicateGroup], column: str, *, overwrite: bool = False
) -> int:
    """Writes the id of a row's representative to a column; null for representatives and others.

    Returns the number of rows that are duplicates of another one.

    Raises:
        SchemaError: the column exists, unless `overwrite`.
    """
    columns = pa.schema([(column, pa.string())])
    require_new_columns(store, columns, overwrite=overwrite)
    of = {id_: group.ids[0] for group in groups for id_ in group.ids[1:]}

    def compute(batch: pa.RecordBatch) -> dict[str, pa.Array]:
        return {column: pa.array([of.get(id_) for id_ in batch["id"].to_pylist()], pa.string())}

    update_columns(store, columns, compute)
    return len(of)


class _Forest:
    """Disjoint sets with path halving."""

    def __init__(self, count: int) -> None:
        self._parents = list(range(count))

    def root(self, place: int) -> int:
        parents = self._parents
        while parents[place] != place:
            parents[place] = parents[parents[place]]
            place = parents[place]
        return place

    def join(self, first: int, second: int) -> None:
        self._parents[self.root(first)] = self.root(second)

    def groups(self) -> list[list[int]]:
        """Sets of at least two, each in order."""
        members: dict[int, list[int]] = {}
        for place in range(len(self._parents)):
            members.setdefault(self.root(place), []).append(place)
        return [group for group in members.values() if len(group) > 1]
