"""Latency of `rsicd-embed search` from a cold shell: a new process for each search.

    python scripts/bench_cold_search.py -o runs/bench

The rows are random vectors of the bundled model's length; latency does not depend on their values.
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
    """Rows as an ingest of labelled images writes them."""
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
    """Times searches in each kind of store, interleaved."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--stores", default="exact,nmslib,lancedb")
    options = parser.parse_args()
    bundled = provenance(load_for_a_query())
    with tempfile.TemporaryDirectory() as folder:
        searches = {}
        for kind in options.stores.split(","):
            uri = f"{kind}:{folder}/{kind}"
            with open_store(uri, bundled) as store:
                store.upsert(rows(options.rows, bundled.dim))
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
    for kind, rate in run["candidates"].items():
        table.append((kind, f"{rate['ns']['median'] / 1e9:.2f}", f"{rate['ns']['min'] / 1e9:.2f}"))
    print("\n".join(record.table(table)))
    print(f"record: {record.save(options.output, 'bench-cold-search', run)}")


if __name__ == "__main__":
    main()
