"""Making, opening and closing a store."""

from __future__ import annotations

import pytest

from rsicd_embed.errors import FingerprintError, StoreError, StoreNotFoundError
from rsicd_embed.records import FIXED_COLUMNS, Provenance
from rsicd_embed.stores.base import VectorStore, open_store
from rsicd_embed.testing.stores.sample_rows import DIM, MADE_BY, batch, unit


class Opening:
    """Making, opening and closing a store."""

    def test_is_a_vector_store(self, store: VectorStore, uri: str) -> None:
        """It has what `VectorStore` has, and knows its URI and model."""
        assert isinstance(store, VectorStore)
        assert store.uri == uri
        assert store.provenance == MADE_BY

    def test_new_store_is_empty_and_stays(self, store: VectorStore, uri: str) -> None:
        """An empty store is there when it is opened again."""
        assert len(store) == 0
        assert store.schema.names == list(FIXED_COLUMNS)
        with open_store(uri) as again:
            assert len(again) == 0
            assert again.provenance == MADE_BY

    def test_absent_store_is_not_made_for_reading(self, uri: str) -> None:
        """However often it is asked for."""
        for _ in range(2):
            with pytest.raises(StoreNotFoundError, match="no store at"):
                open_store(uri, MADE_BY, create=False)
            with pytest.raises(StoreNotFoundError, match="no store at"):
                open_store(uri)

    def test_other_model_is_refused(self, store: VectorStore, uri: str) -> None:
        """In words that say what differs, and only that."""
        other = Provenance("large", f"weights:bbb/tokenizer:t/dim:{DIM}", DIM)
        with pytest.raises(FingerprintError, match=r"'small'.*weights aaa ≠ bbb") as caught:
            open_store(uri, other)
        assert "tokenizer" not in str(caught.value)
        with pytest.raises(FingerprintError, match="length 9"):
            open_store(uri, Provenance("small", MADE_BY.fingerprint, 9))

    def test_closed(self, store: VectorStore) -> None:
        """A closed store says so, whatever is asked of it; closing twice is fine."""
        store.close()
        store.close()
        for use in (
            lambda: len(store),
            lambda: store.info(),
            lambda: store.schema,
            lambda: store.search(unit(1)),
            lambda: store.scan(),
            lambda: store.upsert([batch(["a"])]),
            lambda: store.delete(["a"]),
            lambda: store.optimize(),
        ):
            with pytest.raises(StoreError, match="is closed"):
                use()
