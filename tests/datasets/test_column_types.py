"""Column types of manifests: the same for CSV, JSONL and Parquet, without altering values."""

from __future__ import annotations

import csv
import datetime as dt
import json
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rsicd_embed.cli.base import COLUMN_TYPES
from rsicd_embed.datasets.base import Source
from rsicd_embed.datasets.column_types import DECLARABLE, survives
from rsicd_embed.datasets.sources import open_source, open_sources, resolve
from rsicd_embed.errors import DatasetError, SchemaError

UTC_NOON = dt.datetime(2024, 5, 10, 12, tzinfo=dt.UTC)
WORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
NUMERALS = st.text("0123456789.-+eE", min_size=1, max_size=24)
CELLS = WORDS | NUMERALS | st.sampled_from(["2024-05-10", "007", "true", "NA", "nan", "10e4", " 1"])


def write_csv(path: Path, rows: list[dict[str, str]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    return path


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_parquet(path: Path, table: dict[str, Any]) -> Path:
    pyarrow.parquet.write_table(pa.table(table), path)
    return path


def column(source: Source, name: str = "v") -> list[Any]:
    return [example.attributes[name] for example in source.examples]


def kind(source: Source, name: str = "v") -> str:
    return str(source.schema.field(name).type)


def csv_with(folder: Path, cells: list[str], name: str = "m.csv") -> Path:
    return write_csv(folder / name, [{"path": f"{i}.png", "v": v} for i, v in enumerate(cells)])


def lines_with(folder: Path, values: list[str], name: str = "m.jsonl") -> Path:
    """A JSONL whose values are given as JSON."""
    path = folder / name
    lines = [f'{{"path": "{i}.png", "v": {value}}}\n' for i, value in enumerate(values)]
    path.write_text("".join(lines), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("cells", "type_", "values"),
    [
        (["0", "-5", "10", ""], "int64", [0, -5, 10, None]),
        (["9223372036854775807"], "int64", [2**63 - 1]),
        ([" 1", "2 "], "int64", [1, 2]),
        (["45.10", "-0.5", "7", "NA"], "double", [45.1, -0.5, 7.0, None]),
        (["0.30000000000000004", "0.10000000000000001"], "double", [0.1 + 0.2, 0.1]),
        (["1.5e-07", "1E+22", "nan", "-inf"], "double", [1.5e-7, 1e22, None, -float("inf")]),
        (["true", "False", ""], "bool", [True, False, None]),
        (["", ""], "null", [None, None]),
        (["12345678901234567891"], "string", None),
        (["9223372036854775808"], "string", None),
        (["12345678901234567", "0.5"], "string", None),
        (["0.12345678901234567891"], "string", None),
        (["1.5e-400"], "string", None),
        (["007", "12", ""], "string", None),
        (["+5", "5"], "string", None),
        (["-0"], "double", [-0.0]),
        (["10e4", "11e4"], "string", None),
        (["1e5"], "string", None),
        (["0x12"], "string", None),
        (["1_000"], "string", None),
        (["00.5"], "string", None),
        (["5."], "string", None),
        (["yes", "no"], "string", None),
        (["NA", "NA"], "string", None),
        (["2024-05-10"], "string", None),
        (["2024-05-10T12:00:00+02:00"], "string", None),
        (["10:30:00"], "string", None),
        (["1", "2", "x"], "string", None),
        ([str(i) for i in range(100)] + ["x"], "string", None),
    ],
)
def test_columns_of_a_csv(
    tmp_path: Path, cells: list[str], type_: str, values: list[Any] | None
) -> None:
    source = open_source(csv_with(tmp_path, cells))
    assert (kind(source), column(source)) == (type_, cells if values is None else values)


@pytest.mark.parametrize(
    ("values", "type_", "expected"),
    [
        (["1", "null", "-2"], "int64", [1, None, -2]),
        (["1", "0.50", "10e4"], "double", [1.0, 0.5, 100000.0]),
        (["12345678901234567891"], "string", ["12345678901234567891"]),
        (["12345678901234567891", "1"], "string", ["12345678901234567891", "1"]),
        (["0.12345678901234567891"], "string", ["0.12345678901234567891"]),
        (["1e400", "2.50"], "string", ["1e400", "2.50"]),
        (["Infinity", "1"], "double", [float("inf"), 1.0]),
        (['"x"', "1.50", "true", "NaN"], "string", ["x", "1.50", "true", None]),
        (["true", "null"], "bool", [True, None]),
        (['"2024-05-10"'], "string", ["2024-05-10"]),
        (['"12"', '""'], "string", ["12", ""]),
        (["[1, 2.5]", "[]"], "list<item: double>", [[1.0, 2.5], []]),
        (['["2024-05-10"]'], "list<item: string>", [["2024-05-10"]]),
        (["[12345678901234567891]"], "list<item: string>", [["12345678901234567891"]]),
        (
            ['{"a": 1, "t": "2024-05-10"}', '{"a": 0.5}', "null"],
            "struct<a: double, t: string>",
            [{"a": 1.0, "t": "2024-05-10"}, {"a": 0.5, "t": None}, None],
        ),
        (["{}", "null"], "struct<>", [{}, None]),
    ],
)
def test_columns_of_a_jsonl(
    tmp_path: Path, values: list[str], type_: str, expected: list[Any]
) -> None:
    source = open_source(lines_with(tmp_path, values))
    assert (kind(source), column(source)) == (type_, expected)


TABLES = st.integers(1, 4).flatmap(
    lambda n: st.fixed_dictionaries(
        {
            "id": st.lists(CELLS.filter(bool), min_size=n, max_size=n, unique=True),
            **{
                name: st.lists(CELLS, min_size=n, max_size=n)
                for name in ("label", "caption", "split", "v", "w")
            },
        }
    )
)


@given(TABLES)
@example({"id": ["2024-05-10"], "label": ["2021-01-01"], "v": ["1e5"], "w": ["007"]})
@example({"id": ["1", "01"], "label": ["1", "2"], "v": ["NA", "1"], "w": ["", "x"]})
@settings(max_examples=60)
def test_text_is_identical_in_every_format(table: dict[str, list[str]]) -> None:
    """A column that is numeric only in a CSV becomes text, exactly as written."""
    table = {"path": [f"{i}.png" for i in range(len(table["id"]))], **table}
    rows = [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]
    with TemporaryDirectory() as folder:
        sources = open_sources(
            [
                write_csv(Path(folder, "m.csv"), rows),
                write_jsonl(Path(folder, "m.jsonl"), rows),
                write_parquet(Path(folder, "m.parquet"), table),
            ]
        )
        alone = open_source(Path(folder, "m.csv"))
    for source in sources:
        assert [image.id for image in source.examples] == table["id"]
        for name in table.keys() - {"id", "path"}:
            # A column of only empty cells has no type and is null.
            assert [value or None for value in column(source, name)] == [
                text or None for text in table[name]
            ]
    for name in {"label", "caption", "split"} & table.keys():
        assert [value or "" for value in column(alone, name)] == table[name]


@given(NUMERALS)
@settings(max_examples=150)
def test_csv_numbers_can_be_recovered(text: str) -> None:
    with TemporaryDirectory() as folder:
        (value,) = column(open_source(csv_with(Path(folder), [text])))
    if isinstance(value, int):
        assert str(value) == text
    elif isinstance(value, float):
        digits = len(Decimal(text).as_tuple().digits)
        assert Decimal(f"{value:.{max(digits, 1) - 1}e}") == Decimal(text)
    else:
        assert value == text


@example([2.0**-24])  # its shortest text differs from its rounding to 16 digits
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=5))
@settings(max_examples=80)
def test_formatted_floats_are_read_exactly(numbers: list[float]) -> None:
    for form in (repr, "{:.17g}".format, "{:.18e}".format, "{:.25e}".format):
        written = pa.array([form(number) for number in numbers])
        assert survives(written).to_pylist() == [True] * len(numbers)
    with TemporaryDirectory() as folder:
        source = open_source(lines_with(Path(folder), [repr(number) for number in numbers]))
        assert [str(float(value)) for value in column(source)] == [str(n) for n in numbers]
        (read,) = open_sources(
            [csv_with(Path(folder), [f"{n:.18e}" for n in numbers])],
        )
        assert [str(value) for value in column(read)] == [str(n) for n in numbers]


