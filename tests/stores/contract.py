"""Tests of stores in local folders, beyond the public contract."""

from __future__ import annotations

from pathlib import Path

import pytest

from rsicd_embed.errors import StoreError
from rsicd_embed.stores.base import VectorStore, open_store
from rsicd_embed.testing.stores import DIM, MADE_BY, StoreContract, batch, stored, unit

__all__ = ["DIM", "MADE_BY", "FolderContract", "batch", "stored", "unit"]


class FolderContract(StoreContract):
    """Subclass it and set `scheme`."""

    scheme: str

    @pytest.fixture
    def uri(self, tmp_path: Path) -> str:
        return f"{self.scheme}:{tmp_path / 'store'}"

    def test_opening_a_missing_store_leaves_no_folder(self, uri: str, tmp_path: Path) -> None:
        self.test_missing_store_is_not_created_for_reading(uri)
        assert not (tmp_path / "store").exists()

    def test_missing_parents_are_created(self, tmp_path: Path) -> None:
        with open_store(f"{self.scheme}:{tmp_path}/a/b/c", MADE_BY) as store:
            store.upsert([batch(["a"])])
            assert len(store) == 1

    def test_empty_folder_is_used(self, tmp_path: Path) -> None:
        with open_store(f"{self.scheme}:{tmp_path}", MADE_BY) as store:
            assert len(store) == 0

    def test_location_is_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("x")
        for location in ("file", "file/below"):
            for provenance in (MADE_BY, None):
                with pytest.raises(StoreError, match=r"is a file; a store is a folder"):
                    open_store(f"{self.scheme}:{tmp_path}/{location}", provenance)
        assert (tmp_path / "file").read_text() == "x"

    def test_folder_of_something_else(self, tmp_path: Path) -> None:
        (tmp_path / "holiday.jpg").write_text("x")
        for provenance in (MADE_BY, None):
            with pytest.raises(StoreError, match=r"holiday\.jpg"):
                open_store(f"{self.scheme}:{tmp_path}", provenance)
        assert [path.name for path in tmp_path.iterdir()] == ["holiday.jpg"]

    def test_location_cannot_be_created(
        self, tmp_path: Path, uri: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*args: object, **kwargs: object) -> None:
            raise PermissionError(13, "Permission denied")

        with monkeypatch.context() as patch:
            patch.setattr(Path, "mkdir", fail)
            with pytest.raises(StoreError, match=r"Permission denied; make the folder writable"):
                open_store(uri, MADE_BY)
        assert list(tmp_path.iterdir()) == []

    def test_info_of_few_rows(self, store: VectorStore) -> None:
        store.upsert([batch(["a", "b"], n=[1, 2])])
        info = store.info()
        assert (info.index, info.ann_recall) == ("exact scan", 1.0)
        assert info.bytes > 0
