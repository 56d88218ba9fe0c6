"""JSONL, CSV and Parquet manifests as sources."""

from __future__ import annotations

import datetime as dt
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from rsicd_embed.datasets.base import Example, Skipped, Source
from rsicd_embed.datasets.sources import open_source, open_sources
from rsicd_embed.errors import DatasetError

ROWS: list[dict[str, Any]] = [
    {
        "path": "a.png", "label": "port", "boats": 3, "cloud": 0.5, "day": True,
        "taken": dt.datetime(2020, 5, 17, 8, 30),
    },
    {
        "path": "b.png", "label": "it's, \"so\"", "boats": None, "cloud": None, "day": None,
        "taken": None,
    },
]  # fmt: skip


def write_jsonl(path: Path, table: pa.Table) -> Path:
    lines = [json.dumps(row, default=str, ensure_ascii=False) for row in table.to_pylist()]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def write_csv(path: Path, table: pa.Table) -> Path:
    pyarrow.csv.write_csv(table, path)
    return path


def write_parquet(path: Path, table: pa.Table) -> Path:
    pyarrow.parquet.write_table(table, path)
    return path


WRITERS = {"jsonl": write_jsonl, "csv": write_csv, "parquet": write_parquet, "NDJSON": write_jsonl}


NESTED_TIMES = pa.struct(
    {
        "at": pa.timestamp("ns"),
        "all": pa.large_list(pa.struct({"at": pa.timestamp("ns")})),
    }
)


@pytest.fixture(params=WRITERS)
def write(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[list[dict[str, Any]]], Path]:
    """Writes rows as a manifest of one format."""

    def written(rows: list[dict[str, Any]]) -> Path:
        return WRITERS[request.param](tmp_path / f"m.{request.param}", pa.Table.from_pylist(rows))

    return written


def load(path: Path, text: str) -> Source:
    path.write_text(text, encoding="utf-8")
    return open_source(path)


def ids(source: Source) -> list[str]:
    return [example.id for example in source.examples]


def test_attributes_are_typed(
    write: Callable[[list[dict[str, Any]]], Path], tmp_path: Path
) -> None:
    (source,) = open_sources([write(ROWS)], column_types={"taken": "timestamp"})
    assert ids(source) == ["a.png", "b.png"]
    assert source.examples[0].path == tmp_path / "a.png"
    assert {name: str(source.schema.field(name).type)[:9] for name in source.schema.names} == {
        "label": "string", "boats": "int64", "cloud": "double", "day": "bool", "taken": "timestamp",
    }  # fmt: skip
    for row, example in zip(ROWS, source.examples, strict=True):
        assert dict(example.attributes) == {name: row[name] for name in row if name != "path"}


def test_paths_may_be_relative_absolute_or_file_uris(
    write: Callable[[list[dict[str, Any]]], Path], tmp_path: Path
) -> None:
    paths = ["sub/a.png", "/data/b.png", "file:///data/c%20d.png", "../e%20f.png", "./g.png"]
    source = open_source(write([{"image": path} for path in paths]))
    assert ids(source) == paths
    assert len(source.schema) == 0
    assert [example.uri for example in source.examples] == [
        f"{tmp_path}/sub/a.png", "/data/b.png", "/data/c d.png",
        f"{tmp_path.parent}/e%20f.png", f"{tmp_path}/g.png",
    ]  # fmt: skip


@pytest.mark.parametrize("column", ["uri", "path", "image", "filename", "file_name"])
def test_names_of_the_path_column(
    write: Callable[[list[dict[str, Any]]], Path], tmp_path: Path, column: str
) -> None:
    rows = [{column: "a.png", "id": "x", "width": 5, "sha256": "no", "label": "port"}]
    source = open_source(write(rows))
    # Columns computed from the image are ignored in the manifest.
    assert source.examples == (Example("x", str(tmp_path / "a.png"), {"label": "port"}),)


def test_ids_are_text(write: Callable[[list[dict[str, Any]]], Path]) -> None:
    assert ids(open_source(write([{"id": "007", "path": "a.png"}]))) == ["007"]
    assert ids(open_source(write([{"id": "1e3", "path": "a.png"}]))) == ["1e3"]


