"""Ground truth and workloads of `bench ann`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from rsicd_embed.bench.ann import contenders, ground_truth, vectors, workload
from rsicd_embed.errors import BenchError
from rsicd_embed.stores.lancedb import lance_index

# Cosines to the first axis: 1, .8, .6, .6, .6, 0.
ROWS = np.array(
    [[1, 0, 0], [0.8, 0.6, 0], [0.6, 0.8, 0], [0.6, 0, 0.8], [0.6, -0.8, 0], [0, 1, 0]], np.float32
)
QUERY = np.array([[1, 0, 0]], np.float32)


def unit(n: int, dim: int, seed: int = 0) -> np.ndarray:
    matrix = np.random.default_rng(seed).standard_normal((n, dim))
    return (matrix / np.linalg.norm(matrix, axis=1, keepdims=True)).astype(np.float32)


def ann_recall(positions: list[int], k: int, mask: np.ndarray | None = None) -> float:
    kth = ground_truth.kth_best(ROWS, QUERY, k, mask)
    (share,) = ground_truth.ann_recalls([np.array(positions, np.int64)], ROWS, QUERY, kth, k, mask)
    return float(share)


def test_any_of_the_rows_tied_at_the_last_place_counts() -> None:
    for third in (2, 3, 4):
        assert ann_recall([0, 1, third], 3) == 1.0
    assert ann_recall([2, 3, 4], 3) == 1.0  # each is as good as the third best
    assert ann_recall([0, 1, 5], 3) == pytest.approx(2 / 3)


def test_which_results_count() -> None:
    assert ann_recall([0, 0, 0], 3) == pytest.approx(1 / 3)  # a row counts once
    assert ann_recall([5, 5, 5, 0, 1, 2], 3) == 0.0  # nothing counts beyond k
    assert ann_recall([0, 1, 77, -1], 4) == 0.5
    assert ann_recall([], 3) == 0.0
    mask = np.array([False, True, False, False, False, True])
    assert ann_recall([0, 1], 2, mask) == 0.5  # the first does not pass the filter
    assert ann_recall([1, 5], 5, mask) == 1.0  # no other row passes
    assert ann_recall([1], 5, mask) == 0.5


def test_the_kth_best_agrees_with_a_full_sort(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ground_truth, "_BLOCK_ROWS", 7)
    base, queries = unit(50, 8), unit(5, 8, seed=1)
    base[20:30] = base[3]
    order = np.sort(queries.astype(np.float64) @ base.T.astype(np.float64), axis=1)
    mask = np.arange(50) % 3 == 0
    for k in (1, 4, 11, 50):
        np.testing.assert_allclose(ground_truth.kth_best(base, queries, k), order[:, -k], atol=1e-7)
    some = np.sort((queries.astype(np.float64) @ base.T)[:, mask], axis=1)
    np.testing.assert_allclose(
        ground_truth.kth_best(base, queries, 4, mask), some[:, -4], atol=1e-7
    )
    np.testing.assert_allclose(
        ground_truth.kth_best(base, queries, 40, mask), some[:, 0], atol=1e-7
    )


def test_no_ground_truth() -> None:
    with pytest.raises(BenchError, match="expected at least one row to search, found none"):
        ground_truth.kth_best(ROWS, QUERY, 1, np.zeros(6, bool))
    with pytest.raises(BenchError, match="found errors of"):
        ground_truth.kth_best(2 * ROWS, QUERY, 1)


def whole(source: vectors.VectorSource) -> np.ndarray:
    return np.concatenate(list(source.units()))


def test_varied_copies_enlarge_a_source() -> None:
    source = vectors.generated(300, 16)
    larger = vectors.enlarged(source, 1000, seed=1)
    rows = np.concatenate(list(larger.units()))
    assert larger.rows == len(rows) == 1000
    np.testing.assert_allclose(rows[:300], np.concatenate(list(source.units())), atol=1e-7)
    near = (rows[300:] @ rows[:300].T).max(axis=1)
    assert near.min() > 0.5
    assert np.mean(near > 1 - 1e-6) < 0.02  # if a vector is drawn twice
    again = np.concatenate(list(vectors.enlarged(source, 1000, seed=1).units()))
    np.testing.assert_array_equal(rows, again)
    with pytest.raises(BenchError, match="expected 1 to 200 vectors, found 300"):
        vectors.enlarged(source, 200)


@pytest.mark.parametrize("kind", vectors.KINDS)
def test_generated_vectors_depend_on_the_seed_only(kind: str) -> None:
    first = whole(vectors.generated(500, 32, kind, seed=1))
    assert (first.shape, first.dtype) == ((500, 32), np.float32)
    np.testing.assert_array_equal(first, whole(vectors.generated(500, 32, kind, seed=1)))
    assert not np.array_equal(first, whole(vectors.generated(500, 32, kind, seed=2)))
    np.testing.assert_allclose(np.linalg.norm(first, axis=1), 1, atol=1e-6)
    best = np.sort(first @ first.T, axis=1)[:, -10]
    assert (np.median(best) > 0.5) == (kind == "clustered")


def test_queries_are_held_out_moved_and_far(tmp_path: Path) -> None:
    source = vectors.generated(300, 16)
    prepared = workload.prepare(source, tmp_path, queries=60, k=5, seed=3)
    assert (prepared.rows, prepared.base.shape, prepared.queries.shape) == (
        280,
        (280, 16),
        (60, 16),
    )
    cosines = (prepared.queries @ prepared.base.T).max(axis=1)
    kinds = np.array(prepared.kinds)
    assert {kind: prepared.kinds.count(kind) for kind in set(kinds)} == {
        workload.HELD_OUT: 20,
        workload.MOVED: 20,
        workload.FAR: 20,
    }
    assert cosines[kinds == workload.HELD_OUT].max() < 1 - 1e-3
    assert cosines[kinds == workload.MOVED].mean() > 0.85 > cosines[kinds == workload.FAR].mean()
    rows = {
        row.tobytes() for row in [*prepared.base, *prepared.queries[kinds == workload.HELD_OUT]]
    }
    assert rows == {row.tobytes() for row in whole(source)}
    again = workload.prepare(source, tmp_path, queries=60, k=5, seed=3)
    np.testing.assert_array_equal(prepared.queries, again.queries)


def test_batches_have_the_rows_and_a_column_for_filters(tmp_path: Path) -> None:
    prepared = workload.prepare(vectors.generated(2000, 8), tmp_path, queries=3, k=1)
    table = pa.Table.from_batches(list(prepared.batches(700)))
    assert table.schema == prepared.schema
    flat = table["vector"].combine_chunks().flatten().to_numpy()
    np.testing.assert_array_equal(flat.reshape(-1, 8), prepared.base)
    assert [int(id_) for id_ in table["id"].to_pylist()] == list(range(prepared.rows))
    parts = np.array(table["part"].to_pylist())
    for percent, least in ((100, 1.0), (10, 0.1), (0.1, 0.001)):
        share = np.mean(parts < workload.threshold(percent))
        assert share == pytest.approx(least, abs=1 / prepared.rows)


def test_settings_are_parsed_from_the_description_of_an_index() -> None:
    words = "HNSW (M=16, efConstruction=200, efSearch=400) over 1900 rows"
    assert contenders.index_settings(words) == {"M": 16, "efConstruction": 200, "efSearch": 400}
    assert contenders.index_settings(str(lance_index.AnnIndex(9, 9, 20, 2, 1.0))) == {
        "nprobes": 20,
        "refine": 2,
    }
