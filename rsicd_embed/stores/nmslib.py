"""`nmslib:PATH[?M=…&efConstruction=…&efSearch=…&recall=…]`: HNSW search over a segment folder.

The first segment is searched through an NMSLib graph, rows upserted since the graph was built are
scanned exactly, and dead rows are dropped. Every candidate is scored again, so hits differ from an
exact scan only where the graph missed a row.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import replace

import numpy as np
import pyarrow as pa

from rsicd_embed import files
from rsicd_embed.errors import StoreCorruptError
from rsicd_embed.records import VECTOR
from rsicd_embed.stores import scoring
from rsicd_embed.stores.base import StoreInfo
from rsicd_embed.stores.graph import Graph, GraphHits, GraphSettings, Measured
from rsicd_embed.stores.planner import SearchCosts, index_depth
from rsicd_embed.stores.scoring import Candidates, require_k, unit_queries
from rsicd_embed.stores.segments.segment_log import SegmentLog, Snapshot
from rsicd_embed.stores.segments.segment_manifest import GraphEntry, Manifest
from rsicd_embed.stores.segments.segment_store import SegmentStore
from rsicd_embed.stores.uri import StoreURI

GRAPH_ROWS = 1_000  # fewer rows are scanned faster than a graph is searched
FOLD_ROWS = 100_000  # an upsert rebuilds the graph when more rows than this are fresh
FOLD_SHARE = 1.0  # … and more than this share of the graph's rows
_UNLOCKED_BUILDS = 3
_SPARE = 10  # hits fetched beyond k, to see ties at rank k
_LARGEST_SHARE = 0.1  # fetching more than this share of the rows is faster by an exact scan
_COSTS = SearchCosts(fixed_us=100, per_hit_us=10, per_row_us=0.3)
_REMEDY = "rebuild it with optimize(), or ingest again into a new folder"


class NmslibStore(SegmentStore):
    """A VectorStore whose searches use an HNSW graph, unless few rows match."""

    kind = "nmslib"
    _graph: tuple[str, Graph] | None = None  # file name and graph

    def __init__(self, uri: StoreURI, log: SegmentLog) -> None:
        super().__init__(uri, log)
        self._settings = self.settings(uri)

    @classmethod
    def settings(cls, uri: StoreURI) -> GraphSettings:
        """Parses the options of a URI: parameters of future graphs, and efSearch of all searches.

        Raises:
            StoreURIError: an unknown option, or a value outside its limits.
        """
        given = uri.numbers(
            M=(2, 256), efConstruction=(4, 10_000), efSearch=(10, 100_000), recall=(0.1, 1)
        )
        fields = {"M": "neighbours", "efConstruction": "ef_construction", "efSearch": "ef_search"}
        integers = {fields[name]: int(value) for name, value in given.items() if name in fields}
        return GraphSettings(recall=given.get("recall", GraphSettings.recall), **integers)

    def search(self, queries: np.ndarray, k: int = 10, where: str | None = None) -> pa.Table:
        """Finds the k most similar rows for each query; see `VectorStore.search`."""
        while True:
            now = self._now()
            try:
                return self._search(now, queries, k, where)
            except FileNotFoundError as error:  # the graph was replaced since `now` was read
                if self._now() is now:
                    raise StoreCorruptError(f"{error.filename} is gone; {_REMEDY}") from None

    def info(self) -> StoreInfo:
        """Describes the store, with advice on a faster NMSLib if there is one."""
        from rsicd_embed.stores._lazy_nmslib import ADVICE

        return replace(super().info(), advice=ADVICE)

    def optimize(self) -> None:
        """Merges all segments into one, and builds its graph unless that is up to date.

        The folder is not locked while the graph is built, which may take minutes, unless others
        keep merging the segment with what they write.
        """
        for _ in range(_UNLOCKED_BUILDS):
            with self._writing() as now:
                if self._is_rebuilt(now):
                    return
                now = self._merge_all(now)
            if len(now.rows) < GRAPH_ROWS:
                return
            segment, built = now.manifest.segments[0].vectors, self._build(now)
            with self._writing() as now:
                segments = now.manifest.segments
                if segments and segments[0].vectors == segment:
                    if not self._is_rebuilt(now):  # else another process was faster
                        self._commit_graph(now, *built)
                    return
        with self._writing() as now:
            now = self._merge_all(now)
            if len(now.rows) >= GRAPH_ROWS:
                self._commit_graph(now, *self._build(now))

    def close(self) -> None:
        """Releases the files; the store cannot be used afterwards."""
        self._graph = None
        super().close()

    def _search(self, now: Snapshot, queries: np.ndarray, k: int, where: str | None) -> pa.Table:
        rows, entry = now.rows, now.manifest.graph
        units = unit_queries(queries, self.provenance.dim)
        count, masks = require_k(k), rows.masks(where)
        fetch: int | None = None
        if entry is not None and len(units):
            live = entry.rows if masks[0] is None else int(np.count_nonzero(masks[0]))
            fetch = index_depth(_COSTS, count + _SPARE, live, entry.rows)
        if entry is None or fetch is None or fetch > _LARGEST_SHARE * entry.rows:
            candidates = scoring.nearest(rows, units, count, masks)
            return scoring.hit_table(rows, units, candidates, count)
        graph, ef_search = self._loaded(entry), self._settings.ef_search or entry.ef_search
        narrow = units.astype(np.float32)
        if len(units) == len(rows.parts) == 1 and masks[0] is None:  # fast path: the usual case
            nodes, distances = graph.nearest_nodes(narrow[0], fetch, max(ef_search, 4 * fetch))
            close = _close(distances.tolist(), graph.reach(nodes, count))
            if close < len(nodes):
                return scoring.single_query_hits(rows, units, graph.rows_of(nodes[:close]), count)
        hits = graph.nearest(narrow, fetch, ef_search, count)
        chosen, doubtful = _chosen(hits, masks[0], count, len(units))
        pairs = [chosen]
        if len(rows.parts) > 1:
            pairs.append(scoring.nearest(rows, units, count, masks, first=1))
        if doubtful.size:
            # The graph gave too few matching rows, or more ties may follow: search these queries
            # exactly.
            indexed = replace(rows, parts=rows.parts[:1])
            exact = scoring.nearest(indexed, units[doubtful], count, masks[:1])
            pairs.append(Candidates(doubtful[exact.query], exact.row))
        return scoring.hit_table(rows, units, scoring.joined(pairs), count)

    def _fixed(self, manifest: Manifest) -> int:
        return 1 if manifest.graph else 0

    def _after_upsert(self) -> None:
        now = self._now()
        parts, graph = now.rows.parts, now.manifest.graph
        fresh = sum(part.live_rows for part in (parts[1:] if graph else parts))
        if fresh > max(FOLD_ROWS, FOLD_SHARE * (graph.rows if graph else 0)):
            self.optimize()

    def _index(self, now: Snapshot) -> tuple[str, float | None]:
        graph = now.manifest.graph
        if graph is None:
            return "exact scan", 1.0
        fresh = sum(part.live_rows for part in now.rows.parts[1:])
        index = (
            f"HNSW (M={graph.neighbours}, efConstruction={graph.ef_construction}, "
            f"efSearch={graph.ef_search}) over {graph.rows} rows"
        )
        return f"{index}, exact scan of {fresh} fresh rows" if fresh else index, graph.ann_recall

    def _loaded(self, entry: GraphEntry) -> Graph:
        cached = self._graph
        if cached is None or cached[0] != entry.file.name:
            path, *others = [files.verify(self._log.folder, file, _REMEDY) for file in entry.files]
            owners = np.fromfile(others[0], dtype="<u4").astype(np.int64) if others else None
            cached = self._graph = (entry.file.name, Graph.load(path, owners, entry.rows))
        return cached[1]

    def _build(self, now: Snapshot) -> tuple[Graph, Measured]:
        """Builds and measures the graph of the first segment."""
        matrix = now.rows.parts[0].matrix
        graph = Graph.build(matrix, self._settings)
        return graph, graph.measure(matrix, self._settings)

    def _commit_graph(self, now: Snapshot, graph: Graph, measured: Measured) -> None:
        """Saves and commits the graph of the first segment; while locked."""
        segment, settings = now.manifest.segments[0], self._settings
        dim = now.rows.schema.field(VECTOR).type.list_size
        file = self._log.add_file(
            "graph", "hnsw", lambda path: graph.save(path, dim, settings.neighbours)
        )
        owners = graph.owners
        entry = GraphEntry(
            file=file,
            segment=segment.vectors.name,
            rows=segment.rows,
            neighbours=settings.neighbours,
            ef_construction=settings.ef_construction,
            ef_search=measured.ef_search,
            ann_recall=measured.ann_recall,
            owners=None if owners is None else self._log.add_numbers("owners", owners),
        )
        generation = now.manifest.generation + 1
        self._log.commit(replace(now.manifest, generation=generation, graph=entry))
        self._graph = (file.name, graph)

    def _is_rebuilt(self, now: Snapshot) -> bool:
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
    """Number of leading ascending distances up to the one at rank `enough`, ties included."""
    if len(distances) < enough:
        return len(distances)
    return bisect_right(distances, distances[enough - 1] + scoring.MARGIN)


def _chosen(
    hits: GraphHits, live: np.ndarray | None, k: int, queries: int
) -> tuple[Candidates, np.ndarray]:
    """The live rows that may be among the k best of a query, and the queries that may lack some.

    Args:
        hits: at least one for each query.
        live: bool (rows,); None if all rows are live.
        k: number of rows wanted per query.
        queries: number of queries.
    """
    if live is None and hits.per_query is not None and hits.per_query >= k:
        # The usual case, in fewer steps: all rows are live, and each query has the same number.
        table = hits.similarity.reshape(-1, hits.per_query)
        close = table >= table[:, k - 1 : k] - scoring.MARGIN
        doubtful = close[:, -1].nonzero()[0]
        if doubtful.size:
            close[doubtful] = False
        positions = close.ravel().nonzero()[0]
        return Candidates(hits.query[positions], hits.row[positions]), doubtful
    worst = np.full(queries, np.inf, dtype=np.float32)
    worst[hits.query] = hits.similarity  # assignment keeps the last of each query
    query, row, similarity = hits.query, hits.row, hits.similarity
    if live is not None:
        mask = live[row]
        query, row, similarity = query[mask], row[mask], similarity[mask]
    counts = np.bincount(query, minlength=queries)
    begins = np.cumsum(counts) - counts
    enough = counts >= k
    lowest = np.full(queries, np.inf, dtype=np.float32)
    lowest[enough] = similarity[begins[enough] + k - 1] - scoring.MARGIN
    lowest[worst >= lowest] = np.inf
    close = similarity >= lowest[query]
    return Candidates(query[close], row[close]), np.flatnonzero(np.isinf(lowest))
