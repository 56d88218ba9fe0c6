"""SQL results are the same in every store, and equal those of NumPy and of search."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rsicd_embed
from rsicd_embed.errors import FingerprintError, ImageError, ModelError, SQLError
from rsicd_embed.query.run import run
from rsicd_embed.records import vector_array
from rsicd_embed.stores.base import VectorStore, open_store

from .conftest import MADE_BY, SCHEMES, Words, direction, table

Ask = Callable[[str], list[dict[str, object]]]

QUERIES = [
    "SELECT count(*), count(label), count(DISTINCT label) FROM images",
    "SELECT label, count(*) AS n, min(width), max(cloud) FROM images GROUP BY label",
    "SELECT id, similarity('a') FROM images",
    "SELECT id FROM images WHERE similarity('a') > 0.2 AND width > 100",
    "SELECT id FROM images WHERE label = 'it''s' AND NOT \"Night\" "
    "OR array_has(captions, 'a port')",
    "SELECT id FROM images WHERE similarity('a') > (SELECT avg(similarity('b')) FROM images)",
    "SELECT * FROM images WHERE width BETWEEN 10 AND 90 OR label IS NULL",
    "SELECT label, max(similarity('a') - similarity('b')) AS d FROM images GROUP BY label",
    "SELECT a.id, b.id FROM images a JOIN images b ON a.width = b.width AND a.id < b.id",
    "SELECT a.id, s FROM images a LEFT JOIN (SELECT id, similarity('a') AS s FROM images "
    "WHERE width > 400) b ON a.id = b.id",
    "SELECT id FROM images EXCEPT SELECT id FROM images WHERE cloud > 0.5",
    "SELECT vector, similarity('a') FROM images WHERE id = '2/2'",
    "SELECT date_trunc('month', at) AS month, avg(cloud) FROM images GROUP BY 1",
    "SELECT id, rank() OVER (PARTITION BY label ORDER BY similarity('a') DESC) AS r FROM images",
    "WITH near AS (SELECT * FROM images WHERE similarity('a') > 0) "
    "SELECT label, count(*) FROM near GROUP BY label HAVING count(*) > 3",
    "SELECT id, unnest(captions) AS caption FROM images WHERE cardinality(captions) > 1",
    "SELECT 1 AS one, 'similarity(''x'')' AS text",
    "DESCRIBE images",
]  # fmt: skip


def rounded(value: object) -> object:
    """Rounds floats, whose sums depend on the row order that a store chooses."""
    return f"{value:.12g}" if isinstance(value, float) else value


@pytest.mark.parametrize("query", QUERIES)
def test_same_in_every_store(uris: dict[str, str], query: str, words: Words) -> None:
    answers = []
    for scheme in SCHEMES:
        with open_store(uris[scheme]) as store:
            result = rsicd_embed.sql(query, store, words)
            rows = [[rounded(value) for value in row.values()] for row in result.to_pylist()]
            answers.append((result.schema, sorted(rows, key=repr)))
    assert answers[0] == answers[1] == answers[2]
    assert answers[0][1]


def test_scores_equal_those_of_search(store: VectorStore, words: Words, tmp_path: Path) -> None:
    (tmp_path / "it's.png").write_text("a")
    for text, call in [
        ("a", "similarity('a')"),
        ('it\'s "so"', "similarity('it''s \"so\"')"),
        ("image a", f"similarity_image('{tmp_path}/it''s.png')"),
    ]:
        hits = store.search(direction(text), k=50, where="width > 250").to_pydict()
        for query in (
            f"SELECT id, {call} AS score FROM images WHERE width > 250 ORDER BY score DESC, id",
            f"SELECT *, {call} AS score FROM images WHERE width > 250 ORDER BY {call} DESC, id",
        ):
            result = rsicd_embed.sql(f"{query} LIMIT 50", store, words).to_pydict()
            assert result["id"] == hits["id"]
            assert result["score"] == hits["score"]  # to the last bit
        expected = direction(text).astype(float) @ np.array(result["vector"]).T
        assert result["score"] == pytest.approx(expected[0].tolist(), abs=1e-6)


def test_each_text_is_embedded_once(store: VectorStore, words: Words, tmp_path: Path) -> None:
    image = tmp_path / "a"
    image.write_text("x")
    rsicd_embed.sql(
        "SELECT similarity('a'), similarity('b') + similarity('a') AS c, "
        f"similarity_image('{image}') FROM images WHERE similarity('a') > -1 AND similarity('b') < "
        "(SELECT max(similarity('a')) FROM images WHERE similarity('c') < 2) "
        "GROUP BY similarity('a'), similarity('b'), 3 ORDER BY similarity('a')",
        store,
        words,
    )
    assert sorted(words.embedded) == ["a", "b", "c", "image x"]


def test_names_of_columns(ask: Ask) -> None:
    (row,) = ask(
        "SELECT avg(similarity('it''s')), similarity('a') AS s, \"Night\", "
        "CAST(similarity('a') AS DOUBLE) - similarity('b') FROM images "
        "WHERE id = '2/2' GROUP BY s, \"Night\", similarity('b')"
    )
    assert list(row) == [
        "avg(similarity('it''s'))", "s", "Night", "similarity('a') - similarity('b')"
    ]  # fmt: skip


def test_empty_result_has_columns(exact: VectorStore, words: Words) -> None:
    result = rsicd_embed.sql(
        "SELECT id, similarity('a') AS s, width FROM images WHERE width < 0", exact, words
    )
    columns = [
        pa.field("id", pa.string(), nullable=False),
        pa.field("s", pa.float32()),
        pa.field("width", pa.int32()),
    ]
    assert (result.num_rows, result.schema) == (0, pa.schema(columns))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_empty_store(scheme: str, tmp_path: Path, words: Words) -> None:
    with open_store(f"{scheme}:{tmp_path / 'store'}", MADE_BY) as store:
        result = rsicd_embed.sql("SELECT *, similarity('a') AS s FROM images", store, words)
        assert result.column_names == [*store.schema.names, "s"]
        assert result.num_rows == 0
        counted = rsicd_embed.sql("SELECT count(*), avg(similarity('a')) FROM images", store, words)
        assert [*counted.to_pylist()[0].values()] == [0, None]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_fields_of_null_objects_are_null(scheme: str, tmp_path: Path, words: Words) -> None:
    """They are null although Arrow stores other values there."""
    geo = pa.StructArray.from_arrays(
        [pa.array([0.0, 0.0, 7.0]), pa.array(["x", "", "y"])],
        ["cloud", "place"],
        mask=pa.array([False, True, False]),
    )
    vectors = vector_array(np.concatenate([direction(id_) for id_ in "abc"]))
    with open_store(f"{scheme}:{tmp_path}/store", MADE_BY) as store:
        store.upsert([pa.record_batch({"id": list("abc"), "vector": vectors, "geo": geo})])
        for query, expected in {
            "SELECT avg(geo['cloud']), count(geo['place']) FROM images": [(3.5, 2)],
            "SELECT id FROM images WHERE geo['cloud'] < 5": [("a",)],
            "SELECT id FROM images WHERE geo IS NULL AND geo['place'] IS NULL": [("b",)],
            "SELECT geo['cloud'] FROM images ORDER BY similarity('b') DESC LIMIT 1": [(None,)],
        }.items():
            result = rsicd_embed.sql(query, store, words).to_pylist()
            assert [tuple(row.values()) for row in result] == expected, query


def test_missing_row_has_no_similarity(ask: Ask) -> None:
    """Outer joins add rows of nulls, whose similarity is null."""
    rows = ask(
        "SELECT n, similarity('a') AS s, vector IS NULL AS gone FROM "
        "(VALUES (1, '2/2'), (2, 'nobody')) AS v(n, key) LEFT JOIN images ON key = id ORDER BY n"
    )
    assert [(row["s"] is None, row["gone"]) for row in rows] == [(False, False), (True, True)]


def test_batches(exact: VectorStore, words: Words) -> None:
    with run("SELECT id FROM images", exact, lambda: words) as reader:
        assert isinstance(reader, pa.RecordBatchReader)
        assert sum(len(batch) for batch in reader) == len(exact)
    assert words.embedded == []


# ------------------------------------------------------------------ against NumPy

VALUES = st.none() | st.floats(-100, 100, width=32)
ROWS = st.lists(
    st.tuples(st.sampled_from([None, "a", "b'", ""]), st.none() | st.integers(-3, 3), VALUES),
    max_size=40,
)
CONDITIONS: dict[str, Callable[[str | None, int | None, float | None, float], bool | None]] = {
    "true": lambda label, n, x, s: True,
    "n > 0": lambda label, n, x, s: n is not None and n > 0,
    "label = 'b'''": lambda label, n, x, s: label == "b'",
    "label IS NULL OR n IN (1, 2)": lambda label, n, x, s: label is None or n in (1, 2),
    "NOT (x < 1.5)": lambda label, n, x, s: x is not None and not x < 1.5,
    "similarity('a') > 0.1": lambda label, n, x, s: s > np.float64(0.1),
    "n = 1 AND similarity('a') < 0": lambda label, n, x, s: n == 1 and s < 0,
    "length(label) = 1": lambda label, n, x, s: label is not None and len(label) == 1,
}


@settings(max_examples=60, derandomize=True)
@given(rows=ROWS, condition=st.sampled_from(list(CONDITIONS)), gone=st.sets(st.integers(0, 40)))
def test_groups_equal_those_of_numpy(
    rows: list[tuple[str | None, int | None, float | None]], condition: str, gone: set[int]
) -> None:
    query = (
        "SELECT label, count(*) AS n, count(x) AS some, sum(n) AS total, avg(x) AS mean, "
        "min(x) AS low, max(similarity('a')) AS best, avg(similarity('b')) AS close "
        f"FROM images WHERE {condition} GROUP BY label"
    )
    vectors = [direction(f"row {i}")[0] for i in range(len(rows))]
    with (
        TemporaryDirectory() as folder,
        open_store(f"exact:{folder}/store", MADE_BY) as store,
    ):
        batch = pa.table(
            {
                "id": [str(i) for i in range(len(rows))],
                "vector": vector_array(np.array(vectors, np.float32).reshape(-1, 16)),
                "label": pa.array([row[0] for row in rows], pa.string()),
                "n": pa.array([row[1] for row in rows], pa.int64()),
                "x": pa.array([row[2] for row in rows], pa.float64()),
            }
        )
        store.upsert(
            [batch.to_batches()[0] if rows else pa.RecordBatch.from_pylist([], batch.schema)]
        )
        store.delete([str(i) for i in gone])
        hits = store.search(np.concatenate([direction("a"), direction("b")]), k=50).to_pylist()
        result = rsicd_embed.sql(query, store, Words()).to_pylist() if rows else []
    score = {(hit["query"], int(hit["id"])): hit["score"] for hit in hits}
    groups: dict[str | None, list[int]] = {}
    for i, row in enumerate(rows):
        if i not in gone and CONDITIONS[condition](*row, score[0, i]):
            groups.setdefault(row[0], []).append(i)
    assert {row["label"] for row in result} == set(groups)
    for row in result:
        members = groups[row["label"]]
        numbers = [rows[i][1] for i in members if rows[i][1] is not None]
        values = [rows[i][2] for i in members if rows[i][2] is not None]
        assert row["n"] == len(members)
        assert row["some"] == len(values)
        assert row["total"] == (sum(numbers) if numbers else None)
        assert row["low"] == min(values, default=None)
        assert row["best"] == max(score[0, i] for i in members)
        assert row["close"] == pytest.approx(np.mean([score[1, i] for i in members]), abs=1e-9)
        if values:
            assert row["mean"] == pytest.approx(math.fsum(values) / len(values), abs=1e-9)
        else:
            assert row["mean"] is None


# ------------------------------------------------------------------ errors


def test_other_model_is_refused(exact: VectorStore, words: Words) -> None:
    class Other(Words):
        fingerprint = "weights:other/tokenizer:t/dim:16"

    assert rsicd_embed.sql("SELECT count(*) FROM images", exact, Other()).num_rows == 1
    with pytest.raises(FingerprintError, match="vectors of an earlier version of model 'words'"):
        rsicd_embed.sql("SELECT similarity('a') FROM images", exact, Other())


def test_model_of_the_store_is_loaded_if_needed(exact: VectorStore) -> None:
    assert rsicd_embed.sql("SELECT count(*) FROM images", exact).num_rows == 1
    with pytest.raises(ModelError, match="words"):
        rsicd_embed.sql("SELECT similarity('a') FROM images", exact)
    with pytest.raises(SQLError, match="no column nothing"):  # before any model is loaded
        rsicd_embed.sql("SELECT similarity('a'), nothing FROM images", exact)


def test_missing_picture(ask: Ask, tmp_path: Path) -> None:
    with pytest.raises((ImageError, OSError), match=r"gone\.png"):
        ask(f"SELECT similarity_image('{tmp_path / 'gone.png'}') FROM images")


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("selekt 1", "syntax error: Expected: an SQL statement, found: selekt at Line: 1"),
        ("SELECT id FROM images WHERE", "syntax error: Expected: an expression, found: EOF"),
        ("SELECT 'a", "syntax error: Unterminated string literal"),
        ("", "expected one query that reads (SELECT … FROM images …), found nothing"),
        ("-- nothing", "found nothing"),
        ("SELECT 1; SELECT 2", "found several statements"),
        ("SELECT id FROM images WHERE id = 'a\0b'", "without the character NUL; write chr"),
        ("SELECT nothing FROM images", "no column nothing; columns of images: id, vector, uri"),
        ("SELECT night FROM images", 'no column night; did you mean "Night"? columns of images'),
        ("SELECT i.nothing FROM images i", "no column i.nothing; columns"),
        ("SELECT id FROM pictures", "no table 'pictures'; the only one is images"),
        ("SELECT similarly(id) FROM images", "no function 'similarly'; did you mean 'similarity'?"),
        ("SELECT sum(label) FROM images", "no function sum(Utf8): it accepts other types"),
        ("SELECT width + label FROM images", "Cannot coerce arithmetic expression Int32 + Utf8"),
        ("SELECT 1/0", "not possible: Divide by zero error"),
        ("SELECT CAST(label AS INT) FROM images", "Cannot cast string"),
        ("SELECT id FROM images WHERE label > 3", "Cannot cast string"),
        ("SELECT $1", "expected a value, found the placeholder $1"),
        ("SELECT id, id FROM images", "Projections require unique expression names"),
        ("SELECT similarity(label) FROM images", "expected similarity('a text'), with one string"),
        ("SELECT similarity('a')", "similarity(…) cannot be used there: it compares rows of"),
        ("SELECT similarity('a') FROM (SELECT id FROM images)", "use it in a SELECT … FROM"),
        ("SELECT a.id FROM images a, images b WHERE similarity('a') > 0", "several tables"),
        ("SELECT label, similarity('a') FROM images GROUP BY label", "use it in an aggregate, avg"),
        ("SELECT DISTINCT label FROM images ORDER BY similarity('a')", "each row has its own"),
        ("SELECT similarity('a') FROM (SELECT label AS vector FROM images)", "the column vector"),
        ("SELECT x.similarity('a') FROM images", "no function 'x.similarity'"),
        ("SELECT id FROM images WHERE similarity('a')", "not possible: "),
    ],
)  # fmt: skip
def test_errors_are_one_line(ask: Ask, query: str, message: str) -> None:
    with pytest.raises(SQLError) as caught:
        ask(query)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_query_must_be_a_string(exact: VectorStore) -> None:
    with pytest.raises(SQLError, match="expected a SQL query as a string, found int"):
        rsicd_embed.sql(3, exact)  # type: ignore[arg-type]


def test_read_errors_are_raised_unchanged(
    exact: VectorStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scan(*_: object) -> pa.RecordBatchReader:
        def fail() -> object:
            yield from table(5).select(["id"]).to_batches()
            raise OSError("the disk is gone")

        return pa.RecordBatchReader.from_batches(table(5).select(["id"]).schema, fail())

    monkeypatch.setattr(exact, "scan", scan)
    for query in ("SELECT id FROM images", "SELECT count(*) FROM images a, images b"):
        with pytest.raises(OSError, match="the disk is gone"):
            rsicd_embed.sql(query, exact)
