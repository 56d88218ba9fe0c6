"""Sample rows, and an embedder that maps each text to its own direction and records its calls."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import rsicd_embed
from rsicd_embed.records import Provenance, vector_array
from rsicd_embed.stores.base import VectorStore, open_store

DIM = 16
MADE_BY = Provenance("words", f"weights:w/tokenizer:t/dim:{DIM}", DIM)
SCHEMES = ("exact", "nmslib", "lancedb")


def direction(text: str) -> np.ndarray:
    """float32 (1, DIM) of unit norm."""
    vector = np.random.default_rng(zlib.crc32(text.encode())).standard_normal((1, DIM))
    return (vector / np.linalg.norm(vector)).astype(np.float32)


class Words:
    """An embedder for which different texts are unrelated; `embedded` lists its texts."""

    name, dim, fingerprint, batch_size = MADE_BY.model, MADE_BY.dim, MADE_BY.fingerprint, 4

    def __init__(self) -> None:
        self.embedded: list[str] = []

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        self.embedded += texts
        return np.concatenate([np.zeros((0, DIM), np.float32), *map(direction, texts)])

    def embed_images(self, images: Iterable[object]) -> np.ndarray:
        return self.embed_texts([f"image {Path(str(image)).read_text()}" for image in images])


class RecordedStore:
    """A store that records its scans."""

    def __init__(self, store: VectorStore) -> None:
        self._store = store
        self.scans: list[tuple[list[str] | None, str | None]] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    def scan(self, columns: list[str] | None = None, where: str | None = None) -> object:
        self.scans.append((columns, where))
        return self._store.scan(columns, where)


def table(n: int = 700, seed: int = 0) -> pa.Table:
    """Rows with nulls, quotes, lists and times."""
    random = np.random.default_rng(seed)
    vectors = np.concatenate([direction(f"row {i}") for i in range(n)])
    return pa.table(
        {
            "id": [f"{i % 7}/{i}" for i in range(n)],
            "vector": vector_array(vectors),
            "width": pa.array(random.integers(0, 500, n), pa.int32()),
            "label": [
                None if i % 11 == 0 else ("it's", "port", 'a "quay"')[i % 3] for i in range(n)
            ],
            "cloud": [None if i % 5 == 0 else float(x) for i, x in enumerate(random.random(n))],
            "at": pa.array([i * 86_400_000_000 for i in range(n)], pa.timestamp("us")),
            "captions": [["a port"] * (i % 3) for i in range(n)],
            "Night": [None if i % 13 == 0 else i % 2 == 0 for i in range(n)],
        }
    )


@pytest.fixture
def words() -> Words:
    return Words()


@pytest.fixture(scope="session")
def uris(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Equal rows in each kind of store, after some changes; read only."""
    uris_by_scheme = {}
    for scheme in SCHEMES:
        uris_by_scheme[scheme] = f"{scheme}:{tmp_path_factory.mktemp('sql') / 'store'}"
        with open_store(uris_by_scheme[scheme], MADE_BY) as store:
            store.upsert(table(300, seed=1))
            store.upsert(table().slice(0, 500))
            store.delete(["1/1", "nobody"])
            store.upsert(table().slice(200))
    return uris_by_scheme


@pytest.fixture(params=SCHEMES)
def store(request: pytest.FixtureRequest, uris: dict[str, str]) -> Iterator[VectorStore]:
    with open_store(uris[request.param]) as opened:
        yield opened


@pytest.fixture
def exact(uris: dict[str, str]) -> Iterator[VectorStore]:
    with open_store(uris["exact"]) as opened:
        yield opened


@pytest.fixture
def ask(exact: VectorStore, words: Words) -> Callable[[str], list[dict[str, object]]]:
    """Returns the rows of a query."""
    return lambda query: rsicd_embed.sql(query, exact, words).to_pylist()
