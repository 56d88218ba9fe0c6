"""Parquet files with images, in the Hugging Face Hub's layout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rsicd_embed.datasets.image_tables import image_column
from rsicd_embed.datasets.sources import open_source
from rsicd_embed.errors import DatasetError, ImageError
from rsicd_embed.images import TableCell, read_address

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def write_table(
    path: Path, columns: dict[str, Any], features: dict[str, Any] | None = None
) -> Path:
    table = pa.table(columns)
    if features:
        info = json.dumps({"info": {"features": features}})
        table = table.replace_schema_metadata({"huggingface": info})
    pq.write_table(table, path, row_group_size=2)
    return path


def cells(*paths: str | None) -> pa.Array:
    return pa.array([{"bytes": f"<{n}>".encode(), "path": p} for n, p in enumerate(paths)], IMAGE)


def test_hub_layout(tmp_path: Path) -> None:
    path = write_table(
        tmp_path / "train-00000-of-00001-1b2c.parquet",
        {
            "filename": ["rsicd_images/a.jpg", "rsicd_images/b.jpg", "rsicd_images/c.jpg"],
            "captions": [["one", "two"], ["three"], []],
            "label": [1, 0, -1],
            "image": cells("a.jpg", "b.jpg", "c.jpg"),
        },
        {"label": {"_type": "ClassLabel", "names": ["farm", "port"]}},
    )
    source = open_source(path)
    assert [e.id for e in source.examples] == [f"{path.name}/{n}.jpg" for n in "abc"]
    assert [read_address(e.uri) for e in source.examples] == [b"<0>", b"<1>", b"<2>"]
    assert dict(source.examples[0].attributes) == {
        "filename": "rsicd_images/a.jpg",
        "captions": ["one", "two"],
        "label": "port",
        "split": "train",
    }
    assert [e.label for e in source.examples] == ["port", "farm", None]


@pytest.mark.parametrize(
    ("columns", "ids"),
    [
        ({"image": cells("a", "a")}, ["t.parquet/0", "t.parquet/1"]),
        ({"image": cells(None, "a")}, ["t.parquet/0", "t.parquet/1"]),
        ({"img": cells("/x/a", "b")}, ["t.parquet/x/a", "t.parquet/b"]),
        ({"id": ["p", "q"], "image": cells("a", "b")}, ["p", "q"]),
        ({"id": [7, 8], "jpg": [b"<0>", b"<1>"]}, ["7", "8"]),
        ({"id": ["p", "p"], "image": cells("a", "b")}, ["p"]),
    ],
)
def test_ids(tmp_path: Path, columns: dict[str, Any], ids: list[str]) -> None:
    source = open_source(write_table(tmp_path / "t.parquet", columns))
    assert [example.id for example in source.examples] == ids
    assert read_address(source.examples[-1].uri) == b"<1>"


def test_manifests_stay_manifests(tmp_path: Path) -> None:
    path = write_table(tmp_path / "m.parquet", {"path": ["a.png"], "raw": [b"x"]})
    assert open_source(path).examples[0].file == str(tmp_path / "a.png")
    assert image_column(pa.schema([("thumbnail", pa.binary())])) is None
    assert image_column(pa.schema([("a", IMAGE), ("image", IMAGE)])) == "image"


def test_missing_images_and_rows(tmp_path: Path) -> None:
    missing = pa.array([None, {"bytes": None, "path": "a"}, {"bytes": b"", "path": "b"}], IMAGE)
    path = write_table(tmp_path / "t.parquet", {"image": missing})
    for example in open_source(path).examples:
        with pytest.raises(ImageError, match="no image in this row"):
            read_address(example.uri)
    with pytest.raises(ImageError, match="expected a table with row 9"):
        read_address(str(TableCell(str(path), 9, "image")))
    with pytest.raises(ImageError, match="expected images in column 'x'"):
        read_address(str(TableCell(str(path), 0, "x")))
    with pytest.raises(ImageError, match="No such file"):
        read_address(str(TableCell(f"{path}x", 0, "image")))
    empty = write_table(tmp_path / "e.parquet", {"image": pa.array([], IMAGE)})
    with pytest.raises(DatasetError, match="expected images, found no rows"):
        open_source(empty)


def test_a_rewritten_table_is_read_again(tmp_path: Path) -> None:
    path = write_table(tmp_path / "t.parquet", {"image": cells("a", "b")})
    uri = open_source(path).examples[0].uri
    assert read_address(uri) == b"<0>"
    rows = pa.array([{"bytes": b"new image", "path": "a"}], IMAGE)
    write_table(path, {"image": rows})
    assert read_address(uri) == b"new image"


def test_rows_without_an_id_are_refused(tmp_path: Path) -> None:
    for ids in (["a", None], [1.0, float("nan")], ["a", ""]):
        table = pa.table({"id": ids, "image": [b"x", b"y"]})
        pq.write_table(table, tmp_path / "t.parquet")
        with pytest.raises(DatasetError, match=r"t\.parquet: row 2 has no id"):
            open_source(tmp_path / "t.parquet")
    nulls = pa.table({"id": pa.nulls(2, pa.string()), "image": [b"x", b"y"]})
    pq.write_table(nulls, tmp_path / "t.parquet")
    ids = [example.id for example in open_source(tmp_path / "t.parquet").examples]
    assert ids == ["t.parquet/0", "t.parquet/1"]


@pytest.mark.parametrize("kind", [pa.binary_view(), pa.dictionary(pa.int32(), pa.binary())])
def test_other_types_of_bytes(tmp_path: Path, kind: pa.DataType) -> None:
    values = pa.array([b"x", b"y"])
    column = values.dictionary_encode() if pa.types.is_dictionary(kind) else values.cast(kind)
    path = tmp_path / "test-00000-of-00001.parquet"  # and no column besides the images
    pq.write_table(pa.table({"image": column}), path)
    source = open_source(path)
    assert [read_address(example.file) for example in source.examples] == [b"x", b"y"]
    assert [example.split for example in source.examples] == ["test", "test"]
