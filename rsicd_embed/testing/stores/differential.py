"""The same random rows in several stores: do all give back, find and pass on what was written?

`check` writes rows of random types, nested ones among them, in two steps, then compares each store
with the rows themselves: what is read, what conditions and SQL answer, and what goes through a file
into another store. It needs hypothesis for nothing, so a program can run thousands of cases.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any
from unittest import mock

import pyarrow as pa

from rsicd_embed.indexing.export_rows import export_rows
from rsicd_embed.indexing.import_rows import check_rows, open_files, open_store_for, write_rows
from rsicd_embed.query import run
from rsicd_embed.stores.base import VectorStore, open_store
from rsicd_embed.stores.lancedb import lance_reader
from rsicd_embed.testing.stores.random_conditions import (
    COLUMNS,
    RandomCondition,
    random_condition,
    random_path,
    sample,
)
from rsicd_embed.testing.stores.random_rows import as_stored, random_column, random_type
from rsicd_embed.testing.stores.sample_rows import MADE_BY, batch, matches, unit

SCHEMES = ("exact", "nmslib", "lancedb")
_ROWS = 12


class DifferenceError(AssertionError):
    """A store gives something else than was written to it."""


def check(random: Random, folder: Path, *, columns: int = 4, conditions: int = 8) -> Counter[str]:
    """Compares the stores over random rows.

    Args:
        random: what is drawn from.
        folder: empty; for the stores.
        columns: of random types, beside `random_conditions.COLUMNS`, in each of two writes.
        conditions: to search and to query with.

    Returns:
        How many cases of each kind were compared: columns read, columns passed on through a file,
        conditions, aggregates.

    Raises:
        DifferenceError: naming the store, and what differs.
    """
    cache_rows = random.choice((-1, lance_reader.CACHE_ROWS))  # -1: rows are streamed
    with mock.patch.object(lance_reader, "CACHE_ROWS", cache_rows):
        stores = [open_store(f"{scheme}:{folder / scheme}", MADE_BY) for scheme in SCHEMES]
        try:
            rows = _written(random, stores, columns)
            cases = Counter(columns=_compare_rows(stores, rows))
            cases["conditions"] = _compare_conditions(random, stores, rows, conditions)
            cases["aggregates"] = _compare_aggregates(random, stores, rows, conditions // 2)
            cases["columns passed on"] = _compare_copies(random, stores, rows, folder)
            return cases
        finally:
            for store in stores:
                store.close()


def _written(
    random: Random, stores: Sequence[VectorStore], columns: int
) -> dict[str, dict[str, Any]]:
    """Writes, replaces and deletes rows; returns what should be there, by id."""
    kinds = {f"c{number}": random_type(random) for number in range(columns)}
    first = _rows(random, kinds, 0)
    # A later write lacks some columns, and has others.
    kinds = {name: kind for name, kind in kinds.items() if random.random() < 0.7}
    kinds |= {f"d{number}": random_type(random) for number in range(columns)}
    second = _rows(random, kinds, random.randint(0, _ROWS))
    expected = {row["id"]: row for one in (first, second) for row in one.to_pylist()}
    gone = [id_ for id_ in expected if random.random() < 0.1]
    optimised = random.random() < 0.5
    for store in stores:
        store.upsert([first])
        store.upsert([second])
        if store.delete(gone) != len(gone):
            raise DifferenceError(f"{store.uri}: expected {len(gone)} rows to be deleted")
        if optimised:
            store.optimize()
    return {id_: row for id_, row in expected.items() if id_ not in gone}


def _rows(random: Random, kinds: dict[str, pa.DataType], first: int) -> pa.RecordBatch:
    count = random.randint(1, _ROWS)
    columns = {name: random_column(random, kind, count) for name, kind in kinds.items()}
    for name, kind in COLUMNS.items():
        columns[name] = pa.array([sample(random, kind) for _ in range(count)], kind)
    ids = [f"i{first + number}" for number in range(count)]
    return batch(ids, unit(count, seed=first), **columns)


def _compare_rows(stores: Sequence[VectorStore], rows: dict[str, dict[str, Any]]) -> int:
    schema = stores[0].schema
    for store in stores:
        if store.schema != schema:
            raise DifferenceError(
                f"{store.uri}: expected the columns {schema}, found {store.schema}"
            )
        names = [name for name in schema.names if name != "vector"]
        stored = {row["id"]: row for row in store.scan(names).read_all().to_pylist()}
        if set(stored) != set(rows):
            raise DifferenceError(
                f"{store.uri}: expected ids {sorted(rows)}, found {sorted(stored)}"
            )
        for name in names:
            kind = schema.field(name).type
            for id_, row in rows.items():
                # repr: NaN is NaN, and 0.0 is not -0.0.
                wanted, got = repr(as_stored(row.get(name), kind)), repr(stored[id_][name])
                if wanted != got:
                    raise DifferenceError(
                        f"{store.uri}: {name} ({kind}) of {id_}: expected {wanted}, found {got}"
                    )
    return len(schema)


def _compare_conditions(
    random: Random, stores: Sequence[VectorStore], rows: dict[str, dict[str, Any]], count: int
) -> int:
    for _ in range(count):
        condition = random_condition(random)
        expected = _accepted(condition, rows)
        for store in stores:
            ids = matches(store, condition.sql)
            if ids != expected:
                raise DifferenceError(
                    f"{store.uri}: {condition.sql}: expected {sorted(expected)}, "
                    f"found {sorted(ids)}"
                )
    return count


def _compare_aggregates(
    random: Random, stores: Sequence[VectorStore], rows: dict[str, dict[str, Any]], count: int
) -> int:
    for _ in range(count):
        condition, path = random_condition(random), random_path(random, pa.int64())
        accepted = _accepted(condition, rows)
        values = [value for id_ in accepted if (value := path.value(rows[id_])) is not None]
        mean = math.fsum(values) / len(values) if values else None
        expected = (len(accepted), len(values), min(values, default=None), mean)
        query = (
            f"SELECT count(*), count({path.sql}), min({path.sql}), avg({path.sql}) "
            f"FROM images WHERE {condition.sql}"
        )
        for store in stores:
            (row,) = run(query, store, _no_embedder).read_all().to_pylist()
            if tuple(row.values()) != expected:
                raise DifferenceError(
                    f"{store.uri}: {query}: expected {expected}, found {tuple(row.values())}"
                )
    return count


def _compare_copies(
    random: Random, stores: Sequence[VectorStore], rows: dict[str, dict[str, Any]], folder: Path
) -> int:
    """Exports one store, and imports the file into another of each kind."""
    file = folder / "rows.parquet"
    export_rows(random.choice(stores), file)
    checked = check_rows(open_files([file]))
    copies = [
        open_store_for(checked[0].file, f"{scheme}:{folder / scheme}-copy") for scheme in SCHEMES
    ]
    try:
        for copy in copies:
            if write_rows(checked, copy).imported != len(rows):
                raise DifferenceError(f"{copy.uri}: expected {len(rows)} rows to be imported")
            if (again := write_rows(checked, copy).imported) != 0:
                raise DifferenceError(f"{copy.uri}: {again} rows changed that were imported twice")
        if copies[0].schema != stores[0].schema and rows:
            raise DifferenceError(f"expected {stores[0].schema}, found {copies[0].schema}")
        return _compare_rows(copies, rows)
    finally:
        for copy in copies:
            copy.close()


def _accepted(condition: RandomCondition, rows: dict[str, dict[str, Any]]) -> set[str]:
    return {id_ for id_, row in rows.items() if condition.accepts(row) is True}


def _no_embedder() -> Any:
    raise AssertionError("there is no similarity in the query")
