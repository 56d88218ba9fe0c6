"""`rsicd-embed sql`: JSON and table output, imports, and failures."""

from __future__ import annotations

import datetime as dt
import math
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

import rsicd_embed

from .helpers import SCHEMES, run

pytestmark = pytest.mark.usefixtures("load_each_model_once")

GROUPS = (
    "SELECT label, count(*) AS n, avg(similarity('a beach')) FROM images "
    "GROUP BY label ORDER BY 3 DESC"
)


@pytest.fixture
def stored(uri: str, pictures: Path, tiny_model: Path) -> str:
    """A store of five images, some of them labelled."""
    rows = [
        {"path": "a.png", "label": "port", "cloud": 0.5},
        {"path": "b.png", "label": "it's", "cloud": math.nan},
        {"path": "c.jpg", "label": "port", "cloud": math.inf},
        {"path": "d.tif"},
        {"path": "sub/e.png", "label": "two\nlines \x1b[31m海"},
    ]
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), pictures / "m.parquet")
    outcome = run("ingest", pictures / "m.parquet", "--store", uri, "--model", tiny_model)
    assert outcome.status == 0
    return uri


@pytest.mark.parametrize("scheme", SCHEMES)
def test_any_store(scheme: str, pictures: Path, tiny_model: Path, tmp_path: Path) -> None:
    uri = f"{scheme}:{tmp_path / 'store'}"
    run("ingest", pictures, "--store", uri, "--model", tiny_model)
    hits = run("search", "a port", "--store", uri, "-k", 3, "--json").document["hits"]
    query = "SELECT id, similarity('a port') AS score FROM images ORDER BY score DESC LIMIT 3"
    outcome = run("sql", query, "--store", uri, "--json")
    assert (outcome.status, outcome.stderr) == (0, "")
    assert outcome.document == {
        "columns": ["id", "score"],
        "rows": [[hit["id"], hit["score"]] for hit in hits],
    }
    image = pictures / "c.jpg"
    by_image = run("search", "--image", image, "--store", uri, "--json").document["hits"]
    query = f"SELECT id, similarity_image('{image}') FROM images ORDER BY 2 DESC, id"
    rows = run("sql", query, "--store", uri, "--json").document["rows"]
    assert rows == [[hit["id"], hit["score"]] for hit in by_image]


def test_json(stored: str) -> None:
    document = run("sql", GROUPS, "--store", stored, "--json").document
    assert document["columns"] == ["label", "n", "avg(similarity('a beach'))"]
    assert {row[0]: row[1] for row in document["rows"]} == {
        "port": 2, "it's": 1, None: 1, "two\nlines \x1b[31m海": 1
    }  # fmt: skip
    means = [row[2] for row in document["rows"]]
    assert means == sorted(means, reverse=True)
    outcome = run("sql", "SELECT id FROM images WHERE width < 0", "--store", stored, "--json")
    assert outcome.stdout == '{"columns": ["id"], "rows": []}\n'


def test_values_in_json(stored: str) -> None:
    (row,) = run(
        "sql",
        "SELECT 'NaN'::double, '-inf'::float, 1.5, 3, true, NULL, [1.0, 'NaN'], [[1], []], "
        "{'a': 'x', 'b': 'inf'::double}, X'00ff', DATE '2020-05-17', TIME '12:30:00', "
        "TIMESTAMP '2020-05-17T01:02:03.123456789', "
        "arrow_cast(0, 'Timestamp(Second, Some(\"UTC\"))'), "
        "arrow_cast(1500000000, 'Duration(Nanosecond)'), CAST(2.5 AS DECIMAL(5, 2)), 'ü\n\"', "
        "[TIMESTAMP '2020-05-17T01:02:03.5'], arrow_cast('a', 'Dictionary(Int32, Utf8)'), "
        "arrow_cast(1e15, 'Timestamp(Second, None)') > now()",
        "--store", stored, "--json",
    ).document["rows"]  # fmt: skip
    assert row == [
        None, None, 1.5, 3, True, None, [1.0, None], [[1], []], {"a": "x", "b": None}, "00ff",
        "2020-05-17", "12:30:00", "2020-05-17 01:02:03.123456", "1970-01-01 00:00:00+00:00",
        "0:00:01.500000", "2.50", 'ü\n"', ["2020-05-17 01:02:03.500000"], "a", True,
    ]  # fmt: skip


def test_now_intervals_and_distant_years(stored: str) -> None:
    query = "SELECT now(), interval '1 day', arrow_cast(1e12, 'Timestamp(Second, None)')"
    for options in ([], ["--json"]):
        assert run("sql", query, "--store", stored, *options).status == 0
    now, _, beyond = run("sql", query, "--store", stored, "--json").document["rows"][0]
    passed = abs(dt.datetime.fromisoformat(now) - dt.datetime.now(dt.UTC).replace(tzinfo=None))
    assert passed < dt.timedelta(minutes=5)
    assert isinstance(beyond, str)


