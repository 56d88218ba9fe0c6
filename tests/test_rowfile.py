"""Row files: every type is read back, and damage is reported."""

from __future__ import annotations

import datetime as dt
import decimal
import json
import os
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rsicd_embed import rowfile
from rsicd_embed.errors import DatasetError, RsicdEmbedError, SchemaError, StoreError
from rsicd_embed.records import Provenance, vector_array
from rsicd_embed.rowfile import RowFile, row_file
from rsicd_embed.testing.stores import DIM, MADE_BY, batch, unit

DAY_MS = 86_400_000


def time_of(kind: pa.DataType, value: int) -> pa.Array:
    return pa.array([value, None], pa.int64() if kind.bit_width == 64 else pa.int32()).view(kind)


COLUMNS: dict[str, pa.Array] = {
    "seconds": time_of(pa.timestamp("s"), 1),
    "ms": time_of(pa.timestamp("ms"), -1),
    "us, UTC": time_of(pa.timestamp("us", "UTC"), 2**60),
    "ns, Berlin": time_of(pa.timestamp("ns", "Europe/Berlin"), 2**62 + 1),
    "seconds, zone": time_of(pa.timestamp("s", "+02:00"), 1),
    "day": time_of(pa.date32(), -1),
    "day in ms": time_of(pa.date64(), DAY_MS),
    "day in ms and a time of the day": time_of(pa.date64(), DAY_MS + 1),
    "time in s": time_of(pa.time32("s"), 1),
    "time in ms": time_of(pa.time32("ms"), 1),
    "time in us": time_of(pa.time64("us"), 1),
    "time in ns": time_of(pa.time64("ns"), 1),
    "duration in s": time_of(pa.duration("s"), -1),
    "duration in ns": time_of(pa.duration("ns"), 2**62),
    "float16": pa.array([np.float16(1.5), None], pa.float16()),
    "float32": pa.array([np.float32(1 / 3), None], pa.float32()),
    "signed zero": pa.array([-0.0, None]),
    "a certain NaN": pa.array([0x7FF8000000000123, None], pa.int64()).view(pa.float64()),
    "uint8": pa.array([255, None], pa.uint8()),
    "uint32": pa.array([2**32 - 1, None], pa.uint32()),
    "uint64": pa.array([2**64 - 1, None], pa.uint64()),
    "decimal": pa.array([decimal.Decimal("-1.25"), None], pa.decimal128(10, 2)),
    "wide decimal": pa.array([decimal.Decimal("1.25"), None], pa.decimal256(50, 2)),
    "bytes": pa.array([b"\x00\xff", None]),
    "three bytes": pa.array([b"abc", None], pa.binary(3)),
    "flag": pa.array([True, None]),
    "text": pa.array(["", None]),
    "all null": pa.nulls(2, pa.string()),
    "box": pa.array([[1.0, 2.0], None], pa.list_(pa.float64(), 2)),
    "box with a gap": pa.array([["a", None], None], pa.list_(pa.string(), 2)),
    "words": pa.array([["a", None], []]),
    "nested": pa.array([[["a"], [], None], None]),
    "struct": pa.array([{"lon": 1.0, "name": None}, None]),
    "structs with times": pa.array(
        [[{"at": dt.datetime(2020, 1, 1), "for": [dt.timedelta(1)]}], None],
        pa.list_(pa.struct([("at", pa.timestamp("s")), ("for", pa.list_(pa.duration("ms")))])),
    ),
    "days in lists": pa.array([[DAY_MS, None], None], pa.list_(pa.int64())).view(
        pa.list_(pa.date64())
    ),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "rows.parquet"


def opened(path: Path) -> RowFile:
    file = RowFile.open(path)
    assert file is not None
    return file


def read(path: Path) -> pa.Table:
    return pa.Table.from_batches(rowfile.check(opened(path)).batches())


@pytest.mark.parametrize("name", COLUMNS)
def test_every_type_is_read_back(path: Path, name: str) -> None:
    rows = batch(["a", "b"], column=COLUMNS[name])
    written = rowfile.write(path, [rows], rows.schema, MADE_BY)
    assert (written.rows, written.bytes) == (2, path.stat().st_size)
    assert opened(path).schema.to_string() == rows.schema.to_string()
    (restored,) = rowfile.check(opened(path)).batches()
    assert restored.schema.to_string() == rows.schema.to_string()
    assert restored["vector"].equals(rows["vector"])
    column = restored["column"]
    if pa.types.is_floating(column.type):  # NaN equals nothing
        integers = {16: pa.int16(), 32: pa.int32(), 64: pa.int64()}[column.type.bit_width]
        assert column.view(integers).equals(rows["column"].view(integers))
    else:
        assert column.equals(rows["column"])


def test_types_that_parquet_cannot_hold(path: Path) -> None:
    far = time_of(pa.timestamp("s"), 2**60)
    hollow = pa.array([{}, None], pa.struct([]))
    pairs = pa.array([[], None], pa.list_(pa.int64(), 0))
    for column, words in (
        (far, "'x' cannot be written as Parquet: .*out of bounds"),
        (hollow, "'x': Parquet does not support values of type struct<>; remove it from the store"),
        (pairs, "'x': Parquet does not support values of type fixed_size_list"),
        (
            pa.array([[[]], None], pa.list_(pairs.type)),
            "Parquet does not support values of type list",
        ),
    ):
        rows = batch(["a", "b"], x=column)
        with pytest.raises(SchemaError, match=words):
            rowfile.write(path, [rows], rows.schema, MADE_BY)
    assert list(path.parent.iterdir()) == []


def test_other_programs_can_read_the_file(path: Path) -> None:
    rows = batch(["a", "b"], label=["x", None], seconds=COLUMNS["seconds"])
    rowfile.write(path, [rows], rows.schema, MADE_BY)
    table = pq.read_table(path)
    assert table.column_names == ["id", "vector", "label", "seconds"]
    assert table["vector"].to_pylist() == rows["vector"].to_pylist()
    assert table["seconds"].type == pa.timestamp("ms")


def test_writing_and_reading_in_bounded_batches(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_file, "_GROUP_ROWS", 100)
    monkeypatch.setattr(row_file, "_GROUP_BYTES", 20_000)
    lengths = [30, 1, 500, 0, 20, 3]
    texts = ["x" * (9_000 if number % 7 == 0 else 10) for number in range(554)]
    rows = batch([f"i{number}" for number in range(554)], text=texts)
    batches, start = [], 0
    for length in lengths:
        batches.append(rows.slice(start, length))
        start += length
    progress: list[int] = []
    rowfile.write(path, iter(batches), rows.schema, MADE_BY, progress.append)
    assert sum(progress) == 554
    with pq.ParquetFile(path) as file:
        groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
    assert len(groups) > 20
    assert all(group.num_rows <= 100 and group.total_byte_size < 30_000 for group in groups)
    batches = list(opened(path).batches())
    assert [len(part) for part in batches] == [group.num_rows for group in groups]
    assert pa.Table.from_batches(batches).equals(pa.Table.from_batches([rows]))


def test_no_rows(path: Path) -> None:
    rows = batch([], unit(0), n=pa.array([], pa.int64()))
    for nothing in ([], [rows]):
        assert rowfile.write(path, nothing, rows.schema, MADE_BY).rows == 0
        checked = rowfile.check(opened(path))
        assert (len(checked), list(checked.batches())) == (0, [])
        assert checked.file.schema == rows.schema


def test_failed_write_keeps_the_old_file(path: Path) -> None:
    def batches() -> Iterator[pa.RecordBatch]:
        yield batch(["a"])
        raise StoreError("the disk is gone")

    path.write_text("old")
    with pytest.raises(StoreError, match="the disk is gone"):
        rowfile.write(path, batches(), batch(["a"]).schema, MADE_BY)
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    assert path.read_text() == "old"


def test_full_disk(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match=r"rows.parquet: No space left on device; free some"):
        rowfile.write(path, [batch(["a"])], batch(["a"]).schema, MADE_BY)
    assert list(path.parent.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_disk_fills_up(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The operating system reports the error while rows are written."""
    real = Path.open
    monkeypatch.setattr(
        Path, "open", lambda self, *args, **options: real(Path("/dev/full"), *args, **options)
    )
    rows = batch(["a"], text=["x" * 10_000_000])
    with pytest.raises(StoreError, match=r"rows.parquet: No space left on device; free some"):
        rowfile.write(path, [rows], rows.schema, MADE_BY)
    assert list(path.parent.iterdir()) == []


# ------------------------------------------------------------------ other people's files


def test_other_files(path: Path, tmp_path: Path) -> None:
    rows = pa.Table.from_batches([batch(["a"])])
    assert RowFile.open(path) is None
    path.write_text("garbage")
    assert RowFile.open(path) is None
    pq.write_table(rows, path)  # it does not name the model
    assert RowFile.open(path) is None
    pq.write_table(rows.drop_columns(["vector"]), path)
    assert RowFile.open(path) is None
    metadata = row_file.encode_metadata(MADE_BY, rows.schema)
    pq.write_table(rows.drop_columns(["vector"]).replace_schema_metadata(metadata), path)
    assert RowFile.open(path) is None
    pq.write_table(rows.replace_schema_metadata(metadata), path)
    assert opened(path).provenance == MADE_BY
    folder = tmp_path / "folder.parquet"
    folder.mkdir()
    assert RowFile.open(folder) is None
    os.mkfifo(tmp_path / "pipe.parquet")
    assert RowFile.open(tmp_path / "pipe.parquet") is None
    assert RowFile.open(tmp_path / ("x" * 5000 + ".parquet")) is None
    path.rename(path.with_suffix(".PARQUET"))
    assert opened(path.with_suffix(".PARQUET")).rows == 1
    path.with_suffix(".PARQUET").rename(path.with_suffix(".bin"))
    assert RowFile.open(path.with_suffix(".bin")) is None


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model", "other"),
        ("model", 3),
        ("dim", "8"),
        ("schema", "!"),
        ("fingerprint", None),
        ("sha256", "0"),
        (None, b"{"),
        (None, b"[]"),
        (None, b"\xff"),
        (None, b"{}"),
        (None, b'{"format": 1}'),
    ],
)
def test_damaged_metadata(path: Path, key: str | None, value: object) -> None:
    rows = pa.Table.from_batches([batch(["a"])])
    raw = row_file.encode_metadata(MADE_BY, rows.schema)[row_file.METADATA_KEY]
    raw = value if key is None else json.dumps(json.loads(raw) | {key: value}).encode()
    pq.write_table(rows.replace_schema_metadata({row_file.METADATA_KEY: raw}), path)
    with pytest.raises(DatasetError, match=r"does not say which model.*; export it again"):
        RowFile.open(path)


def test_later_version(path: Path) -> None:
    rows = pa.Table.from_batches([batch(["a"])])
    pq.write_table(rows.replace_schema_metadata({row_file.METADATA_KEY: b'{"format": 2}'}), path)
    with pytest.raises(DatasetError, match="expected format version 1, found 2; upgrade"):
        RowFile.open(path)


def vectors_with(value: float) -> np.ndarray:
    vectors = unit(9000)
    vectors[8500] = 0
    vectors[8500, 0] = value
    return vectors


IDS = [f"i{number}" for number in range(9000)]
BOXES = pa.array([[1.0, 0.0]] * 2, pa.list_(pa.float64()))


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (batch(IDS, vectors_with(np.nan)), "unit vectors, found norm nan at row 8501; divide"),
        (batch(IDS, vectors_with(np.inf)), "unit vectors, found norm inf at row 8501"),
        (batch(IDS, vectors_with(0)), "unit vectors, found norm 0 at row 8501"),
        (batch(IDS, vectors_with(2)), "unit vectors, found norm 2 at row 8501"),
        (
            batch(["a", "b"], unit(2, 9)),
            "expected vectors of length 8, as its metadata says, found 9",
        ),
        (pa.record_batch({"id": ["a", "b"], "vector": BOXES}), "length 8.*found 2"),
        (pa.record_batch({"id": ["a"], "vector": ["x"]}), "as lists of 8 float32, found string"),
        (pa.record_batch({"id": ["a"], "vector": [[1, 2]]}), "as lists of 8 float32, found list"),
        (pa.record_batch({"vector": vector_array(unit(2))}), "'id', found no such column"),
        (pa.record_batch({"id": [1, 2], "vector": vector_array(unit(2))}), "'id', found int64"),
        (batch(IDS[:8999], unit(8999)), None),
        (pa.record_batch({"id": ["a", None], "vector": vector_array(unit(2))}), "row 2 has no id"),
        (
            pa.record_batch({"id": ["a"], "vector": pa.nulls(1, pa.list_(pa.float32(), DIM))}),
            "row 1 has no vector",
        ),
    ],
)
def test_invalid_rows(path: Path, rows: pa.RecordBatch, words: str | None) -> None:
    metadata = row_file.encode_metadata(MADE_BY, rows.schema)
    pq.write_table(pa.Table.from_batches([rows]).replace_schema_metadata(metadata), path)
    if words is None:
        assert len(rowfile.check(opened(path))) == len(rows)
        return
    with pytest.raises((DatasetError, SchemaError), match=words) as caught:
        rowfile.check(opened(path))
    assert str(caught.value).startswith(f"{path}: ")


def test_added_and_removed_columns(path: Path) -> None:
    """Only the metadata and the vectors are required."""
    rows = batch(["a", "b"], n=[1, 2], old=["x", "y"])
    rowfile.write(path, [rows], rows.schema, MADE_BY)
    table = pq.read_table(path).drop_columns(["old"]).append_column("new", pa.array([[1.5], None]))
    table = table.set_column(2, "n", pa.array(["one", "two"]))
    pq.write_table(table, path)
    table = read(path)
    assert table.column_names == ["id", "vector", "n", "new"]
    assert table["n"].to_pylist() == ["one", "two"]
    assert table["new"].to_pylist() == [[1.5], None]


def test_repeated_column(path: Path) -> None:
    rows = pa.Table.from_batches([batch(["a"], n=[1])])
    twice = rows.append_column("n", pa.array([2]))
    metadata = row_file.encode_metadata(MADE_BY, rows.schema)
    pq.write_table(twice.replace_schema_metadata(metadata), path)
    with pytest.raises(DatasetError, match="each column once, found 'n' twice"):
        RowFile.open(path)


def test_last_of_a_repeated_id_wins(path: Path) -> None:
    rows = batch(["a", "b", "a", "c", "a"], n=[1, 2, 3, 4, 5], split=["x", "y", None, "y", "y"])
    rowfile.write(path, [rows.slice(0, 2), rows.slice(2)], rows.schema, MADE_BY)
    checked = rowfile.check(opened(path))
    assert checked.repeated == ((1, "a"), (3, "a"))
    assert pa.Table.from_batches(checked.batches())["n"].to_pylist() == [2, 4, 5]
    assert checked.ids.to_pylist() == ["b", "c", "a"]


def test_split(path: Path) -> None:
    rows = batch(["a", "b", "c"], split=["train", None, "val"])
    rowfile.write(path, [rows], rows.schema, MADE_BY)
    assert rowfile.check(opened(path), "val").ids.to_pylist() == ["c"]
    with pytest.raises(DatasetError, match="of the split 'test', found none, train, val"):
        rowfile.check(opened(path), "test")
    rows = batch(["a"])
    rowfile.write(path, [rows], rows.schema, MADE_BY)
    with pytest.raises(DatasetError, match="text in column 'split', found no such column"):
        rowfile.check(opened(path), "val")


def test_mutated_files_give_an_error_or_the_same_rows(path: Path) -> None:
    """Page checksums cover the data, and our own checksum covers the metadata."""
    rows = batch(
        [f"i{i}" for i in range(40)],
        label=["x", None] * 20,
        captions=[["a", "b"], []] * 20,
        at=pa.array([1, None] * 20, pa.timestamp("s")),
    )
    rowfile.write(path, [rows.slice(0, 25), rows.slice(25)], rows.schema, MADE_BY)
    whole, chance = path.read_bytes(), random.Random(0)
    pages = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    expected, errors = pa.Table.from_batches([rows]), 0
    for turn in range(300):
        raw = bytearray(whole)
        if turn % 3 == 0:
            raw = raw[: chance.randrange(len(raw))]
        else:
            raw[chance.randrange(4, pages)] ^= 1 << chance.randrange(8)
        path.write_bytes(raw)
        try:
            file = RowFile.open(path)
            if file is not None:
                assert read(path).equals(expected)
        except RsicdEmbedError as error:
            assert "\n" not in str(error)
            errors += 1
    assert errors > 100


def test_provenance_is_read_back(path: Path) -> None:
    made_by = Provenance('odd "model"\n木', "weights:1/…", DIM)
    rowfile.write(path, [], batch([], unit(0)).schema, made_by)
    assert opened(path).provenance == made_by
