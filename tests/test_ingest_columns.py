"""Manifest columns in stores: values as written, the store's types, distinct ids."""

from __future__ import annotations

import datetime as dt
import unicodedata
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import rsicd_embed
from rsicd_embed.errors import DatasetError, SchemaError

from .conftest import picture
from .datasets.test_column_types import CELLS, write_csv
from .helpers import Counting, counts, ingest, manifest, rows, run


def csv(pictures: Path, **columns: str) -> Path:
    """A CSV with one row, of the picture a.png."""
    return write_csv(pictures / "m.csv", [{"path": "a.png", **columns}])


def values(uri: str, name: str) -> dict[str, Any]:
    return {id_: row[name] for id_, row in sorted(rows(uri).items())}


def test_ids_that_look_like_times_stay_apart(
    embedder: Counting, each_uri: str, pictures: Path
) -> None:
    ids = ["2024-05-10T12:00:00+02:00", "2024-05-10T10:00:00Z", "2024-05-10 10:00:00"]
    entries = [
        {"path": path, "id": id_}
        for path, id_ in zip(["a.png", "b.png", "c.jpg"], ids, strict=True)
    ]
    lines = manifest(pictures / "m.jsonl", *entries)
    assert counts(ingest(embedder, each_uri, lines)) == (3, 0, 0, 0, 0)
    assert set(rows(each_uri)) == set(ids)
    table = write_csv(pictures / "m.csv", entries)
    assert counts(ingest(embedder, each_uri, table)) == (0, 0, 3, 0, 0)


def test_a_text_column_takes_numbers_as_written(
    embedder: Counting, each_uri: str, pictures: Path
) -> None:
    ingest(embedder, each_uri, csv(pictures, tile="A12", taken="unknown"))
    more = [("b.png", "007", "2024-05-10"), ("c.jpg", "12", "2024-05-11"), ("d.tif", "1.50", "5")]
    for path, tile, date in more:
        entry = {"path": path, "tile": tile, "taken": date}
        ingest(embedder, each_uri, write_csv(pictures / "m.csv", [entry]))
    numbers = pictures / "numbers.jsonl"
    numbers.write_text('{"path": "sub/e.png", "tile": 2.50}\n')
    ingest(embedder, each_uri, numbers)
    assert list(values(each_uri, "tile").values()) == ["A12", "007", "12", "1.50", "2.50"]
    assert list(values(each_uri, "taken").values())[:3] == ["unknown", "2024-05-10", "2024-05-11"]


def test_a_column_of_floats_takes_whole_numbers_and_refuses_the_rest_early(
    embedder: Counting, each_uri: str, pictures: Path
) -> None:
    ingest(embedder, each_uri, csv(pictures, lat="51.28"))
    ingest(embedder, each_uri, write_csv(pictures / "n.csv", [{"path": "b.png", "lat": "12"}]))
    assert values(each_uri, "lat") == {"a.png": 51.28, "b.png": 12.0}
    embedder.taken()
    before = rows(each_uri)
    entries = [{"path": "c.jpg", "lat": "1"}, {"path": "d.tif", "lat": "north"}]
    table = write_csv(pictures / "o.csv", entries)
    with pytest.raises(SchemaError, match=r"o\.csv: row 2: expected double .*'lat'.*'north'"):
        ingest(embedder, each_uri, table)
    assert (embedder.taken(), rows(each_uri)) == (0, before)


OLD_TYPES = {
    "label": pa.int64(),
    "day": pa.date32(),
    "at": pa.timestamp("s"),
    "utc": pa.timestamp("s", "UTC"),
    "clock": pa.time32("s"),
}
OLD_VALUES = {
    "label": 3,
    "day": dt.date(2024, 5, 10),
    "at": dt.datetime(2024, 5, 10, 10),
    "utc": dt.datetime(2024, 5, 10, 8, tzinfo=dt.UTC),
    "clock": dt.time(10, 30),
}
OLD_CELLS = {
    "label": "3",
    "day": "2024-05-10",
    "at": "2024-05-10 10:00:00",
    "utc": "2024-05-10T10:00:00+02:00",
    "clock": "10:30:00",
}