def test_bytes_nanoseconds_and_distant_years(
    pictures: Path, tiny_model: Path, tmp_path: Path, uri: str, other_model: Path
) -> None:
    """`search` and `sql` print bytes, nanoseconds and distant years the same way."""
    rows = tmp_path / "rows.parquet"
    assert run("embed", pictures / "a.png", "-o", rows, "--model", tiny_model).status == 0
    table = pyarrow.parquet.read_table(rows)
    nested = pa.struct([("at", pa.timestamp("ns")), ("far", pa.list_(pa.timestamp("us")))])
    table = table.append_column("raw", pa.array([[b"\0\xff"]], pa.list_(pa.binary())))
    table = table.append_column("ns", pa.array([1_001], pa.timestamp("ns")))
    table = table.append_column("far", pa.array([2**61], pa.timestamp("us")))
    table = table.append_column("nested", pa.array([{"at": 1_001, "far": [0, 2**61]}], nested))
    pyarrow.parquet.write_table(table, rows)
    assert run("import", rows, "--store", uri).status == 0
    for command in (["search", "a port", "--model", tiny_model], ["sql", "SELECT * FROM images"]):
        outcome = run(*command, "--store", uri)
        assert (outcome.status, "2305843009213693952" in outcome.stdout) == (0, True)
        assert "00ff" in outcome.stdout
    (hit,) = run("search", "a port", "--store", uri, "--json").document["hits"]
    assert hit["raw"] == ["00ff"]
    assert hit["ns"] == hit["nested"]["at"] == "1970-01-01 00:00:00.000001"
    assert hit["nested"]["far"] == ["1970-01-01 00:00:00", hit["far"]]
    query = "SELECT ns, far, nested, raw FROM images"
    values = run("sql", query, "--store", uri, "--json").document["rows"][0]
    assert values == [hit[name] for name in ("ns", "far", "nested", "raw")]
    assert run("reembed", "--store", uri, "--model", other_model).status == 0
    assert run("sql", query, "--store", uri, "--json").document["rows"] == [values]
    later = tmp_path / "later.csv"
    later.write_text(f"id,path,far\na.png,{pictures / 'a.png'},2020-05-17\n")
    outcome = run("ingest", later, "--store", uri, "--model", other_model, "--json")
    assert (outcome.status, outcome.document["updated"]) == (0, 1)


def test_vectors_in_json_match_the_store(stored: str) -> None:
    outcome = run("sql", "SELECT vector, id FROM images ORDER BY id", "--store", stored, "--json")
    with rsicd_embed.open_store(stored) as store:
        rows = sorted(store.scan().read_all().to_pylist(), key=lambda row: str(row["id"]))
    assert outcome.document["rows"] == [[row["vector"], row["id"]] for row in rows]


def test_table_output(stored: str) -> None:
    query = 'SELECT id, label, cloud, vector, 1e9 AS "big\n" FROM images ORDER BY id LIMIT 5'
    outcome = run("sql", query, "--store", stored)
    assert (outcome.status, outcome.stderr) == (0, "")
    lines = outcome.stdout.splitlines()
    assert [line.split("  ")[0].strip() for line in lines] == [
        "id", "-" * 9, "a.png", "b.png", "c.jpg", "d.tif", "sub/e.png"
    ]  # fmt: skip
    assert lines[0].split() == ["id", "label", "cloud", "vector", "big\\n"]
    assert "two\\nlines \\x1b[31m海" in lines[-1]
    assert lines[5].split()[:3] == ["d.tif", "NULL", "NULL"]
    assert lines[3].split()[:3] == ["b.png", "it's", "nan"]
    assert all(line.endswith("…  1000000000") for line in lines[2:])
    assert len({line.index("1000000000") for line in lines[2:]}) == 1
    empty = run("sql", "SELECT id FROM images WHERE width < 0", "--store", stored)
    assert empty.stdout == "id\n--\n"


def test_many_rows(stored: str) -> None:
    """More rows than are buffered for the column widths."""
    query = "SELECT value AS n, value * 1000 AS more FROM generate_series(1, 12345)"
    document = run("sql", query, "--store", stored, "--json").document
    assert document["rows"] == [[n, 1000 * n] for n in range(1, 12346)]
    lines = run("sql", query, "--store", stored).stdout.splitlines()
    assert len(lines) == 12347
    assert lines[-1].split() == ["12345", "12345000"]


def test_failures(stored: str, tiny_model: Path, other_model: Path, tmp_path: Path) -> None:
    def error(query: str, *options: object) -> str:
        return run("sql", query, "--store", stored, "--json", *map(str, options)).error

    assert "no column nothing; columns of images: id, vector" in error("SELECT nothing FROM images")
    assert "no table 'pictures'" in error("SELECT id FROM pictures")
    assert "expected one query that reads" in error("DROP TABLE images")
    assert "syntax error" in error("SELEKT id FROM images")
    assert "Cannot cast string" in error("SELECT CAST(label AS INT) FROM images")
    assert "expected similarity('a text')" in error("SELECT similarity(label) FROM images")
    refused = error("SELECT similarity('x') FROM images", "--model", other_model)
    assert refused == run("search", "x", "--store", stored, "--model", other_model).error
    missing = error(f"SELECT similarity_image('{tmp_path}/gone.png') FROM images")
    assert "gone.png" in missing
    absent = run("sql", "SELECT 1", "--store", f"exact:{tmp_path / 'absent'}")
    assert "no store at" in absent.error
    same = run(
        "sql", "SELECT similarity('x') FROM images", "--store", stored, "--model", tiny_model
    )
    assert same.status == 0
    assert run("sql", "SELECT 1", "--store", stored, "--model", other_model).status == 0


@pytest.mark.parametrize(
    "arguments", [["--store", "exact:x"], ["SELECT 1"], ["SELECT '\udcff'", "--store", "exact:x"]]
)
def test_wrong_usage(arguments: list[str]) -> None:
    outcome = run("sql", *arguments)
    assert (outcome.status, outcome.stdout) == (2, "")