def test_id_label_split_and_captions_are_text_in_every_format(tmp_path: Path) -> None:
    names = ["id", "label", "split", "caption"]
    for value, text in [(7, "7"), (True, "true"), (0.5, "0.5")]:
        row = {"path": "a.png", **dict.fromkeys(names, value), "captions": [value]}
        cells = {name: str(cell).lower() for name, cell in row.items()}
        for path in (
            write_jsonl(tmp_path / "m.jsonl", [row]),
            write_csv(tmp_path / "m.csv", [{**cells, "captions": text}]),
            write_parquet(tmp_path / "m.parquet", {name: [cell] for name, cell in row.items()}),
        ):
            (image,) = open_source(path).examples
            assert (image.id, image.label, image.split) == (text, text, text)
            assert image.captions == (text,)
            assert image.attributes["caption"] == text
    ids = pa.array([dt.date(2024, 5, 10)])
    (image,) = open_source(
        write_parquet(tmp_path / "d.parquet", {"path": ["a"], "id": ids})
    ).examples
    assert image.id == "2024-05-10"


@pytest.mark.parametrize(
    ("type_", "texts", "values"),
    [
        ("text", ["1", "2.50"], ["1", "2.50"]),
        ("int64", ["007", "+5", "3.0"], [7, 5, 3]),
        ("float64", ["10e4", "0.12345678901234567891", "1."], [1e5, 0.12345678901234568, 1.0]),
        ("bool", ["TRUE", "False"], [True, False]),
        ("date", ["2024-05-10"], [dt.date(2024, 5, 10)]),
        (
            "timestamp",
            ["2024-05-10", "2024-05-10 12:00:00.500000000"],
            [dt.datetime(2024, 5, 10), dt.datetime(2024, 5, 10, 12, 0, 0, 500_000)],
        ),
        ("timestamp", ["2024-05-10T12:00Z", "2024-05-10T14:00:00+02:00"], [UTC_NOON, UTC_NOON]),
    ],
)
def test_declared_types(tmp_path: Path, type_: str, texts: list[str], values: list[Any]) -> None:
    for path in (
        csv_with(tmp_path, [*texts, ""]),
        lines_with(tmp_path, [*(json.dumps(text) for text in texts), "null"]),
        write_parquet(
            tmp_path / "m.parquet",
            {"path": [f"{i}.png" for i in range(len(texts) + 1)], "v": [*texts, None]},
        ),
    ):
        (source,) = open_sources([path], column_types={"v": type_})
        blank = "" if type_ == "text" and path.suffix == ".csv" else None
        assert column(source) == [*values, blank]


