"""Random operations on several stores, compared with a dict, by Hypothesis.

class MyMachine(StoreMachine):
    def uris(self, folder):
        return [f"mine:{folder / 'store'}"]

TestMyMachine = MyMachine.TestCase
TestMyMachine.settings = SETTINGS
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from rsicd_embed.stores.base import VectorStore, open_store
from rsicd_embed.testing.stores.sample_rows import DIM, MADE_BY, batch, stored, unit

# Takes a few seconds for stores that write in a few milliseconds.
SETTINGS = settings(
    max_examples=8,
    stateful_step_count=15,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
IDS = st.sampled_from(["a", "b", "c'", "d\n", "é", *(f"i{n}" for n in range(20))])
VECTORS = st.integers(0, 11)  # few directions, so that ties are frequent
POOL = unit(12, DIM, seed=6)
ACCEPTS: dict[str | None, Callable[[int | None], bool]] = {
    None: lambda n: True,
    "n > 1": lambda n: n is not None and n > 1,
    "n is null": lambda n: n is None,
}


class StoreMachine(RuleBasedStateMachine):
    """Stores with the same history hold the rows of a dict, and give equal hits.

    Attributes:
        tolerance: largest difference between the scores of two stores; 0 for bit-identical ones.
    """

    tolerance = 1e-6

    def uris(self, folder: Path) -> list[str]:
        """URIs of the stores to test, in an empty folder; an `exact:` store is always added."""
        raise NotImplementedError("a subclass provides the URIs")

    @initialize()
    def start(self) -> None:
        """Creates the stores, with a column for conditions."""
        self.folder = TemporaryDirectory()
        folder = Path(self.folder.name)
        self.model: dict[str, tuple[int, int | None]] = {}
        self.stores: list[VectorStore] = []
        for uri in (f"exact:{folder / 'reference'}", *self.uris(folder)):
            self.stores.append(open_store(uri, MADE_BY))
        for store in self.stores:
            store.upsert([batch(["a"], n=[1])])
            store.delete(["a"])

    @rule(
        written=st.lists(
            st.tuples(IDS, VECTORS, st.none() | st.integers(0, 3)), min_size=1, max_size=12
        )
    )
    def upsert(self, written: list[tuple[str, int, int | None]]) -> None:
        """Upserts rows, some with existing ids or with ids repeated in the batch."""
        ids, vectors, numbers = zip(*written, strict=True)
        rows = batch(list(ids), POOL[list(vectors)], n=pa.array(numbers, pa.int64()))
        for store in self.stores:
            assert store.upsert([rows]) == len(set(ids))
        self.model |= {key: (vector, n) for key, vector, n in written}

    @rule(ids=st.lists(IDS, max_size=8))
    def delete(self, ids: list[str]) -> None:
        """Deletes ids, some of them unknown."""
        for store in self.stores:
            assert store.delete(ids) == len(set(ids) & set(self.model))
        for key in ids:
            self.model.pop(key, None)

    @rule()
    def optimize(self) -> None:
        """Compacts the stores and builds their indexes."""
        for store in self.stores:
            store.optimize()

    @rule(choice=st.integers(0, 9))
    def reopen(self, choice: int) -> None:
        """Closes one of the stores and reopens it."""
        number = choice % len(self.stores)
        uri = self.stores[number].uri
        self.stores[number].close()
        self.stores[number] = open_store(uri, MADE_BY)

    @rule(vector=VECTORS, k=st.integers(1, 30), where=st.sampled_from(list(ACCEPTS)))
    def search(self, vector: int, k: int, where: str | None) -> None:
        """All stores give equal hits, which are those of brute force over the dict."""
        accepts = ACCEPTS[where]
        cosine = POOL.astype(float) @ POOL[vector].astype(float)
        expected = sorted(
            (-round(cosine[other], 5), key) for key, (other, n) in self.model.items() if accepts(n)
        )[:k]
        hits = [store.search(POOL[vector], k, where) for store in self.stores]
        assert hits[0]["id"].to_pylist() == [key for _, key in expected]
        for others in hits[1:]:
            self._same(others, hits[0])

    @invariant()
    def same_rows(self) -> None:
        """All stores contain exactly the rows of the dict."""
        expected = {key: (POOL[vector].tobytes(), n) for key, (vector, n) in self.model.items()}
        for store in getattr(self, "stores", []):
            assert len(store) == len(expected)
            got = {key: (row["vector"], row.get("n")) for key, row in stored(store).items()}
            assert got == expected

    def teardown(self) -> None:
        """Closes and removes the stores."""
        for store in getattr(self, "stores", []):
            store.close()
        if hasattr(self, "folder"):
            self.folder.cleanup()

    def _same(self, hits: pa.Table, expected: pa.Table) -> None:
        assert hits.schema == expected.schema
        assert hits.drop(["score"]).equals(expected.drop(["score"]))
        np.testing.assert_allclose(hits["score"], expected["score"], rtol=0, atol=self.tolerance)
