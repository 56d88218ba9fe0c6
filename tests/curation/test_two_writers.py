"""Another process writes while labels, captions and duplicates are computed, in every store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from rsicd_embed.captioning.caption_config import Decoding
from rsicd_embed.captioning.captioner import Captioner
from rsicd_embed.curation import labels
from rsicd_embed.curation.caption_column import caption_store
from rsicd_embed.curation.corrections import LabelColumns, LabelState, set_label
from rsicd_embed.curation.near_duplicates import find_duplicates, write_duplicates
from rsicd_embed.curation.vector_columns import compute_columns
from rsicd_embed.errors import StoreError
from rsicd_embed.indexing.housekeeping import delete_rows
from rsicd_embed.records import Provenance, vector_array, vector_matrix
from rsicd_embed.stores.base import VectorStore, open_store
from tests.captioning.tiny_captioner import DIM, tiny_parts, unit_vectors
from tests.helpers import SCHEMES
from tests.other_writer import before_the_lock, run_in_a_process

MADE_BY = Provenance("test-model", "weights:test/dim:8", DIM)
ROWS = 12
VECTORS = unit_vectors(ROWS, seed=5)
OTHER = unit_vectors(4, seed=6)
LABEL = LabelColumns("label")
CLASSES = ("a", "b", "c")
GREEDY = Decoding("greedy")


class Axes:
    """An embedder whose classes are the first axes of the space."""

    name, dim, fingerprint, batch_size = MADE_BY.model, DIM, MADE_BY.fingerprint, 4

    def embed_texts(self, texts: list[str]) -> np.ndarray:
        return np.eye(DIM, dtype=np.float32)[[CLASSES.index(text[-1]) for text in texts]]

    embed_images = embed_texts


def label_of(vector: np.ndarray) -> str:
    return CLASSES[int(np.argmax(vector[: len(CLASSES)]))]


def rows_of(ids: list[str], vectors: np.ndarray, **columns: Any) -> list[pa.RecordBatch]:
    return [pa.record_batch({"id": ids, "vector": vector_array(vectors)} | columns)]


@pytest.fixture(params=SCHEMES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[VectorStore]:
    with open_store(f"{request.param}:{tmp_path / 'store'}", MADE_BY) as opened:
        years = pa.array(range(ROWS))
        opened.upsert(rows_of([f"{i:02}" for i in range(ROWS)], VECTORS, year=years))
        yield opened


def stored(store: VectorStore) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for row in store.scan().read_all().to_pylist()}


def change_rows(send: Callable[..., None], uri: str) -> None:
    """Deletes 03, embeds 04 again, adds 12, and moves 05 to another year."""
    with open_store(uri) as other:
        other.delete(["03"])
        other.upsert(rows_of(["04", "12"], OTHER[:2], year=pa.array([4, 12])))
        other.upsert(rows_of(["05"], VECTORS[5:6], year=pa.array([99])))


def correct(send: Callable[..., None], uri: str, id_: str, was: str | None) -> None:
    with open_store(uri) as other:
        set_label(other, LABEL, id_, was, LabelState("lake", 1.0, "lake"))


def caption_all(send: Callable[..., None], uri: str) -> None:
    with open_store(uri) as other:
        likely = {"caption_auto_log_probability": pa.array([0, 0], pa.float32())}
        rows = rows_of(["06", "07"], VECTORS[6:8], caption_auto=["theirs"] * 2, **likely)
        other.merge(rows)  # type: ignore[attr-defined]


def embed_again(send: Callable[..., None], uri: str, ids: list[str]) -> None:
    with open_store(uri) as other:
        other.upsert(rows_of(ids, OTHER[: len(ids)]))


def set_years(send: Callable[..., None], uri: str, years: dict[str, int]) -> None:
    with open_store(uri) as other:
        places = [int(id_) for id_ in years]
        other.upsert(rows_of(list(years), VECTORS[places], year=pa.array(list(years.values()))))


@pytest.mark.parametrize("parts", [5, 100])
def test_others_write_while_columns_are_computed(store: VectorStore, parts: int) -> None:
    """Their process is not kept waiting, and nothing that it wrote is lost."""
    columns = pa.schema([("first", pa.float32())])
    computed: list[int] = []

    def compute(vectors: np.ndarray) -> dict[str, pa.Array]:
        if not computed:
            run_in_a_process(change_rows, store.uri)
        computed.append(len(vectors))
        return {"first": pa.array(vectors[:, 0])}

    written = compute_columns(store, columns, compute, "year < 50", rows_per_write=parts)
    rows = stored(store)
    assert written == ROWS - 2
    assert set(rows) == {f"{i:02}" for i in range(ROWS + 1)} - {"03"}
    assert rows["04"]["first"] == OTHER[0, 0]
    assert rows["05"]["year"] == 99 and rows["05"]["first"] is None
    assert rows["12"]["first"] is None  # as if the row had been added afterwards
    rest = rows.keys() - {"04", "05", "12"}
    assert {id_: rows[id_]["first"] for id_ in rest} == {id_: VECTORS[int(id_), 0] for id_ in rest}


def test_rows_that_keep_changing_are_refused(store: VectorStore) -> None:
    def compute(vectors: np.ndarray) -> dict[str, pa.Array]:
        store.upsert(rows_of(["00"], unit_vectors(1, seed=int(1e6 * abs(vectors[0, 0])))))
        return {"first": pa.array(vectors[:, 0])}

    with pytest.raises(StoreError, match="rows such as '00' kept changing while values were"):
        compute_columns(store, pa.schema([("first", pa.float32())]), compute)
    assert stored(store)["01"]["first"] == VECTORS[1, 0]


def test_labels(store: VectorStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows keep corrections made meanwhile, and get the label of their newest vector."""
    embedder: Any = Axes()
    labels.label_zero_shot(store, embedder, CLASSES)
    was = stored(store)["02"]["label"]
    before_the_lock(monkeypatch, correct, store.uri, "02", was)
    result = labels.label_zero_shot(store, embedder, CLASSES, overwrite=True)
    assert (result.labelled, result.corrected, result.counts["lake"]) == (ROWS, 1, 1)
    before_the_lock(monkeypatch, embed_again, store.uri, ["04", "12"])
    result = labels.label_zero_shot(store, embedder, CLASSES, overwrite=True)
    assert result.labelled == sum(result.counts.values()) == ROWS
    rows = stored(store)
    assert rows["02"]["label"] == rows["02"]["label_corrected"] == "lake"
    assert rows["12"]["label"] is None
    for id_ in rows.keys() - {"02", "12"}:
        assert rows[id_]["label"] == label_of(np.array(rows[id_]["vector"]))


