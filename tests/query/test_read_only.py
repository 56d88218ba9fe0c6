"""A query can only read the rows of one store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

import rsicd_embed
from rsicd_embed.errors import SQLError
from rsicd_embed.stores.base import VectorStore, open_store

from .conftest import Words

CHANGES = [
    "CREATE TABLE x AS SELECT 1",
    "CREATE TABLE x (id INT)",
    "CREATE OR REPLACE TABLE images AS SELECT 1",
    "CREATE TEMPORARY TABLE x AS SELECT * FROM images",
    "CREATE VIEW v AS SELECT 1",
    "CREATE EXTERNAL TABLE x STORED AS CSV LOCATION '/etc/passwd'",
    "CREATE EXTERNAL TABLE x STORED AS PARQUET LOCATION 'https://localhost/x.parquet'",
    "CREATE UNBOUNDED EXTERNAL TABLE x STORED AS CSV LOCATION 'here.csv'",
    "CREATE DATABASE x",
    "CREATE SCHEMA x",
    "CREATE FUNCTION f() RETURNS INT RETURN 1",
    "CREATE INDEX i ON images (id)",
    "DROP TABLE images",
    "DROP VIEW IF EXISTS images",
    "DROP SCHEMA public CASCADE",
    "DROP FUNCTION similarity",
    "ALTER TABLE images ADD COLUMN x INT",
    "TRUNCATE TABLE images",
    "DELETE FROM images",
    "DELETE FROM images WHERE id = '2/2'",
    "UPDATE images SET label = 'x'",
    "INSERT INTO images SELECT * FROM images",
    "INSERT OVERWRITE images SELECT * FROM images",
    "INSERT INTO images VALUES ('x')",
    "MERGE INTO images USING images AS i ON images.id = i.id WHEN MATCHED THEN DELETE",
    "COPY images TO 'here.csv'",
    "COPY (SELECT 1) TO 'here.parquet'",
    "COPY (SELECT similarity('a') FROM images) TO 'here.json' STORED AS JSON",
    "COPY images TO 's3://bucket/x.parquet'",
    "COPY images FROM 'here.csv'",
    "SELECT 1 AS a INTO here",
    "WITH x AS (DELETE FROM images RETURNING *) SELECT * FROM x",
    "WITH x AS (INSERT INTO images SELECT * FROM images) SELECT 1",
    "EXPLAIN CREATE TABLE x AS SELECT 1",
    "EXPLAIN COPY images TO 'here.csv'",
    "EXPLAIN ANALYZE COPY images TO 'here.csv'",
    "EXPLAIN ANALYZE INSERT INTO images SELECT * FROM images",
    "EXPLAIN ANALYZE DROP TABLE images",
    "SELECT 1; DROP TABLE images",
    "SELECT 1; COPY images TO 'here.csv'",
    "SELECT similarity('a') FROM images; DELETE FROM images",
    "SELECT 1;;DELETE FROM images",
]
SETTINGS = [
    "SET datafusion.execution.batch_size = 1",
    "SET datafusion.catalog.information_schema = true",
    "SET TIME ZONE 'UTC'",
    "RESET datafusion.execution.batch_size",
    "SHOW ALL",
    "SHOW TABLES",
    "SHOW COLUMNS FROM images",
    "SHOW CREATE TABLE images",
    "SHOW FUNCTIONS",
    "SHOW datafusion.execution.batch_size",
    "BEGIN",
    "COMMIT",
    "ROLLBACK",
    "START TRANSACTION",
    "USE x",
    "PREPARE p AS SELECT 1",
    "EXECUTE p",
    "DEALLOCATE p",
    "LOAD 'evil.so'",
    "INSTALL httpfs",
    "ATTACH 'x.db' AS x",
    "PRAGMA version",
    "CALL f()",
    "KILL 1",
    "VACUUM",
    "ANALYZE images",
    "GRANT SELECT ON images TO x",
    "DECLARE c CURSOR FOR SELECT 1",
    "LISTEN x",
]
ELSEWHERE = [
    "SELECT * FROM '/etc/passwd'",
    "SELECT * FROM \"/etc/passwd\"",
    "SELECT * FROM `/etc/passwd`",
    "SELECT * FROM 'here.csv'",
    "SELECT * FROM \"here.csv\"",
    "SELECT * FROM \"here.parquet\"",
    "SELECT * FROM here.parquet",
    "SELECT * FROM 'file:///etc/passwd'",
    "SELECT * FROM 'https://localhost/x.parquet'",
    "SELECT * FROM 's3://bucket/x.parquet'",
    "SELECT * FROM read_csv('here.csv')",
    "SELECT * FROM read_parquet('here.parquet')",
    "SELECT * FROM read_json('here.json')",
    "SELECT * FROM read_text('/etc/passwd')",
    "SELECT * FROM parquet_metadata('here.parquet')",
    "SELECT * FROM parquet_scan('here.parquet')",
    "SELECT * FROM glob('/*')",
    "SELECT * FROM TABLE(f('x'))",
    "SELECT * FROM information_schema.tables",
    "SELECT * FROM information_schema.df_settings",
    "SELECT * FROM datafusion.information_schema.tables",
    "SELECT * FROM information_schema.schemata",
    "SELECT * FROM pg_catalog.pg_tables",
    "SELECT * FROM rows",
    "SELECT * FROM other.public.images",
    "SELECT load_extension('x')",
    "SELECT pg_read_file('/etc/passwd')",
    "SELECT readfile('/etc/passwd')",
    "SELECT getenv('HOME')",
    "SELECT @@version",
    "SELECT @home",
    "DESCRIBE '/etc/passwd'",
    "DESCRIBE \"here.csv\"",
    "EXPLAIN SELECT * FROM '/etc/passwd'",
]  # fmt: skip


@pytest.mark.parametrize("query", [*CHANGES, *SETTINGS, *ELSEWHERE])
def test_refused_in_one_line(
    query: str, exact: VectorStore, words: Words, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here.csv").write_text("secret\n1\n")
    before = sorted(row["id"] for row in exact.scan(["id"]).read_all().to_pylist())
    with pytest.raises(SQLError) as caught:
        rsicd_embed.sql(query, exact, words)
    message = str(caught.value)
    assert "\n" not in message
    assert "secret" not in message
    assert len(message) < 400
    assert words.embedded == []
    assert [path.name for path in tmp_path.iterdir()] == ["here.csv"]
    assert sorted(row["id"] for row in exact.scan(["id"]).read_all().to_pylist()) == before


@pytest.mark.parametrize("query", CHANGES[:-4])
def test_writes_are_refused(query: str, exact: VectorStore) -> None:
    with pytest.raises(SQLError, match=r"one query that reads|syntax error|not possible"):
        rsicd_embed.sql(query, exact)


def test_queries_share_no_state(exact: VectorStore, words: Words) -> None:
    """Each query has its own session, without names from earlier ones."""
    for query in (
        "WITH x AS (SELECT 1 AS a) SELECT * FROM x",
        "SELECT similarity('a') FROM images",
    ):
        rsicd_embed.sql(query, exact, words)
    with pytest.raises(SQLError, match="no table 'x'"):
        rsicd_embed.sql("SELECT * FROM x", exact)


@pytest.mark.parametrize(
    "text",
    ["'; DROP TABLE images; --", "') OR true --", '"', "'", "''", "\\", "\\'", "a\nb", "$$"],
)
def test_quoted_values(text: str, tmp_path: Path, words: Words) -> None:
    """Special characters in a similarity, in a pushed-down condition, and in a result."""
    from .conftest import MADE_BY, table

    rows = table(3).to_pylist()
    rows[1]["label"] = text
    literal = "'" + text.replace("'", "''") + "'"
    with open_store(f"exact:{tmp_path / 'store'}", MADE_BY) as store:
        store.upsert([pa.RecordBatch.from_pylist(rows, table(3).schema)])
        query = f"SELECT label, similarity({literal}) AS s FROM images WHERE label = {literal}"
        (row,) = rsicd_embed.sql(query, store, words).to_pylist()
    assert row["label"] == text
    assert words.embedded == [text]


@pytest.fixture
def ask_counts(exact: VectorStore) -> Callable[[str], object]:
    return lambda query: next(iter(rsicd_embed.sql(query, exact).to_pylist()[0].values()))


def test_reads_are_allowed(exact: VectorStore, words: Words) -> None:
    for query in (
        "SELECT 1;",
        "VALUES (1, 'a')",
        "SELECT * FROM public.images",
        "SELECT * FROM datafusion.public.images",
        "SELECT count(*) FROM generate_series(1, 10)",
        "EXPLAIN SELECT similarity('a') FROM images",
        "EXPLAIN ANALYZE SELECT similarity('a') FROM images",
        "DESCRIBE images",
        "(SELECT 1) UNION ALL (SELECT 2) ORDER BY 1",
        "WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 5) "
        "SELECT * FROM n",
    ):
        assert rsicd_embed.sql(query, exact, words).num_rows > 0