@pytest.mark.parametrize(
    ("declared", "cells", "complaint"),
    [
        ({"v": "timestamp"}, ["2024-05-10T12:00Z", "2024-05-10"], "row 1 and none at .*row 2;"),
        ({"v": "timestamp"}, ["", "2024-13-10"], r"m\.csv: row 2: expected timestamp.*'2024-13"),
        ({"v": "timestamp"}, ["0000-01-01"], "row 1: column 'v': expected times of the years"),
        ({"v": "timestamp"}, ["9999-12-31T23:59:59-05:00"], "row 1: .*of the years 1"),
        ({"v": "timestamp"}, ["2024-05-10T12:00:00.1234567"], "row 1: .*found '2024.*34567'"),
        ({"v": "date"}, ["2024-05-10 12:00:00"], "row 1: expected date32"),
        ({"v": "int64"}, ["1", "2.5"], "row 2: expected int64 in column 'v', as declared, found"),
        ({"v": "int64"}, ["0x12"], "row 1: expected int64"),
        ({"v": "int64"}, ["9223372036854775808"], "row 1: expected int64"),
        ({"v": "float64"}, ["x"], "row 1: expected double"),
        ({"v": "bool"}, ["1"], "row 1: expected bool"),
        ({"w": "int64"}, ["1"], "'w' is declared, but no source has it; found v"),
        ({"v": "time"}, ["1"], "column 'v': expected a type of text, int64"),
        ({"label": "int64"}, ["1"], "'label' is always text"),
    ],
)
def test_values_of_other_types_than_declared_are_refused(
    tmp_path: Path, declared: dict[str, str], cells: list[str], complaint: str
) -> None:
    with pytest.raises(DatasetError, match=complaint):
        open_sources([csv_with(tmp_path, cells)], column_types=declared)


def test_times_of_several_sources_must_agree_on_offsets(tmp_path: Path) -> None:
    aware = csv_with(tmp_path, ["2024-05-10T12:00:00Z"], "a.csv")
    naive = lines_with(tmp_path, ['"2024-05-10T12:00:00"'])
    typed = pa.array([UTC_NOON], pa.timestamp("ms", "UTC"))
    parquet = write_parquet(tmp_path / "m.parquet", {"path": ["0.png"], "v": typed})
    first, other = open_sources([aware, parquet], column_types={"v": "timestamp"})
    assert first.schema == other.schema == pa.schema({"v": pa.timestamp("us", "UTC")})
    assert column(first) == column(other) == [UTC_NOON]
    with pytest.raises(DatasetError, match=r"a\.csv: row 1 and none at .*m\.jsonl: row 1"):
        open_sources([aware, naive], column_types={"v": "timestamp"})
    with pytest.raises(DatasetError, match=r"'v' is text in .*a\.csv and timestamp.*declare"):
        open_sources([aware, parquet])


def test_the_command_line_lists_the_types_that_can_be_declared() -> None:
    assert list(DECLARABLE) == list(COLUMN_TYPES)