def test_numeric_ids_become_text(tmp_path: Path) -> None:
    source = load(tmp_path / "m.jsonl", '{"id": 7, "path": "a.png"}\n{"id": 8, "path": "b.png"}\n')
    assert ids(source) == ["7", "8"]


def test_the_last_row_of_an_id_is_used(
    write: Callable[[list[dict[str, Any]]], Path], tmp_path: Path
) -> None:
    path = write(
        [
            {"id": "x", "path": "a.png", "label": "port"},
            {"id": "y", "path": "b.png", "label": "desert"},
            {"id": "x", "path": "c.png", "label": "beach"},
        ]
    )
    source = open_source(path)
    assert ids(source) == ["y", "x"]
    assert source.examples[1].path == tmp_path / "c.png"
    assert source.examples[1].label == "beach"
    assert source.skipped == (Skipped(f"{tmp_path}/a.png", f"row 3 of {path} has the same id 'x'"),)


def test_lists_and_structs(tmp_path: Path) -> None:
    row = {"path": "a.png", "captions": ["a port .", "boats ."], "bbox": [0.5, 1], "at": {"x": 1}}
    rows = [row, {"path": "b.png", "captions": [], "bbox": None, "at": None}]
    for path in (
        write_jsonl(tmp_path / "m.jsonl", pa.Table.from_pylist(rows)),
        write_parquet(tmp_path / "m.parquet", pa.Table.from_pylist(rows)),
    ):
        source = open_source(path)
        assert source.examples[0].captions == ("a port .", "boats .")
        assert source.examples[0].attributes["bbox"] == [0.5, 1.0]
        assert source.examples[0].attributes["at"] == {"x": 1}
        assert source.examples[1].captions == ()


def test_times_keep_microseconds(tmp_path: Path) -> None:
    """Parquet has nanoseconds, also in lists and objects; Python's datetime does not."""
    nano = pa.array([1_589_704_200_123_456_789], pa.int64())
    at = nano.cast(pa.timestamp("ns"))[0]
    table = pa.table(
        {
            "path": ["a.png"],
            "at": nano.cast(pa.timestamp("ns")),
            "utc": nano.cast(pa.timestamp("ns", "UTC")),
            "lasting": pa.array([1_500], pa.int64()).cast(pa.duration("ns")),
            "time": pa.array([1_500], pa.int64()).cast(pa.time64("ns")),
            "several": pa.array([[nano[0].as_py()]], pa.list_(pa.int64())).cast(
                pa.list_(pa.timestamp("ns"))
            ),
            "large": pa.array([[at]], pa.large_list(pa.timestamp("ns"))),
            "two": pa.array([[at, None]], pa.list_(pa.timestamp("ns"), 2)),
            "inside": pa.array([{"at": at, "all": [{"at": at}]}], NESTED_TIMES),
        }
    )
    expected = dt.datetime(2020, 5, 17, 8, 30, 0, 123456)
    attributes = open_source(write_parquet(tmp_path / "m.parquet", table)).examples[0].attributes
    assert attributes["at"] == expected
    assert attributes["utc"] == expected.replace(tzinfo=dt.UTC)
    assert attributes["lasting"] == dt.timedelta(microseconds=1)
    assert attributes["time"] == dt.time(0, 0, 0, 1)
    assert attributes["several"] == attributes["large"] == attributes["two"][:1] == [expected]
    assert attributes["inside"] == {"at": expected, "all": [{"at": expected}]}


def test_csv_quoting_and_encoding(tmp_path: Path) -> None:
    text = '\ufeffpath,label,cloud,empty\r\n"a,""b"".png",port,nan,\r\n"two\nlines.png",,inf,\r\n'
    source = load(tmp_path / "M.CSV", text)
    assert ids(source) == ['a,"b".png', "two\nlines.png"]
    assert source.examples[0].attributes["cloud"] is None  # as Arrow reads it
    assert source.examples[1].attributes["cloud"] == math.inf
    assert source.examples[1].attributes["empty"] is None


def test_codes_with_leading_zeros_stay_text(tmp_path: Path) -> None:
    source = load(tmp_path / "m.csv", "path,code,n\na.png,001,0\nb.png,12,-5\nc.png,,10\n")
    assert [example.attributes["code"] for example in source.examples] == ["001", "12", ""]
    assert [example.attributes["n"] for example in source.examples] == [0, -5, 10]


