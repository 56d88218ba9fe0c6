"""Searches a store from two processes while a third fills and optimizes it.

Each batch is one upsert. A reader that sees a row of a batch must see all of them; a search that
starts after an upsert has returned must find its rows; and every hit must match the filter. Prints
a JSON document with the latencies of the searches and what went wrong.

    python scripts/soak_store.py lancedb:DIR --rows 200000
"""

from __future__ import annotations

import json
import multiprocessing
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.sharedctypes import Synchronized
from typing import Any

import click
import numpy as np
import pyarrow as pa

from rsicd_embed.records import Provenance, vector_array
from rsicd_embed.stores import open_store

K = 10
_FILTERS = (None, "year >= 2021", "year = 2021", "label = 'c7'", "label = 'c7' AND year = 2024")


@dataclass
class Outcome:
    """What one reader measured: milliseconds by filter, and errors."""

    ms: dict[str, list[float]] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)


def provenance(dim: int) -> Provenance:
    """The model that the vectors claim to be of."""
    return Provenance("soak", "weights:none", dim)


def batch(number: int, rows: int, dim: int) -> pa.RecordBatch:
    """Creates the rows of an upsert, the same for the same number."""
    random = np.random.default_rng([7, number])
    centres = np.random.default_rng(7).standard_normal((500, dim))
    label = random.integers(0, 100, rows)
    vectors = centres[random.integers(0, 500, rows)] + random.standard_normal((rows, dim))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return pa.record_batch(
        {
            "id": [f"{number:04}-{row:06}" for row in range(rows)],
            "vector": vector_array(vectors.astype(np.float32)),
            "batch": pa.array(np.full(rows, number)),
            "year": pa.array(random.integers(2016, 2026, rows)),
            "label": [f"c{value}" for value in label],
        }
    )


def searches(dim: int, seed: int) -> Iterator[tuple[np.ndarray, str | None]]:
    """Yields queries and filters without end."""
    random = np.random.default_rng(seed)
    while True:
        for where in _FILTERS:
            yield random.standard_normal(dim), where


def read(
    uri: str,
    dim: int,
    rows: int,
    written: Synchronized[int],
    started: Any,
    done: Any,
    seed: int,
    out: Any,
) -> None:
    """Searches until `done`, and puts an `Outcome`."""
    outcome = Outcome()
    store = open_store(uri, provenance(dim))
    started.wait()
    for query, where in searches(dim, seed):
        if done.is_set():
            break
        before = written.value
        try:
            begun = time.perf_counter()
            hits = store.search(query, K, where)
            outcome.ms.setdefault(str(where), []).append(1000 * (time.perf_counter() - begun))
            outcome.errors += wrong_hits(hits, where)
            if before >= 0:
                newest = batch(before, rows, dim)
                sought = np.array(newest["vector"][0].as_py())
                whole = store.search(sought, K, f"batch = {before}")
                if len(whole) != K or whole["id"][0].as_py() != newest["id"][0].as_py():
                    outcome.errors.append(f"batch {before} is written but not found: {len(whole)}")
            next_batch = store.search(query, K, f"batch = {before + 1}")
            if len(next_batch) not in (0, K):
                outcome.errors.append(f"half of batch {before + 1}: {len(next_batch)} rows")
        except Exception as error:  # whatever a user would meet
            outcome.errors.append(f"{type(error).__name__}: {error}")
    store.close()
    out.put(outcome)


def wrong_hits(hits: pa.Table, where: str | None) -> list[str]:
    """Describes the hits that do not match their filter."""
    rows = hits.to_pylist()
    checks = {
        "year >= 2021": lambda row: row["year"] >= 2021,
        "year = 2021": lambda row: row["year"] == 2021,
        "label = 'c7'": lambda row: row["label"] == "c7",
        "label = 'c7' AND year = 2024": lambda row: row["label"] == "c7" and row["year"] == 2024,
    }
    check = checks.get(where or "", lambda row: True)
    return [f"{where}: found {row['id']}" for row in rows if not check(row)]


@click.command()
@click.argument("uri")
@click.option("--rows", default=200_000, help="Rows to write.")
@click.option("--batch-rows", default=10_000, help="Rows per upsert.")
@click.option("--dim", default=256, help="Length of the vectors.")
@click.option("--readers", default=2, help="Processes that search.")
@click.option("--optimize-every", default=5, help="Upserts between two calls of optimize.")
def main(uri: str, rows: int, batch_rows: int, dim: int, readers: int, optimize_every: int) -> None:
    """Fill the store at URI, which must not exist, while other processes search it."""
    context = multiprocessing.get_context("spawn")
    written, done, out = context.Value("i", -1), context.Event(), context.Queue()
    started = context.Barrier(readers + 1)
    with open_store(uri, provenance(dim)) as store:
        store.upsert([batch(0, batch_rows, dim)])
        written.value = 0
        processes = [
            context.Process(
                target=read, args=(uri, dim, batch_rows, written, started, done, seed, out)
            )
            for seed in range(readers)
        ]
        for process in processes:
            process.start()
        started.wait()
        for number in range(1, rows // batch_rows):
            store.upsert([batch(number, batch_rows, dim)])
            written.value = number
            if number % optimize_every == 0:
                store.optimize()
        store.optimize()
        time.sleep(2)  # for searches of the final state
        done.set()
        outcomes = [out.get() for _ in processes]
        for process in processes:
            process.join()
        errors = [error for outcome in outcomes for error in outcome.errors]
        latencies = {
            str(where): [ms for outcome in outcomes for ms in outcome.ms.get(str(where), [])]
            for where in _FILTERS
        }
        document = {
            "store": uri.partition(":")[0],
            "rows": len(store),
            "errors": len(errors),
            "first_errors": errors[:5],
            "searches": {
                where: {
                    "n": len(values),
                    "p50_ms": round(float(np.percentile(values, 50)), 1),
                    "p99_ms": round(float(np.percentile(values, 99)), 1),
                }
                for where, values in latencies.items()
                if values
            },
        }
    click.echo(json.dumps(document, indent=2))
    raise SystemExit(1 if errors else 0)


if __name__ == "__main__":
    main()
