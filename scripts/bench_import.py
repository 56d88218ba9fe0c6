"""Rows per second and peak memory of importing vectors that another program wrote.

    python -m scripts.bench_import --rows 1000000 --dim 1152 -o runs/bench

Parquet files of random float32 vectors, with ids, coordinates and times, are written, and then
imported by the command line in a process of its own. Rows per second are those of reading and
writing; the index is built afterwards, in the same process.
"""

from __future__ import annotations

import argparse
import json
import resource
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rsicd_embed.records import vector_array
from rsicd_embed.reports import record

_FILE_ROWS, _BLOCK = 100_000, 10_000


def write_files(folder: Path, rows: int, dim: int) -> list[Path]:
    """Writes files of at most 100,000 rows in row groups of 10,000."""
    rng = np.random.default_rng(0)
    paths = []
    for first in range(0, rows, _FILE_ROWS):
        path = folder / f"part-{first // _FILE_ROWS:03}.parquet"
        paths.append(path)
        writer = None
        for start in range(first, min(first + _FILE_ROWS, rows), _BLOCK):
            count = min(_BLOCK, rows - start)
            vectors = rng.standard_normal((count, dim), np.float32)
            batch = pa.record_batch(
                {
                    "id": [f"cell/{number}" for number in range(start, start + count)],
                    "embedding": vector_array(vectors),
                    "lon": rng.uniform(-180, 180, count),
                    "lat": rng.uniform(-80, 80, count),
                    "datetime": pa.array(
                        rng.integers(1_500_000_000, 1_700_000_000, count), pa.timestamp("s")
                    ),
                }
            )
            writer = writer or pq.ParquetWriter(path, batch.schema, compression="none")
            writer.write_batch(batch)
        assert writer is not None
        writer.close()
    return paths


def import_files(paths: list[Path], uri: str) -> dict[str, float]:
    """Imports the files in a new process: its stages in s, and its peak memory in bytes."""
    command = [sys.executable, "-c", "from rsicd_embed.cli import main; main()", "import"]
    command += [*map(str, paths), "--store", uri, "--vector-column", "embedding"]
    command += ["--id-column", "id", "--model", "someone/else", "--json"]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    summary = json.loads(output)
    assert summary["imported"] == sum(pq.read_metadata(path).num_rows for path in paths)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    return {**{f"{name}_s": s for name, s in summary["stages"].items()}, "peak_bytes": peak}


def main() -> None:
    """Writes the files, imports them, and prints and records the measurements."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=1152)
    parser.add_argument("--scheme", default="lancedb")
    parser.add_argument("--scratch", type=Path, help="folder for the files and the store")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        paths = write_files(Path(scratch), options.rows, options.dim)
        measured = import_files(paths, f"{options.scheme}:{scratch}/store")
    measured["rows_per_s"] = round(options.rows / measured["write_s"], 1)
    print(measured)
    if options.output:
        settings = {"scheme": options.scheme, "rows": options.rows, "dim": options.dim}
        command_line = shlex.join(["python", *sys.argv])
        document = record.document("import", settings, command=command_line)
        run = {**document, "import": measured}
        print(f"record: {record.save(options.output, 'bench-import', run)}")


if __name__ == "__main__":
    main()
