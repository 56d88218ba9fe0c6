"""Limits of DataFusion: queries around them work if possible, and errors are explained otherwise.

Expected rows are computed in Python, not by another query.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest

import rsicd_embed
from rsicd_embed.errors import FilterError, SQLError
from rsicd_embed.stores.base import VectorStore, open_store

from .conftest import MADE_BY, Words, table

ROWS = [
    {
        "geo": {"lon": float(i % 7), "deep": {"x": i}},
        "raw": b"a",
        "tags": ["a", f"b{i % 3}"],
    }
    for i in range(20)
]


@pytest.fixture(scope="module")
def nested(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VectorStore]:
    """Twenty rows with structs, lists and bytes; read only."""
    plain = table(len(ROWS))
    extra = pa.Table.from_pylist(ROWS)
    with open_store(f"exact:{tmp_path_factory.mktemp('nested') / 'store'}", MADE_BY) as store:
        for name in extra.column_names:
            plain = plain.append_column(name, extra[name])
        store.upsert(plain)
        yield store


@pytest.fixture
def ask(nested: VectorStore) -> Callable[[str], list[tuple[object, ...]]]:
    """Returns the rows of a query as tuples."""
    return lambda query: [
        tuple(row.values()) for row in rsicd_embed.sql(query, nested, Words()).to_pylist()
    ]


def test_self_join_ordered_by_a_field(
    ask: Callable[[str], list[tuple[object, ...]]],
) -> None:
    rows = ask(
        "SELECT a.geo['deep']['x'], b.geo['deep']['x'] FROM images a JOIN images b "
        "ON a.geo['deep']['x'] + 1 = b.geo['deep']['x'] ORDER BY a.geo['deep']['x'] DESC"
    )
    assert rows == [(i, i + 1) for i in reversed(range(19))]
    rows = ask(
        "SELECT a.geo['deep']['x'] AS x, b.geo['deep']['x'] AS y FROM images a JOIN images b "
        "ON a.tags[2] = b.tags[2] AND a.geo['lon'] < b.geo['lon'] WHERE a.geo['deep']['x'] < 5 "
        "ORDER BY abs(a.geo['lon'] - b.geo['lon']), x, y LIMIT 7"
    )
    pairs = [
        (abs(a % 7 - b % 7), a, b)
        for a in range(5)
        for b in range(20)
        if a % 3 == b % 3 and a % 7 < b % 7
    ]
    assert rows == [(a, b) for _, a, b in sorted(pairs)[:7]]


def test_union_ordered_by_a_repeated_column(
    ask: Callable[[str], list[tuple[object, ...]]],
) -> None:
    rows = ask(
        "SELECT geo['deep']['x'] AS x, geo['deep']['x'] AS y FROM images UNION ALL "
        "SELECT 5 AS x, geo['deep']['x'] AS y FROM images ORDER BY y DESC, x LIMIT 4"
    )
    assert rows == [(5, 19), (19, 19), (5, 18), (18, 18)]
    assert ask("SELECT id, id AS k FROM images UNION ALL SELECT id, id AS k FROM images ORDER BY k")


def test_union_has_the_common_type(
    ask: Callable[[str], list[tuple[object, ...]]],
) -> None:
    assert ask("SELECT NULL AS n UNION ALL SELECT 1 ORDER BY n") == [(1,), (None,)]
    assert ask("SELECT 1 AS n UNION ALL SELECT 'a' ORDER BY n") == [("1",), ("a",)]
    assert ask("SELECT 1 AS n UNION ALL SELECT 2.5 ORDER BY n") == [(1.0,), (2.5,)]


EXPLAINED = [
    ("SELECT rank() OVER (ORDER BY geo) FROM images", "ORDER BY in OVER (…) cannot compare"),
    ("SELECT rank() OVER (ORDER BY raw) FROM images", "of type Binary: order by a number"),
    ("SELECT id FROM images WHERE at BETWEEN 0 AND 1", "BETWEEN cannot compare Timestamp(µs)"),
    ("SELECT date_trunc('day', width) FROM images", "it accepts other types"),
    ("SELECT length(geo) FROM images", "it accepts other types"),
    (
        "SELECT id, (SELECT count(*) FROM images b WHERE b.cloud < a.cloud) FROM images a",
        "write it as a JOIN",
    ),
    (
        "SELECT id FROM images a ORDER BY (SELECT count(*) FROM images b WHERE b.cloud < a.cloud)",
        "in SELECT and WHERE only",
    ),
    ("SELECT a.id FROM images a SEMI JOIN images b ON a.id = b.id", "Unsupported JOIN operator"),
    ("SELECT * FROM images PIVOT (count(id) FOR label IN ('a'))", "Unsupported ast node Pivot"),
    ('SELECT id FROM images WHERE label = "port"', "write texts in single quotes: 'port'"),
    ('SELECT id FROM images WHERE label = "bare land"', "in single quotes: 'bare land'; "),
    ('SELECT id FROM images WHERE id = "a/b.c.jpg"', "in single quotes: 'a/b.c.jpg'; "),
    ('SELECT id FROM images WHERE id = images."A B"', "in single quotes: 'A B'; "),
    (f"SELECT {'a' * 5000} FROM images", "no column aaa"),
]


@pytest.mark.parametrize(("query", "message"), EXPLAINED)
def test_limits_are_explained(
    ask: Callable[[str], list[tuple[object, ...]]], query: str, message: str
) -> None:
    with pytest.raises(SQLError) as caught:
        ask(query)
    assert message in str(caught.value)
    require_plain(str(caught.value))


def require_plain(text: str) -> None:
    """Asserts that a message contains no internals of the engine."""
    assert len(text) < 500
    for inside in ("\n", "nternal", "bug", "__", "Span(", "SanityCheck", "panick"):
        assert inside not in text, text


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("similarity('x') > .65", "rsicd-embed sql"),
        ("similarity_image('x.png') > .65", "rsicd_embed.sql in Python"),
        ('label = "port"', "write texts in single quotes: 'port'"),
        ('label = "it\'s"', "single quotes: 'it''s'"),
        ('label = "bare land"', "single quotes: 'bare land'; "),
        ('id = "a/b.c.jpg"', "single quotes: 'a/b.c.jpg'; "),
        ('label = "a ""b"" c."', "single quotes: 'a \"b\" c.'; "),
        ("at BETWEEN 0 AND 1", "BETWEEN cannot compare Timestamp(µs) with Int64"),
        ("date_trunc('day', geo) > now()", "date_trunc does not accept a value of this type"),
        ("id IN (SELECT id FROM images)", "a subquery cannot be used"),
        ("a" * 5000 + " = 1", "no column aaa"),
    ],
)
def test_conditions_are_explained(nested: VectorStore, where: str, message: str) -> None:
    with pytest.raises(FilterError) as caught:
        nested.scan(["id"], where).read_all()
    assert message in str(caught.value)
    require_plain(str(caught.value))


def test_column_name_in_double_quotes(nested: VectorStore) -> None:
    assert len(nested.scan(["id"], '"Night" IS NOT NULL').read_all()) > 0
    with pytest.raises(FilterError) as caught:
        nested.scan(["id"], "night IS NOT NULL")
    assert 'did you mean "Night"?' in str(caught.value)
    assert "single quotes" not in str(caught.value)


VALUES = [
    "{}.geo['lon']", "{}.geo['deep']['x'] + 1", "{}.width", "{}.tags[1]", "lower({}.id)", "{}.id",
    "{}.geo", "{}.cloud * 2", "similarity('a')", "{}.vector", "{}.at", '{}."Night"',
]  # fmt: skip
CONDITIONS = [
    "a.id = b.id", "a.id < b.id", "a.tags[1] = b.tags[1]", "a.geo['lon'] < b.geo['lon']",
    "a.geo['deep']['x'] + 1 = b.geo['deep']['x']", "a.label = b.label AND a.width > b.width",
]  # fmt: skip


def random_query(seed: int) -> str:
    """A query over joins, unions, groups, windows and subqueries; most are valid."""
    chosen = random.Random(seed)

    def value(name: str) -> str:
        return chosen.choice(VALUES).format(name)

    near = "(SELECT *, similarity('b') AS s FROM images)"
    sources = ("images", near, "(SELECT * FROM images ORDER BY width LIMIT 9)")
    left, right = chosen.choice(sources), chosen.choice(sources)
    join = chosen.choice(("JOIN", "LEFT JOIN", "FULL JOIN", "RIGHT JOIN"))
    joined = f"FROM {left} a {join} {right} b ON {chosen.choice(CONDITIONS)}"
    where = chosen.choice(("", f"WHERE {value('a')} IS NOT NULL", "WHERE a.width < b.width"))
    limit = chosen.choice(("", "LIMIT 3", "LIMIT 3 OFFSET 1"))
    table = chosen.choice(("images a", f"{near} a"))
    return chosen.choice(
        (
            f"SELECT {value('a')} AS x, {value('b')} AS y {joined} {where} "
            f"ORDER BY {value('a')}, {value('b')} DESC, 1 {limit}",
            f"SELECT {value('a')} AS g, count(*) AS n, max({value('a')}) AS m FROM {table} "
            f"GROUP BY 1 HAVING count(*) > 0 ORDER BY n, m, g {limit}",
            f"SELECT a.id, rank() OVER (PARTITION BY {value('a')} ORDER BY {value('a')}), "
            f"lag({value('a')}) OVER (ORDER BY a.id) FROM {table} ORDER BY {value('a')} {limit}",
            f"SELECT {value('a')} AS x, a.id AS y, a.id AS z FROM images a UNION ALL "
            f"SELECT {value('a')} AS x, a.id AS y, 'k' AS z FROM images a ORDER BY z, y {limit}",
            f"WITH t AS (SELECT *, similarity('a') AS s FROM images), u AS (SELECT label, max(s) "
            f"AS m FROM t GROUP BY label) SELECT t.id, t.s - u.m, {value('t')} AS v "
            f"FROM t JOIN u ON t.label = u.label ORDER BY {value('t')}, 2 {limit}",
            f"SELECT a.id FROM images a WHERE {value('a')} IN (SELECT {value('b')} FROM images b "
            f"WHERE b.label = a.label) OR EXISTS (SELECT 1 FROM images b WHERE {value('b')} > 0) "
            f"ORDER BY {value('a')}",
            f"SELECT CASE WHEN similarity('a') > 0 THEN {value('a')} END AS c, "
            f"(SELECT max(similarity('b')) FROM images) AS m FROM images a ORDER BY c, m {limit}",
        )
    )


def unexplained(store: VectorStore, seeds: range) -> int:
    """Asserts that each query succeeds or fails in plain words; returns the number that succeed."""
    answered = 0
    for seed in seeds:
        try:
            rsicd_embed.sql(random_query(seed), store, Words())
            answered += 1
        except SQLError as error:
            require_plain(str(error))
    return answered


def test_random_queries(nested: VectorStore) -> None:
    assert unexplained(nested, range(60)) > 20


@pytest.mark.slow
def test_many_random_queries(nested: VectorStore) -> None:
    assert unexplained(nested, range(60, 3000)) > 1000


def test_path_is_not_a_query(nested: VectorStore) -> None:
    with pytest.raises(SQLError, match="expected a SQL query as a string"):
        rsicd_embed.sql(Path("q.sql"), nested)  # type: ignore[arg-type]
