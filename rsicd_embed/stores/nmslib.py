"""`nmslib:PATH[?M=…&efConstruction=…&efSearch=…&recall=…]`: an HNSW graph over rows in a folder.

It is a folder of segments, the first of them searched through an NMSLib HNSW graph.

Rows upserted since the graph was built are scanned exactly, dead ones are dropped, and every
candidate is scored again, so hits differ from an exact scan's only where the graph missed a row.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import replace

import numpy as np
import pyarrow as pa

from rsicd_embed import files
from rsicd_embed.errors import StoreCorruptError
from rsicd_embed.records import VECTOR
from rsicd_embed.stores import changes, scoring
from rsicd_embed.stores.base import StoreInfo, StoreURI
from rsicd_embed.stores.graph import Graph, GraphHits, GraphSettings
from rsicd_embed.stores.queries import require_k, unit_queries
from rsicd_embed.stores.scoring import Candidates
from rsicd_embed.stores.segments.segment_log import SegmentLog, Snapshot
from rsicd_embed.stores.segments.segment_manifest import GraphEntry, Manifest
from rsicd_embed.stores.segments.segment_store import SegmentStore

GRAPH_ROWS = 1_000  # fewer are scanned in less time than the graph's overhead
FOLD_ROWS = 100_000  # an upsert folds by itself when more rows than this are fresh
FOLD_SHARE = 1.0  # … and more than this share of the graph's rows
_SPARE = 10  # fetched beyond k, so that ties at the k-th place are seen
_LARGEST_SHARE = 0.1  # a search for more of the rows than this is faster exactly
_REMEDY = "rebuild it with optimize(), or ingest again into a new folder"


class NmslibStore(SegmentStore):
    """A VectorStore whose searches without `where` go through an HNSW graph."""

    kind = "nmslib"
    _graph: tuple[str, Graph] | None = None

    def __init__(self, uri: StoreURI, log: SegmentLog) -> None:
        super().__init__(uri, log)
        self._how = self.settings(uri)

    @classmethod
    def settings(cls, uri: StoreURI) -> GraphSettings:
        """What a URI says of graphs that are built from now on; and of all searches, efSearch."""
        given = uri.numbers(
            M=(2, 256), efConstruction=(4, 10_000), efSearch=(10, 100_000), recall=(0.1, 1)
        )
        names = {"M": "neighbours", "efConstruction": "ef_construction", "efSearch": "ef_search"}
        whole = {names[one]: int(value) for one, value in given.items() if one in names}
        return replace(GraphSettings(recall=given.get("recall", GraphSettings.recall)), **whole)

    def search(self, queries: np.ndarray, k: int = 10, where: str | None = None) -> pa.Table:
        """The k best rows for each query; see `VectorStore.search`."""
        while True:
            now = self._now()
            try:
                return self._search(now, queries, k, where)
            except FileNotFoundError as error:  # a graph that was replaced since `now` was read
                if self._now() is now:
                    raise StoreCorruptError(f"{error.filename} is gone; {_REMEDY}") from None

    def info(self) -> StoreInfo:
        """What is in the store, and how to get a faster NMSLib where there is one."""
        from rsicd_embed.stores._lazy_nmslib import ADVICE

        return replace(super().info(), advice=ADVICE)

    def optimize(self) -> None:
        """Merges all segments into one, and builds a graph over it unless there is a good one."""
        with self._writing() as now:
            self._fold(now)

    def close(self) -> None:
        """Lets go of the files; the store is not usable afterwards."""
        self._graph = None
        super().close()

    def _search(self, now: Snapshot, queries: np.ndarray, k: int, where: str | None) -> pa.Table:
        rows, entry = now.rows, now.manifest.graph
        if entry is None or where is not None:
            return scoring.search(rows, queries, k, where)
        units = unit_queries(queries, self.provenance.dim)
        count = require_k(k)
        fetch, live = count + _SPARE, rows.parts[0].live_rows
        if live < entry.rows:  # as many more as are dead there, on average
            fetch = math.ceil(fetch * entry.rows / live) + _SPARE
        if fetch > _LARGEST_SHARE * entry.rows or not len(units):
            return scoring.search(rows, queries, k, where)
        graph, ef_search = self._loaded(entry), self._how.ef_search or entry.ef_search
        narrow = units.astype(np.float32)
        if len(units) == len(rows.parts) == 1 and live == entry.rows:  # as most often: fewer steps
            nodes, distances = graph.nearest_nodes(narrow[0], fetch, ef_search)
            close = _close(distances.tolist(), graph.reach(nodes, count))
            if close < len(nodes):
                return scoring.hits_of_one(rows, units, graph.rows_of(nodes[:close]), count)
        found = graph.nearest(narrow, fetch, ef_search)
        masks = rows.masks(None)
        chosen, doubtful = _chosen(found, masks[0], count, len(units))
        parts = [chosen]
        if len(rows.parts) > 1:
            parts.append(scoring.nearest(rows, units, count, masks, first=1))
        if doubtful.size:
            # Exact for these queries alone: the graph gave too few live rows, or more ties may
            # lie beyond what it gave.
            only = replace(rows, parts=rows.parts[:1])
            again = scoring.nearest(only, units[doubtful], count, masks[:1])
            parts.append(Candidates(doubtful[again.query], again.row))
        return scoring.hit_table(rows, units, scoring.joined(parts), count)

    def _kept(self, manifest: Manifest) -> int:
        return 1 if manifest.graph else 0

    def _after_upsert(self, now: Snapshot) -> None:
        parts, graph = now.rows.parts, now.manifest.graph
        fresh = sum(part.live_rows for part in (parts[1:] if graph else parts))
        if fresh > max(FOLD_ROWS, FOLD_SHARE * (graph.rows if graph else 0)):
            self._fold(now)

    def _index(self, now: Snapshot) -> tuple[str, float | None]:
        graph = now.manifest.graph
        if graph is None:
            return "exact scan", 1.0
        fresh = sum(part.live_rows for part in now.rows.parts[1:])
        words = (
            f"HNSW (M={graph.neighbours}, efConstruction={graph.ef_construction}, "
            f"efSearch={graph.ef_search}) over {graph.rows} rows"
        )
        return f"{words}, exact scan of {fresh} fresh rows" if fresh else words, graph.ann_recall

    def _loaded(self, entry: GraphEntry) -> Graph:
        held = self._graph
        if held is None or held[0] != entry.file.name:
            folder = self._log.folder
            path, *others = [files.verify(folder, file, _REMEDY) for file in entry.files]
            owners = np.fromfile(others[0], dtype="<u4").astype(np.int64) if others else None
            held = self._graph = (entry.file.name, Graph.load(path, owners, entry.rows))
        return held[1]

    def _fold(self, now: Snapshot) -> None:
        """Merges, builds and commits; the folder is locked."""
        if self._is_folded(now):
            return
        now = changes.merge_all(self._log, now)
        if len(now.rows) < GRAPH_ROWS:
            return
        matrix, segment = now.rows.parts[0].matrix, now.manifest.segments[0]
        graph = Graph.build(matrix, self._how)
        measured = graph.measure(matrix, self._how)
        dim = now.rows.schema.field(VECTOR).type.list_size
        file = self._log.add_file(
            "graph", "hnsw", lambda path: graph.save(path, dim, self._how.neighbours)
        )
        owners = None
        if graph.owners is not None:
            owners = self._log.add_numbers("owners", graph.owners)
        entry = GraphEntry(
            file,
            segment.vectors.name,
            segment.rows,
            self._how.neighbours,
            self._how.ef_construction,
            measured.ef_search,
            measured.ann_recall,
            owners,
        )
        generation = now.manifest.generation + 1
        self._log.commit(replace(now.manifest, generation=generation, graph=entry))
        self._graph = (file.name, graph)

    def _is_folded(self, now: Snapshot) -> bool:
        graph = now.manifest.graph
        if graph is None or len(now.rows.parts) != 1 or now.rows.parts[0].live is not None:
            return False
        try:
            for file in graph.files:
                files.verify(self._log.folder, file, _REMEDY)
        except (FileNotFoundError, StoreCorruptError):
            return False
        return True


def _close(distances: list[float], enough: int) -> int:
    """How many of ascending distances are no more than the last of the first `enough`, or ties."""
    if len(distances) < enough:
        return len(distances)
    return bisect_right(distances, distances[enough - 1] + scoring.MARGIN)


def _chosen(
    found: GraphHits, live: np.ndarray | None, k: int, queries: int
) -> tuple[Candidates, np.ndarray]:
    """The live rows that may be among the k best of a query, and the queries that lack some."""
    if live is None and found.each is not None and found.each >= k:
        return _chosen_of_each(found, found.each, k)
    worst = np.full(queries, np.inf, dtype=np.float32)
    worst[found.query] = found.similarity  # the last of each query stays
    query, row, similarity = found.query, found.row, found.similarity
    if live is not None:
        alive = live[row]
        query, row, similarity = query[alive], row[alive], similarity[alive]
    counts = np.bincount(query, minlength=queries)
    begins = np.cumsum(counts) - counts
    enough = counts >= k
    least = np.full(queries, np.inf, dtype=np.float32)
    least[enough] = similarity[begins[enough] + k - 1] - scoring.MARGIN
    least[worst >= least] = np.inf
    chosen = similarity >= least[query]
    return Candidates(query[chosen], row[chosen]), np.flatnonzero(np.isinf(least))


def _chosen_of_each(found: GraphHits, each: int, k: int) -> tuple[Candidates, np.ndarray]:
    """The same where all rows are live, and there are at least k for each query, as most often."""
    similarity = found.similarity.reshape(-1, each)
    chosen = similarity >= similarity[:, k - 1 : k] - scoring.MARGIN
    doubtful = chosen[:, -1].nonzero()[0]
    if doubtful.size:
        chosen[doubtful] = False
    at = chosen.ravel().nonzero()[0]
    return Candidates(found.query[at], found.row[at]), doubtful