def test_a_store_with_text_read_as_times_is_up_to_date(
    embedder: Counting, each_uri: str, pictures: Path
) -> None:
    """Earlier versions read such dates, times and digit labels from a CSV."""
    ingest(embedder, each_uri, csv(pictures))
    with rsicd_embed.open_store(each_uri, embedder=embedder) as store:
        old = store.scan().read_all()
        for name, kind in OLD_TYPES.items():
            old = old.append_column(name, pa.array([OLD_VALUES[name]], kind))
        store.upsert(old.to_batches())
    assert counts(ingest(embedder, each_uri, csv(pictures, **OLD_CELLS))) == (0, 0, 1, 0, 0)
    (row,) = rows(each_uri).values()
    assert {name: row[name] for name in OLD_VALUES} == OLD_VALUES
    with pytest.raises(SchemaError, match=r"row 1: expected timestamp\[s\] .*'at'.*12:00Z'"):
        ingest(embedder, each_uri, csv(pictures, **{**OLD_CELLS, "at": "2024-05-10 12:00Z"}))
    with pytest.raises(SchemaError, match=r"row 1: expected int64 .*'label'.*'port'"):
        ingest(embedder, each_uri, csv(pictures, **{**OLD_CELLS, "label": "port"}))


def test_images_with_new_ids_are_reported(embedder: Counting, uri: str, pictures: Path) -> None:
    """For example from a JSONL whose ids an earlier version read as times."""
    entry = {"path": "a.png", "id": "2024-05-10 00:00:00"}
    assert ingest(embedder, uri, manifest(pictures / "m.jsonl", entry)).notes == []
    entry["id"] = "2024-05-10"
    (note,) = ingest(embedder, uri, manifest(pictures / "m.jsonl", entry)).notes
    assert "1 images were in the store under other ids" in note
    assert "'2024-05-10 00:00:00' as '2024-05-10'" in note
    assert ingest(embedder, uri, manifest(pictures / "m.jsonl", entry)).notes == []


def test_declared_types_reach_the_store(embedder: Counting, each_uri: str, pictures: Path) -> None:
    table = csv(pictures, taken="2024-05-10T10:00:00+02:00")
    summary = ingest(embedder, each_uri, table, column_types={"taken": "timestamp"})
    assert counts(summary) == (1, 0, 0, 0, 0)
    at = dt.datetime(2024, 5, 10, 8, tzinfo=dt.UTC)
    assert values(each_uri, "taken") == {"a.png": at}
    assert counts(ingest(embedder, each_uri, table)) == (0, 0, 1, 0, 0)
    with pytest.raises(SchemaError, match=r"declared as text, but is timestamp.* in the store"):
        ingest(embedder, each_uri, table, column_types={"taken": "text"})
    with pytest.raises(DatasetError, match="'takn' is declared, but no source has it"):
        ingest(embedder, each_uri, table, column_types={"takn": "text"})


@given(st.lists(st.tuples(CELLS.filter(bool), CELLS, CELLS), min_size=1, max_size=3))
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_survives_a_store(
    embedder: Counting, tmp_path_factory: pytest.TempPathFactory, cells: list[tuple[str, str, str]]
) -> None:
    folder = tmp_path_factory.mktemp("text")
    picture(0).save(folder / "a.png")
    entries = {id_: {"path": "a.png", "id": id_, "label": label, "v": v} for id_, label, v in cells}
    texts = {name: [entry[name] for entry in entries.values()] for name in ("path", "id", "v")}
    pyarrow.parquet.write_table(pa.table(texts), folder / "m.parquet")
    uri = f"exact:{folder / 'store'}"
    # Two manifests with text, then the CSV, whose cells become text as in the store.
    ingest(embedder, uri, folder / "m.parquet")
    ingest(embedder, uri, manifest(folder / "m.jsonl", *entries.values()))
    ingest(embedder, uri, write_csv(folder / "m.csv", list(entries.values())))
    stored = rows(uri)
    assert stored.keys() == entries.keys()
    for id_, entry in entries.items():
        assert (stored[id_]["label"] or "", stored[id_]["v"] or "") == (entry["label"], entry["v"])


