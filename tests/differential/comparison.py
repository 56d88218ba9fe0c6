"""Random rows in several stores, compared with the rows themselves.

`check` writes rows of random types, some nested, in two steps, then compares scans, conditions and
SQL in each store, and copies made by export and import, with the rows. It does not need hypothesis,
so a program can run thousands of cases.
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
from rsicd_embed.query.run import run
from rsicd_embed.stores.base import VectorStore, open_store
from rsicd_embed.stores.lancedb import lance_reader
from rsicd_embed.testing.stores import MADE_BY, batch, matches, unit

from .random_conditions import (
    COLUMNS,
    RandomCondition,
    random_condition,
    random_path,
    sample,
)
from .random_rows import as_stored, random_column, random_type

SCHEMES = ("exact", "nmslib", "lancedb")
_ROWS = 12


class DifferenceError(AssertionError):
    """A store differs from the rows written to it."""


def check(random: Random, folder: Path, *, columns: int = 4, conditions: int = 8) -> Counter[str]:
    """Compares the stores over random rows.

    Args:
        random: random number generator.
        folder: an empty folder for the stores.
        columns: number of columns of random types, besides `random_conditions.COLUMNS`, in each of
            two writes.
        conditions: number of conditions.

    Returns:
        The number of compared cases: columns, columns passed on by export and import, conditions,
        and aggregates.

    Raises:
        DifferenceError: names the store and the difference.
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
    """Writes, replaces and deletes rows; returns the expected rows by id."""
    kinds = {f"c{number}": random_type(random) for number in range(columns)}
    first = _rows(random, kinds, 0)
    # The second write lacks some columns, and has others.
    kinds = {name: kind for name, kind in kinds.items() if random.random() < 0.7}
    kinds |= {f"d{number}": random_type(random) for number in range(columns)}
    second = _rows(random, kinds, random.randint(0, _ROWS))
    expected = {row["id"]: row for rows in (first, second) for row in rows.to_pylist()}
    deleted = [id_ for id_ in expected if random.random() < 0.1]
    optimised = random.random() < 0.5
    for store in stores:
        store.upsert([first])
        store.upsert([second])
        if store.delete(deleted) != len(deleted):
            raise DifferenceError(f"{store.uri}: expected {len(deleted)} rows to be deleted")
        if optimised:
            store.optimize()
    return {id_: row for id_, row in expected.items() if id_ not in deleted}


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
                # repr distinguishes 0.0 from -0.0, and NaN equals NaN.
                expected, actual = repr(as_stored(row.get(name), kind)), repr(stored[id_][name])
                if expected != actual:
                    raise DifferenceError(
                        f"{store.uri}: {name} ({kind}) of {id_}: "
                        f"expected {expected}, found {actual}"
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
    """Exports a store, imports the file into a new store of each kind, and compares those."""
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
                raise DifferenceError(f"{copy.uri}: importing again changed {again} rows")
        if copies[0].schema != stores[0].schema and rows:
            raise DifferenceError(f"expected {stores[0].schema}, found {copies[0].schema}")
        return _compare_rows(copies, rows)
    finally:
        for copy in copies:
            copy.close()


def _accepted(condition: RandomCondition, rows: dict[str, dict[str, Any]]) -> set[str]:
    return {id_ for id_, row in rows.items() if condition.accepts(row) is True}


def _no_embedder() -> Any:
    raise AssertionError("the query has no similarity")
