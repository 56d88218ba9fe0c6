"""Groups of near-duplicate images: rows linked by a similarity of at least a threshold.

Neighbours come from the store's own search, through its index if it has one, so that a large
archive need not be compared pair by pair. A group is a set of rows connected by links. Vectors are
read in blocks and links are joined at once, so that besides the caches of the store, memory is
needed for the ids only, up to 350 bytes per row, and for a block.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rsicd_embed.curation.column_update import require_new_columns, update_columns
from rsicd_embed.errors import QueryError
from rsicd_embed.parallel import batched
from rsicd_embed.records import VECTOR, vector_matrix
from rsicd_embed.stores.base import VectorStore, row_vectors

_NEIGHBOURS = 16  # fetched per row at first
_MOST_NEIGHBOURS = 1024  # a row with more of them is linked to the group through others
_BLOCK_ROWS = 1024  # compared at a time …
_BLOCK_HITS = 16_384  # … and the number of hits of a search
_BLOCK_PAIRS = 4096
_ROUNDING = 1e-6


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
    ids, pixels = _ids_and_pixels(store, where)
    places = {id_: place for place, id_ in enumerate(ids)}
    links = _Forest(len(ids))
    with store.scan(["id", VECTOR], where) as reader:
        for batch in reader:
            for start in range(0, len(batch), _BLOCK_ROWS):
                block = batch.slice(start, _BLOCK_ROWS)
                _link(store, block, threshold, where, places, links)
                progress(len(block))
    del places
    members = [_ordered(group, pixels) for group in links.groups()]
    members.sort(key=lambda group: (-len(group), ids[group[0]]))
    named = [tuple(ids[place] for place in group) for group in members]
    lowest = _lowest_similarities(store, named)
    return [
        DuplicateGroup(group, similarity) for group, similarity in zip(named, lowest, strict=True)
    ]


def _ids_and_pixels(store: VectorStore, where: str | None) -> tuple[list[str], np.ndarray]:
    """The ids of rows in order, and the int64 (rows,) number of pixels of each."""
    ids, pixels = [np.zeros(0, object)], [np.zeros(0, np.int64)]
    with store.scan(["id", "width", "height"], where) as reader:
        for batch in filter(len, reader):
            sides = [batch[name].fill_null(0).to_numpy() for name in ("width", "height")]
            ids.append(batch["id"].to_numpy(zero_copy_only=False))
            pixels.append(np.multiply(*sides, dtype=np.int64))
    every = np.concatenate(ids)
    order = np.argsort(every)
    return every[order].tolist(), np.concatenate(pixels)[order]


def _link(
    store: VectorStore,
    block: pa.RecordBatch,
    threshold: float,
    where: str | None,
    places: Mapping[str, int],
    links: _Forest,
) -> None:
    """Joins each row of a block with its neighbours."""
    ids, vectors = block["id"].to_pylist(), vector_matrix(block[VECTOR])
    pending, k = np.arange(len(ids)), _NEIGHBOURS
    while len(pending):
        full: list[np.ndarray] = []
        for start in range(0, len(pending), max(1, _BLOCK_HITS // k)):
            queries = pending[start : start + max(1, _BLOCK_HITS // k)]
            hits = store.search(vectors[queries], k=k, where=where).select(["query", "id", "score"])
            hits = hits.filter(pc.greater_equal(hits["score"], np.float32(threshold)))
            rows = queries[hits["query"].to_numpy()]
            for row, id_ in zip(rows.tolist(), hits["id"].to_pylist(), strict=True):
                if id_ in places and ids[row] in places:  # they may be new
                    links.join(places[ids[row]], places[id_])
            full.append(np.flatnonzero(np.bincount(rows, minlength=len(ids)) >= k))
        pending = np.concatenate(full) if k < min(_MOST_NEIGHBOURS, len(places)) else pending[:0]
        k *= 8


def _ordered(group: list[int], pixels: np.ndarray) -> list[int]:
    """A group with its representative first."""
    best = max(group, key=lambda place: (pixels[place], -place))
    return [best, *(place for place in group if place != best)]


def _lowest_similarities(store: VectorStore, groups: Sequence[Sequence[str]]) -> list[float]:
    """The lowest similarity of each group's rows with its first row."""
    lowest = np.ones(len(groups))
    for number, _, similarity in _similarities(store, groups):
        lowest[number] = min(lowest[number], similarity)
    return lowest.tolist()


def _similarities(
    store: VectorStore, groups: Sequence[Sequence[str]]
) -> Iterator[tuple[int, str, float]]:
    """The similarity of each row of a group with its first row, unless one of them is deleted."""
    pairs = ((number, id_) for number, ids in enumerate(groups) for id_ in ids[1:])
    for block in batched(pairs, _BLOCK_PAIRS):
        first = {number: groups[number][0] for number, _ in block}
        vectors = row_vectors(store, [*first.values(), *(id_ for _, id_ in block)])
        for number, id_ in block:
            if first[number] in vectors and id_ in vectors:
                yield number, id_, float(np.vecdot(vectors[first[number]], vectors[id_]))


def write_duplicates(
    store: VectorStore,
    groups: Sequence[DuplicateGroup],
    column: str,
    *,
    where: str | None = None,
    overwrite: bool = False,
) -> int:
    """Writes the id of a row's representative to a column; null for representatives and others.

    Rows that were deleted or embedded again since the groups were found belong to none, unless they
    are as similar as before.

    Args:
        store: the store.
        groups: as `find_duplicates` returns them.
        column: name of the column.
        where: SQL condition, with which they were found; other rows keep their values.
        overwrite: whether an existing column may be written.

    Returns:
        The number of rows that are duplicates of another one.

    Raises:
        SchemaError: the column exists, unless `overwrite`.
    """
    columns = pa.schema([(column, pa.string())])
    require_new_columns(store, columns, overwrite=overwrite)
    of: dict[str, str] | None = None

    def compute(batch: pa.RecordBatch) -> dict[str, pa.Array]:
        nonlocal of
        if of is None:  # now that the store is locked
            of = {
                id_: groups[number].ids[0]
                for number, id_, similarity in _similarities(store, [g.ids for g in groups])
                if similarity >= groups[number].similarity - _ROUNDING
            }
        return {column: pa.array([of.get(id_) for id_ in batch["id"].to_pylist()], pa.string())}

    update_columns(store, columns, compute, where)
    return len(of or ())


class _Forest:
    """Disjoint sets with path halving."""

    def __init__(self, count: int) -> None:
        self._parents = array("q", range(count))

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
        roots = np.array([self.root(place) for place in range(len(self._parents))], np.int64)
        order = np.argsort(roots, kind="stable")
        begins = np.flatnonzero(np.diff(roots[order])) + 1
        return [group.tolist() for group in np.split(order, begins) if len(group) > 1]
