"""Time `rsicd-embed search` in a new process, on stores with many rows.

    python scripts/bench_cold_search.py -o runs/bench

Rows are random vectors of the bundled model's dimension; their values do not affect the timing.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from rsicd_embed.embedder.base import provenance
from rsicd_embed.embedder.loading import load_for_a_query
from rsicd_embed.records import row_schema, vector_array
from rsicd_embed.reports import record
from rsicd_embed.reports.timing import TimingPlan, measure, rate_summary, sample
from rsicd_embed.stores.base import open_store

COMMAND = [sys.executable, "-c", "from rsicd_embed.cli import main; main()"]


def rows(count: int, dim: int) -> Iterator[pa.RecordBatch]:
    """Creates rows like those of an ingest of labelled images."""
    vectors = np.random.default_rng(0).standard_normal((count, dim)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    schema = row_schema(dim, pa.schema([("label", pa.string())]))
    columns = {
        "id": [f"tiles/{i:07}.jpg" for i in range(count)],
        "vector": vector_array(vectors),
        "uri": [f"/archive/tiles/{i:07}.jpg" for i in range(count)],
        "sha256": [f"{i:064x}" for i in range(count)],
        "width": pa.array([256] * count, pa.int32()),
        "height": pa.array([256] * count, pa.int32()),
        "label": [f"class {i % 30}" for i in range(count)],
    }
    yield pa.record_batch([pa.array(columns[name]) for name in schema.names], schema=schema)


def main() -> None:
    """Times searches in each kind of store, in interleaved rounds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--stores", default="exact,nmslib,lancedb")
    options = parser.parse_args()
    made_by = provenance(load_for_a_query())
    with tempfile.TemporaryDirectory() as folder:
        searches = {}
        for kind in options.stores.split(","):
            uri = f"{kind}:{folder}/{kind}"
            with open_store(uri, made_by) as store:
                store.upsert(rows(options.rows, made_by.dim))
                store.optimize()
            search = [*COMMAND, "search", "boats in a harbour", "--store", uri, "--json"]

            def run(search: list[str] = search) -> None:
                subprocess.run(search, check=True, stdout=subprocess.DEVNULL)

            searches[kind] = lambda calls, run=run: sample(run, calls)
        samples = measure(searches, TimingPlan(rounds=options.rounds, least_s=0))
    run = record.document(
        "cold-search",
        {"rows": options.rows, "rounds": options.rounds},
        command=shlex.join(["python", *sys.argv]),
    )
    run["complete"] = samples.complete
    run["candidates"] = {kind: rate_summary(samples, kind, 1, "searches") for kind in searches}
    table = [("seconds", "median", "best")]
    for kind, timed in run["candidates"].items():
        median, best = timed["ns"]["median"] / 1e9, timed["ns"]["min"] / 1e9
        table.append((kind, f"{median:.2f}", f"{best:.2f}"))
    print("\n".join(record.table(table)))
    print(f"record: {record.save(options.output, 'bench-cold-search', run)}")


if __name__ == "__main__":
    main()