@pytest.mark.parametrize(
    ("stored", "cells", "values"),
    [
        (pa.string(), ["12", "2.50", "true", ""], ["12", "2.50", "true", ""]),
        (pa.float64(), ["12", "NA", ""], [12.0, None, None]),
        (pa.float64(), ["10e4"], [1e5]),
        (pa.float32(), ["0.25", "51.2"], [0.25, pytest.approx(51.2)]),
        (pa.int32(), ["12", "3.0", ""], [12, 3, None]),
        (pa.bool_(), ["True"], [True]),
        (pa.timestamp("s"), ["2024-05-10", ""], [dt.datetime(2024, 5, 10), None]),
        (pa.timestamp("us", "UTC"), ["2024-05-10T14:00:00+02:00"], [UTC_NOON]),
        (pa.date32(), ["2024-05-10"], [dt.date(2024, 5, 10)]),
        (pa.time32("s"), ["10:30:00"], [dt.time(10, 30)]),
        (pa.decimal128(6, 2), ["1.50"], [Decimal("1.50")]),
    ],
)
def test_the_stores_type_takes_precedence(
    tmp_path: Path, stored: pa.DataType, cells: list[str], values: list[Any]
) -> None:
    source = open_source(csv_with(tmp_path, cells))
    (resolved,) = resolve([source], {}, pa.schema({"v": stored}))
    assert column(resolved) == values
    assert resolved.schema == pa.schema({"v": stored})


@pytest.mark.parametrize(
    ("stored", "cells"),
    [
        (pa.int64(), ["1", "51.28"]),
        (pa.int64(), ["1", "007"]),
        (pa.int8(), ["1", "300"]),
        (pa.float64(), ["1", "12345678901234567891"]),
        (pa.float32(), ["1", "51.2812345678"]),
        (pa.float64(), ["1", "x"]),
        (pa.bool_(), ["true", "1"]),
        (pa.timestamp("s"), ["2024-05-10", "2024-05-10T12:00:00Z"]),
        (pa.timestamp("us", "UTC"), ["2024-05-10T12:00:00Z", "2024-05-10T12:00:00"]),
        (pa.list_(pa.string()), ["", "x"]),
        (pa.duration("s"), ["", "5"]),
    ],
)
def test_values_that_do_not_fit_the_store_are_refused(
    tmp_path: Path, stored: pa.DataType, cells: list[str]
) -> None:
    source = open_source(csv_with(tmp_path, cells))
    with pytest.raises(
        SchemaError, match=rf"m\.csv: row 2: .*'v', .*store.*'{cells[1]}'".replace("+", r"\+")
    ):
        resolve([source], {}, pa.schema({"v": stored}))


def test_nested_columns_take_the_stores_type(tmp_path: Path) -> None:
    stored = pa.struct(
        {"a": pa.float64(), "t": pa.timestamp("s"), "l": pa.list_(pa.float64()), "more": pa.int64()}
    )
    source = open_source(lines_with(tmp_path, ['{"a": 1, "t": "2024-05-10", "l": [1]}', "null"]))
    (resolved,) = resolve([source], {}, pa.schema({"v": stored}))
    at = dt.datetime(2024, 5, 10)
    assert column(resolved) == [{"a": 1.0, "t": at, "l": [1.0], "more": None}, None]
    other = open_source(lines_with(tmp_path, ['{"a": 1}', '{"a": 2, "b": 3}']))
    with pytest.raises(SchemaError, match=r"row 2: expected struct.*found {'a': '2', 'b': '3'}"):
        resolve([other], {}, pa.schema({"v": stored}))


def test_a_declared_type_must_match_the_store(tmp_path: Path) -> None:
    source = open_source(csv_with(tmp_path, ["007", "+5"]))
    (resolved,) = resolve([source], {"v": "int64"}, pa.schema({"v": pa.float64()}))
    assert column(resolved) == [7.0, 5.0]
    with pytest.raises(SchemaError, match="declared as int64, but is text in the store"):
        resolve([source], {"v": "int64"}, pa.schema({"v": pa.string()}))


def test_a_split_of_a_table_is_converted_from_its_rows(tmp_path: Path) -> None:
    rows = [
        {"path": f"{i}.png", "split": split, "v": value}
        for i, (split, value) in enumerate(
            zip(["train", "test"] * 2, ["0", "1", "x", "23"], strict=True)
        )
    ]
    (source,) = open_sources([write_csv(tmp_path / "m.csv", rows)], split="test")
    (resolved,) = resolve([source], {}, pa.schema({"v": pa.string()}))
    assert column(resolved) == ["1", "23"]
    with pytest.raises(SchemaError, match=r"row 4: .*'23'"):
        resolve([source], {}, pa.schema({"v": pa.decimal128(3, 2)}))


def test_times_outside_pythons_range_are_refused(tmp_path: Path) -> None:
    far = pa.array([0, 2**60], pa.int64()).cast(pa.timestamp("us"))
    for values in (far, pa.array([[0], [2**60]], pa.list_(pa.int64())).cast(pa.list_(far.type))):
        path = write_parquet(tmp_path / "m.parquet", {"path": ["a.png", "b.png"], "v": values})
        with pytest.raises(DatasetError, match=r"m\.parquet: row 2: column 'v': expected times"):
            open_source(path)
