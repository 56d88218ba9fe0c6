"""Export and import between stores, bit by bit."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rsicd_embed
from rsicd_embed.errors import DatasetError
from rsicd_embed.stores.base import open_store
from rsicd_embed.testing.stores import DIM, MADE_BY, batch

from .helpers import SCHEMES, content, filled, import_file, run


@pytest.mark.parametrize("source", SCHEMES)
@pytest.mark.parametrize("target", SCHEMES)
def test_rows_move_between_any_two_stores(
    source: str, target: str, tmp_path: Path, file: Path
) -> None:
    source_uri, other = f"{source}:{tmp_path}/one", f"{target}:{tmp_path}/other"
    filled(source_uri)
    with open_store(source_uri) as store:
        store.upsert([batch(["gone", "late"], label=["x", "y"])])
        store.delete(["gone"])
    done = run("export", "--store", source_uri, "-o", file, "--json").document
    assert done == {
        "store": source_uri,
        "output": str(file),
        "model": "small",
        "fingerprint": MADE_BY.fingerprint,
        "dim": DIM,
        "rows": 8,
        "bytes": file.stat().st_size,
        "sha256": done["sha256"],
        "seconds": done["seconds"],
        "rows_per_s": done["rows_per_s"],
    }
    first = import_file(file, other)
    assert (first["imported"], first["unchanged"], first["embedded"]) == (8, 0, 0)
    assert set(first) >= {"removed", "skipped", "seconds", "images_per_s"}
    assert content(other) == content(source_uri)
    before = content(other)
    again = import_file(file, other)
    assert (again["imported"], again["unchanged"], again["skipped"]) == (0, 8, [])
    assert content(other) == before
    back = tmp_path / "back.parquet"
    run("export", "--store", other, "-o", back)
    assert import_file(back, source_uri)["unchanged"] == 8


VALUES = {
    "text": st.none() | st.text(max_size=20),
    "texts": st.none() | st.lists(st.none() | st.text(max_size=5), max_size=3),
    "at": st.none() | st.datetimes(),
    "day": st.none() | st.dates(),
    "number": st.none() | st.integers(-(2**63), 2**63 - 1),
    "share": st.none() | st.floats(),
    "shares": st.none() | st.lists(st.floats(width=32), max_size=3),
    "raw": st.none() | st.binary(max_size=5),
    "geo": st.none() | st.fixed_dictionaries({"lon": st.none() | st.floats(), "tag": st.text()}),
    "flag": st.none() | st.booleans(),
}
TYPES = {
    "text": pa.string(),
    "texts": pa.list_(pa.string()),
    "at": pa.timestamp("us"),
    "day": pa.date32(),
    "number": pa.int64(),
    "share": pa.float64(),
    "shares": pa.list_(pa.float32()),
    "raw": pa.binary(),
    "geo": pa.struct([("lon", pa.float64()), ("tag", pa.string())]),
    "flag": pa.bool_(),
}
CASES = st.lists(
    st.fixed_dictionaries({"id": st.text(max_size=8), **VALUES}), min_size=1, max_size=6
)


# Each example writes two stores; `python -m tests.differential` tries thousands.
@settings(max_examples=15, derandomize=True)
@given(cases=CASES, schemes=st.permutations(SCHEMES))
def test_rows_of_any_content(cases: list[dict[str, Any]], schemes: list[str]) -> None:
    columns = {name: pa.array([case[name] for case in cases], kind) for name, kind in TYPES.items()}
    rows = batch([case["id"] for case in cases], **columns)
    with TemporaryDirectory() as name:
        folder = Path(name)
        uris = [f"{scheme}:{folder / scheme}" for scheme in schemes[:2]]
        filled(uris[0], rows)
        with open_store(uris[0]) as store:
            rsicd_embed.export_rows(store, folder / "rows.parquet")
        rsicd_embed.import_rows([folder / "rows.parquet"], uris[1])
        (made_by, schema, was), (_, _, now) = content(uris[0]), content(uris[1])
        assert content(uris[1])[:2] == (made_by, schema)
        assert repr(now) == repr({key: was[key] for key in now})  # NaN is not equal to itself
        assert set(now) == set(was)
        again = rsicd_embed.import_rows([folder / "rows.parquet"], uris[1])
        assert (again.imported, again.unchanged) == (0, len(now))


def test_files_written_by_embed(
    pictures: Path, tiny_model: Path, file: Path, uri: str, tmp_path: Path
) -> None:
    run("embed", pictures, "-o", file, "--model", tiny_model)
    assert import_file(file, uri)["imported"] == 5
    other = f"exact:{tmp_path}/other"
    run("ingest", pictures, "--store", other, "--model", tiny_model)
    assert content(uri) == content(other)
    # The images are then already known.
    again = run("ingest", pictures, "--store", uri, "--model", tiny_model, "--json").document
    assert (again["embedded"], again["unchanged"]) == (0, 5)


def test_the_model_is_not_needed(
    pictures: Path, tiny_model: Path, file: Path, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("embed", pictures, "-o", file, "--model", tiny_model)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr("rsicd_embed.embedder.loading.load_embedder", refuse)
    monkeypatch.setattr(rsicd_embed, "load_embedder", refuse)
    assert import_file(file, uri)["imported"] == 5


def test_python(file: Path, uri: str, tmp_path: Path) -> None:
    with open_store(filled(uri)) as store:
        done = rsicd_embed.export_rows(store, str(file), where="width > 3")
    assert (done.rows, done.bytes) == (5, file.stat().st_size)
    summary = rsicd_embed.import_rows([str(file)], f"lancedb:{tmp_path}/lance")
    assert (summary.imported, summary.unchanged, summary.removed) == (5, 0, 0)
    with pytest.raises(DatasetError, match="that export or embed wrote, found nothing there"):
        rsicd_embed.import_rows([tmp_path / "none.parquet"], uri)
    pq.write_table(pa.table({"path": ["a.png"]}), file)
    with pytest.raises(DatasetError, match="that export or embed wrote, found another one"):
        rsicd_embed.import_rows([file], uri)
    with pytest.raises(DatasetError, match="found none"):
        rsicd_embed.import_rows([], uri)