@pytest.mark.usefixtures("load_each_model_once")
def test_column_types_on_the_command_line(
    uri: str, pictures: Path, tiny_model: Path, tmp_path: Path
) -> None:
    table = write_csv(
        pictures / "m.csv", [{"": "0", "path": "a.png", "taken": "2024-05-10", "tile": "007"}]
    )
    declared = ("--column-type", "taken=date", "--column-type", "tile=int64")
    command = ("ingest", table, "--store", uri, "--model", tiny_model, "--json", *declared)
    outcome = run(*command)
    assert (outcome.status, outcome.document["embedded"]) == (0, 1)
    (note,) = outcome.document["notes"]
    assert "unnamed column is ignored" in note
    assert outcome.stderr == f"note: {note}\n"
    (row,) = rows(uri).values()
    assert (row["taken"], row["tile"]) == (dt.date(2024, 5, 10), 7)
    vectors = tmp_path / "v.parquet"
    assert run("embed", table, "-o", vectors, "--model", tiny_model, *declared).status == 0
    assert pyarrow.parquet.read_table(vectors)["tile"].to_pylist() == [7]
    twice = run(*command, "--column-type", "taken=bool")
    assert (twice.status, "given as date and as bool" in twice.stderr) == (2, True)
    for wrong in ("taken", "taken=time", "=text"):
        outcome = run(*command, "--column-type", wrong)
        assert (outcome.status, "expected NAME=TYPE" in outcome.stderr) == (2, True)
    assert run("ingest", vectors, "--store", uri, *declared).status == 2
    wrong_type = ("ingest", table, "--store", f"{uri}2", "--column-type", "tile=bool")
    assert (
        "row 1: expected bool in column 'tile', as declared, found '007'" in run(*wrong_type).error
    )
    assert not Path(f"{uri}2".removeprefix("exact:")).exists()


@pytest.mark.parametrize(
    ("file", "path", "reason"),
    [
        ("sub/a.jpg", r"sub\a.jpg", "sub/a.jpg, without backslashes"),
        ("x.png", r"C:\data\a.png", "expected / in the path, found backslashes"),
        ("x.png", "ftp://example.org/a.png", "expected a path or an address of s3://"),
        (unicodedata.normalize("NFD", "é.png"), "\u00e9.png", "decomposed form (NFD)"),
        ("\u00e9.png", unicodedata.normalize("NFD", "é.png"), "composed form (NFC)"),
        ("a b.png", "a%20b.png", "a b.png, without %-escapes"),
        ("A.JPG", "A.jpg", "A.JPG, with its suffix in the other case"),
        ("a.png", "a.png ", "a.png, without blanks around its name"),
    ],
)
def test_a_wrong_path_is_skipped_with_the_reason(
    embedder: Counting, uri: str, tmp_path: Path, file: str, path: str, reason: str
) -> None:
    (tmp_path / file).parent.mkdir(exist_ok=True)
    picture(0).save(tmp_path / file)
    picture(1).save(tmp_path / "other.png")
    entries = [{"path": path}, {"path": "other.png"}, {"path": "missing.png"}]
    summary = ingest(embedder, uri, manifest(tmp_path / "m.jsonl", *entries))
    assert counts(summary) == (1, 0, 0, 0, 2)
    assert summary.skipped[0].uri.endswith(path)
    assert reason in summary.skipped[0].reason
    assert summary.skipped[1].reason == "cannot be read: No such file or directory"
