"""Captions of all rows of a store: columns, resuming, and refusals."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from rsicd_embed.captioning.caption_config import Decoding
from rsicd_embed.captioning.captioner import Captioner
from rsicd_embed.curation.caption_column import caption_store
from rsicd_embed.errors import FingerprintError, SchemaError, StoreError
from rsicd_embed.records import Provenance, vector_array
from rsicd_embed.stores.base import VectorStore, open_store
from tests.captioning.tiny_captioner import DIM, MADE_BY, tiny_parts, unit_vectors
from tests.helpers import SCHEMES

ROWS = 20
VECTORS = unit_vectors(ROWS, seed=5)
GREEDY = Decoding("greedy")
LIKELY = "caption_auto_log_probability"


@pytest.fixture(params=SCHEMES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[VectorStore]:
    table = pa.table(
        {
            "id": [f"{i:02}" for i in range(ROWS)],
            "vector": vector_array(VECTORS),
            "caption": ["a port"] * ROWS,
            "year": pa.array(range(ROWS)),
        }
    )
    with open_store(f"{request.param}:{tmp_path / 'store'}", MADE_BY) as opened:
        opened.upsert(table.to_batches())
        yield opened


@pytest.fixture(scope="module")
def captioner() -> Captioner:
    return Captioner(tiny_parts(), batch_size=4)


def captions(store: VectorStore) -> list[str | None]:
    return list(store.scan().read_all().sort_by("id")["caption_auto"].to_pylist())


def test_every_row_gets_the_caption_of_its_vector(store: VectorStore, captioner: Captioner) -> None:
    expected = captioner.caption_vectors(VECTORS, GREEDY)
    done: list[int] = []
    result = caption_store(store, captioner, decoding=GREEDY, progress=done.append)
    rows = store.scan().read_all().sort_by("id")
    assert (result.captioned, result.kept, sum(done)) == (ROWS, 0, ROWS)
    assert tuple(rows["caption_auto"].to_pylist()) == expected.texts
    assert rows[LIKELY].to_pylist() == pytest.approx(expected.log_probabilities.tolist())
    assert rows["caption"].to_pylist() == ["a port"] * ROWS
    again = caption_store(store, captioner, decoding=GREEDY)
    assert (again.captioned, again.kept) == (0, ROWS)


def test_an_interrupted_call_goes_on_with_the_rows_that_are_left(
    store: VectorStore, captioner: Captioner
) -> None:
    def interrupt(done: int) -> None:
        finished.append(done)
        if len(finished) == 2:
            raise KeyboardInterrupt

    finished: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        caption_store(store, captioner, decoding=GREEDY, rows_per_write=12, progress=interrupt)
    assert sum(text is not None for text in captions(store)) == 12
    store.upsert(store.scan().read_all().slice(0, 1).set_column(0, "id", [["new"]]))
    result = caption_store(store, captioner, decoding=GREEDY, rows_per_write=5)
    assert result.captioned + result.kept == ROWS + 1
    assert None not in captions(store)


def test_conditions_and_overwriting(store: VectorStore, captioner: Captioner) -> None:
    assert caption_store(store, captioner, decoding=GREEDY, where="year < 5").captioned == 5
    before = captions(store)
    assert before[5:] == [None] * (ROWS - 5)
    again = caption_store(store, captioner, decoding=GREEDY, where="year < 7", overwrite=True)
    assert again.captioned == 7
    assert captions(store)[:5] == before[:5]
    rest = caption_store(store, captioner, decoding=GREEDY, where="year < 9")
    assert (rest.captioned, rest.kept) == (2, 7)


def test_any_column_name_and_a_condition_with_a_comment(
    store: VectorStore, captioner: Captioner
) -> None:
    options: dict[str, Any] = {"column": 'the "best"', "decoding": GREEDY}
    first = caption_store(store, captioner, where="year < 5 -- old", **options)
    second = caption_store(store, captioner, where="year < 7 -- older", **options)
    assert (first.captioned, second.captioned, second.kept) == (5, 2, 5)


def test_stores_that_cannot_be_captioned(
    store: VectorStore, captioner: Captioner, tmp_path: Path
) -> None:
    with pytest.raises(SchemaError, match="'caption' exists already and was not written by"):
        caption_store(store, captioner, column="caption")
    with pytest.raises(SchemaError, match="'year' has the type int64, expected string"):
        caption_store(store, captioner, column="year")
    with pytest.raises(SchemaError, match="'year' has the type int64, expected string"):
        caption_store(store, captioner, column="year", overwrite=True)
    with pytest.raises(SchemaError, match="'uri' cannot be replaced"):
        caption_store(store, captioner, column="uri")
    other = Captioner(tiny_parts(made_by=Provenance("other", "weights:other/dim:8", DIM)))
    with pytest.raises(FingerprintError, match=r"'test-model', but captioner 'tiny' was trained"):
        caption_store(store, other)
    scheme = store.uri.partition(":")[0]
    with (
        open_store(f"{scheme}:{tmp_path / 'empty'}", MADE_BY) as empty,
        pytest.raises(StoreError, match="expected rows to caption, found none; ingest images"),
    ):
        caption_store(empty, captioner)