def test_jsonl_with_long_and_uneven_lines(tmp_path: Path) -> None:
    rows = [{"path": f"{i}.png", "outline": [i] * 300_000} for i in range(3)]
    text = "".join(json.dumps(row) + "\n" for row in rows) + '{"path": "x.png", "late": 1.5}\n'
    source = load(tmp_path / "m.jsonl", text)
    assert [example.attributes["late"] for example in source.examples] == [None] * 3 + [1.5]


def test_a_folder_with_an_equals_sign_is_not_a_column(tmp_path: Path) -> None:
    (tmp_path / "year=2020").mkdir()
    path = write_parquet(tmp_path / "year=2020" / "m.parquet", pa.table({"path": ["a.png"]}))
    assert open_source(path).schema.names == []


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("m.jsonl", "", "cannot be read as jsonl"),
        ("m.csv", "", "cannot be read as csv"),
        ("m.parquet", "", "cannot be read as parquet"),
        ("m.csv", "path,label\n", "found no rows"),
        ("m.jsonl", "garbage\n", "cannot be read as jsonl"),
        ("m.jsonl", '{"path": "a.png"}\n{"path": \n', "cannot be read as jsonl"),
        ("m.jsonl", '{"path": "a"}\n\n{"path": "b", "v": x}\n', "jsonl: line 3: .* character 20"),
        ("m.jsonl", '{"path": "a", "v": 1}\n{"path": "b", "v": [1]}\n', "line 2: column 'v'"),
        ("m.jsonl", '{"path": "a"}\n{"path": "b", "path": "c"}\n', "line 2: .*'path' twice"),
        ("m.jsonl", '{"path": "a"}\n{"path": "\\ud800"}\n', "line 2: expected text in Unicode"),
        (
            "m.jsonl",
            '{"path": "a", "v": ' + "[" * 99 + "]" * 99 + "}",
            "line 1: .*at most 64 levels",
        ),
        ("m.jsonl", '{"path": "a", "v": ' + "[" * 10**5 + "]" * 10**5 + "}", "line 1: "),
        ("m.jsonl", "{}\n", "found no rows"),
        ("m.jsonl", '[{"path": "a.png"}]\n', "cannot be read as jsonl"),
        ("m.csv", "path,label\na.png\n", "cannot be read as csv"),
        ("m.parquet", "garbage, and not a little of it", "cannot be read as parquet"),
        ("m.csv", "label,size\nport,5\n", "expected a column named uri, .*found label, size"),
        ("m.csv", "Path,label\na.png,x\n", "found Path, label; rename 'Path' to 'path'"),
        ("m.csv", "label, uri \nx,a.png\n", "rename ' uri ' to 'uri'"),
        ("m.csv", "path;label\na.png;x\n", "expected commas between the columns, found ';'"),
        ("m.csv", "path\tlabel\na.png\tx\n", r"expected commas .*, found '\\t'"),
        ("m.csv", "path,label,label\na.png,x,y\n", "expected each column once, found 'label'"),
        ("m.jsonl", '{"path": "a.png"}\n{"label": "port"}\n', "row 2 has no path"),
        ("m.csv", "path,label\na.png,x\n,y\n", "row 2 has no path"),
        ("m.jsonl", '{"id": "x", "path": "a.png"}\n{"path": "b.png"}\n', "row 2 has no id"),
        ("m.csv", "id,path\n,a.png\n", "row 1 has no id"),
        ("m.jsonl", '{"path": ["a.png"]}\n', "expected text in column 'path', found list"),
        ("m.jsonl", '{"id": {"x": 1}, "path": "a"}\n', "expected text in column 'id'"),
    ],
)
def test_malformed_tables_are_refused(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(DatasetError, match=message) as caught:
        load(tmp_path / name, text)
    assert str(tmp_path / name) in str(caught.value)


def test_a_manifest_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    texts = {
        "path.csv": b"path,caption\ncaf\xe9.png,x\n",
        "caption.csv": b"path,caption\na.png,caf\xe9 0\n",
        "path.jsonl": b'{"label": "x"}\n{"path": "caf\xe9.png"}\n',
        "caption.jsonl": b'{"path": "a.png"}\n{"path": "b.png", "caption": "caf\xe9"}\n',
        "list.jsonl": b'{"path": "a.png"}\n{"path": "b.png", "captions": ["caf\xe9"]}\n',
    }
    for name, text in texts.items():
        path = tmp_path / name
        path.write_bytes(text)
        complaint = rf"{name} cannot be read as \w+: expected UTF-8, found the byte 0xe9 in line 2;"
        with pytest.raises(DatasetError, match=complaint):
            open_source(path)
    latin = pa.array([b"caf\xe9"]).cast(pa.string(), safe=False)
    path = write_parquet(tmp_path / "m.parquet", pa.table({"path": ["a.png"], "caption": latin}))
    with pytest.raises(DatasetError, match=r"m\.parquet cannot be read as parquet: .*UTF8"):
        open_source(path)


def test_columns_of_several_manifests_get_one_type(tmp_path: Path) -> None:
    ints = write_jsonl(tmp_path / "a.jsonl", pa.table({"path": ["a.png"], "v": [1], "w": ["x"]}))
    floats = write_jsonl(tmp_path / "b.jsonl", pa.table({"path": ["b.png"], "v": [0.5]}))
    texts = write_jsonl(tmp_path / "c.jsonl", pa.table({"path": ["c.png"], "v": ["x"]}))
    first, second = open_sources([ints, floats])
    assert first.schema == pa.schema({"v": pa.float64(), "w": pa.string()})
    assert second.schema == pa.schema({"v": pa.float64()})
    lists = write_jsonl(tmp_path / "d.jsonl", pa.table({"path": ["d.png"], "v": [[1]]}))
    mixed = open_sources([ints, floats, texts])
    assert [source.examples[0].attributes["v"] for source in mixed] == ["1", "0.5", "x"]
    with pytest.raises(DatasetError, match=r"the sources' columns differ in type: .*v"):
        open_sources([texts, lists])


@pytest.mark.parametrize("name", ["", "Unnamed: 0", "Unnamed: 0.1", "__index_level_0__"])
def test_pandas_index_is_ignored_with_a_note(tmp_path: Path, name: str) -> None:
    table = pa.table({name: [0], "path": ["a.png"], "v": ["x"]})
    for path in (
        write_csv(tmp_path / "m.csv", table),
        write_parquet(tmp_path / "m.parquet", table),
    ):
        source = open_source(path)
        assert source.schema.names == ["v"]
        assert len(source.notes) == 1
        assert f"{path}: " in source.notes[0] and "is ignored as an index" in source.notes[0]


def test_utf16_is_recognised(tmp_path: Path) -> None:
    text = 'path,v\na.png,"é"\n'
    for encoding, advice in [("utf-16", "iconv -f utf-16 "), ("utf-16-le", "iconv -f utf-16le ")]:
        path = tmp_path / "m.csv"
        path.write_text(text, encoding=encoding)
        with pytest.raises(DatasetError, match=advice):
            open_source(path)


def test_a_nan_label_written_by_pandas_is_null(tmp_path: Path) -> None:
    lines = '{"path": "a", "label": NaN}\n{"path": "b", "label": 3}\n'
    labels = [example.attributes["label"] for example in load(tmp_path / "m.jsonl", lines).examples]
    assert labels == [None, "3"]


@pytest.mark.parametrize("rest", ["", "\n", "\nb.png,x\nc.png,y\n", '\nb.png,""x""\n'])
def test_a_quote_without_an_end_is_refused(tmp_path: Path, rest: str) -> None:
    """Arrow takes all following rows for the text of one cell."""
    with pytest.raises(DatasetError, match=r"m.csv: row 2: expected a closing quote, found none"):
        load(tmp_path / "m.csv", f'path,label\nx.png,y\na.png,"port{rest}')


@pytest.mark.parametrize(
    ("cell", "label"),
    [
        ('""', ""), ('""""', '"'), ('""""""', '""'), ('"a"""', 'a"'), ('"""a"', '"a'),
        ('","', ","), ('"a,"', "a,"), ('5"', '5"'), ('5"a', '5"a'), ('"a\n"', "a\n"),
        ('"\n"', "\n"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("end", ["", "\n", "\n\n"])
def test_quotes_with_an_end(tmp_path: Path, cell: str, label: str, end: str) -> None:
    source = load(tmp_path / "m.csv", f"path,label\na.png,{cell}{end}")
    assert (source.examples[0].label or "") == label