def test_captions(store: VectorStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Captions that another process wrote meanwhile stay, and so does every other change."""
    captioner = Captioner(tiny_parts(), batch_size=4)
    before_the_lock(monkeypatch, caption_all, store.uri)
    result = caption_store(store, captioner, decoding=GREEDY, rows_per_write=5)
    assert result.captioned == ROWS - 2
    rows = stored(store)
    assert [rows[id_]["caption_auto"] for id_ in ("06", "07")] == ["theirs"] * 2
    before_the_lock(monkeypatch, change_rows, store.uri)
    result = caption_store(store, captioner, decoding=GREEDY, overwrite=True)
    assert result.captioned == ROWS - 1
    rows = stored(store)
    assert "03" not in rows and rows["12"]["caption_auto"] is None
    again = caption_store(store, captioner, decoding=GREEDY)
    assert (again.captioned, again.kept) == (1, ROWS - 1)
    rows = stored(store)
    vectors = np.array([row["vector"] for row in rows.values()], np.float32)
    texts = captioner.caption_vectors(vectors, GREEDY).texts
    assert tuple(row["caption_auto"] for row in rows.values()) == texts


def test_duplicates(store: VectorStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row is no duplicate of one that is another image by now."""
    copies = ["20", "21", "22", "30", "31"]
    store.upsert(rows_of(copies, VECTORS[[0, 0, 0, 1, 1]]))
    groups = find_duplicates(store, 0.99)
    assert {group.ids for group in groups} == {("00", "20", "21", "22"), ("01", "30", "31")}
    before_the_lock(monkeypatch, embed_again, store.uri, ["01", "20"])
    assert write_duplicates(store, groups, "duplicate_of") == 2
    marked = {id_: row["duplicate_of"] for id_, row in stored(store).items()}
    assert {id_: of for id_, of in marked.items() if of} == {"21": "00", "22": "00"}


def test_deletion(store: VectorStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The condition counts when the rows are deleted."""
    before_the_lock(monkeypatch, set_years, store.uri, {"02": 50, "11": 1})
    deletion = delete_rows(store, where="year < 3 -- old", ids=["07", "x", "07"])
    assert (deletion.ids, deletion.unknown) == (("00", "01", "07", "11"), ("x",))
    assert {*stored(store)} == {f"{i:02}" for i in range(ROWS)} - {*deletion.ids}
    assert vector_matrix(store.scan().read_all()["vector"]).shape == (ROWS - 4, DIM)
    assert delete_rows(store, ids=["x"]).unknown == ("x",)
