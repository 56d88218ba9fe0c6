"""A search through int8 codes gives the hits of a search through the vectors themselves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsicd_embed.errors import StoreCorruptError
from rsicd_embed.records import row_schema
from rsicd_embed.stores import scoring
from rsicd_embed.stores.base import open_store
from rsicd_embed.stores.quantised import QuantisedQueries, QuantisedVectors, mean_of, quantise
from rsicd_embed.stores.row_view import Rows, RowView
from rsicd_embed.stores.segments import segment_store
from rsicd_embed.stores.segments.segment_store import SegmentStore

from .contract import MADE_BY, FolderContract, batch


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


class TestExactWithCodes(FolderContract):
    """The contract where every upsert leaves one segment with codes."""

    scheme = "exact"

    @pytest.fixture(autouse=True)
    def code_everything(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(segment_store, "CODED_ROWS", 1)
        monkeypatch.setattr(SegmentStore, "_after_upsert", SegmentStore.optimize)


def coded(vectors: np.ndarray) -> QuantisedVectors:
    mean = mean_of(vectors)
    return QuantisedVectors(*quantise(vectors, mean), mean)


def vectors_like(kind: str, count: int, dim: int, random: np.random.Generator) -> np.ndarray:
    """Unit vectors of a geometry that is hard to round to eight bits, or to search."""
    normal = random.standard_normal((count, dim))
    match kind:
        case "clustered":
            normal = random.standard_normal((3, dim))[random.integers(0, 3, count)] + normal / 9
        case "cone with outlier dimensions":
            normal[:, : 1 + dim // 50] *= 30
            normal += 10 * random.standard_normal(dim)
        case "one-hot":
            normal = np.eye(dim)[random.integers(0, dim, count)]
        case "equal":
            normal[:] = normal[0]
    return unit(normal)


@pytest.fixture(autouse=True)
def use_codes_for_few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "LEAST_ROWS", 1)


KINDS = ("uniform", "clustered", "cone with outlier dimensions", "one-hot", "equal")


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=15)
@given(dim=st.sampled_from((1, 2, 7, 64, 333)), queries=st.integers(1, 8), seed=st.integers(0, 99))
def test_bounds_hold_and_candidates_include_the_best(
    kind: str, dim: int, queries: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    vectors = vectors_like(kind, 300, dim, random)
    sought = vectors_like("uniform", queries, dim, random).astype(np.float64)
    sought[0] = vectors[5]
    sought /= np.linalg.norm(sought, axis=1, keepdims=True)
    codes = coded(vectors)
    exact = sought @ vectors.T.astype(np.float64)

    upper, width = QuantisedQueries(sought, codes.mean).upper_bounds(codes, slice(None))

    assert (exact <= upper).all()
    assert (exact >= upper - width).all()
    attributes = pa.table({"id": [f"{row:03}" for row in range(300)]})
    schema = row_schema(dim, pa.schema([])).empty_table().select(["id", "vector"]).schema
    alive = random.random(300) < 0.5
    for live in (None, alive):
        plain = Rows(schema, (RowView(vectors, attributes, live),))
        fast = Rows(schema, (RowView(vectors, attributes, live, codes),))
        assert scoring.search(fast, sought, 10, None) == scoring.search(plain, sought, 10, None)


def test_codes_narrow_a_search_to_few_candidates() -> None:
    random = np.random.default_rng(0)
    vectors = vectors_like("cone with outlier dimensions", 20_000, 256, random)
    query = unit(vectors[:1] + 0.3 * unit(random.standard_normal((1, 256)))).astype(np.float64)
    rows = Rows(
        pa.schema([("id", pa.string()), ("vector", pa.list_(pa.float32(), 256))]),
        (RowView(vectors, pa.table({"id": ["x"] * 20_000}), None, coded(vectors)),),
    )
    assert 10 <= len(scoring.nearest(rows, query, 10, [None]).row) < 400


def filled(path: Path, count: int = 300) -> SegmentStore:
    store = open_store(f"exact:{path}", provenance=MADE_BY)
    vectors = unit(np.random.default_rng(1).standard_normal((count, MADE_BY.dim)))
    store.upsert([batch([f"{row:03}" for row in range(count)], vectors)])
    assert isinstance(store, SegmentStore)
    return store


def test_optimize_codes_a_large_store_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segment_store, "CODED_ROWS", 300)
    store = filled(tmp_path / "store", 299)
    store.optimize()
    assert not list(tmp_path.rglob("codes-*"))
    store.upsert([batch(["new"], unit(np.ones((1, MADE_BY.dim))))])
    before = store.search(np.eye(MADE_BY.dim)[:2], k=7)

    store.optimize()

    (codes,) = tmp_path.rglob("codes-*")
    assert store.search(np.eye(MADE_BY.dim)[:2], k=7) == before
    store.optimize()
    assert list(tmp_path.rglob("codes-*")) == [codes]
    store.delete(["new"])
    store.optimize()  # too few once more
    assert not list(tmp_path.rglob("codes-*"))


def test_damaged_codes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segment_store, "CODED_ROWS", 1)
    filled(tmp_path / "store").optimize()
    (codes,) = tmp_path.rglob("codes-*")
    raw = bytearray(codes.read_bytes())
    raw[500] ^= 1
    codes.write_bytes(raw)
    with pytest.raises(StoreCorruptError, match="codes-"):
        open_store(f"exact:{tmp_path / 'store'}")
    codes.unlink()
    with pytest.raises(StoreCorruptError, match="codes-"):
        open_store(f"exact:{tmp_path / 'store'}")
