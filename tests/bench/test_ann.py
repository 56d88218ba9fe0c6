"""`bench ann` from end to end."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from rsicd_embed.bench.ann import vectors
from rsicd_embed.bench.ann.worker import ContenderWorker
from rsicd_embed.records import Provenance, vector_array
from rsicd_embed.stores.base import open_store
from rsicd_embed.stores.lancedb import lance_index, lance_reader
from tests.helpers import run

from .test_ann_pieces import unit, whole

STORES = ["exact", "nmslib", "lancedb"]


def ann(*options: str | Path) -> Any:
    words = ("--rounds", "2", "--one-process", "--against", "none")
    return run("bench", "ann", *words, *options)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_module("rsicd_embed.cli.bench.bench_ann"), "_SAMPLE_S", 0.005)


@pytest.mark.usefixtures("quick")
def test_all_stores_end_to_end(tmp_path: Path) -> None:
    done = ann(
        *("--rows", "2000", "--dim", "16", "--queries", "30", "--selectivity", "10,0.1"),
        *("--builds", "2", "--k", "10,1", "--clients", "2", "--sweep", "efSearch=20,200"),
        *("-o", tmp_path, "--json"),
    )
    assert done.status == 0, done.stderr
    document = done.document
    assert document == json.loads((tmp_path / "bench-ann.json").read_text())
    assert (document["task"], document["complete"], document["vectors"]["rows"]) == (
        "ann",
        True,
        1990,
    )
    libraries = [f"library of {name}" for name in STORES]
    assert set(document["contenders"]) == {*STORES, *libraries[1:]}
    for contender in document["contenders"].values():
        assert contender["upsert"]["rows_per_s"] > 0
        assert len(contender["optimize"]["samples_ns"]) == 2
        assert contender["disk_bytes"] > 1990 * 16 * 4
    states = document["states"]
    filtered = [f"{part}% of the rows{k}" for part in ("10", "0.1") for k in ("", ", k=1")]
    assert list(states) == ["as upserted", "optimized", "optimized, k=1", *filtered]
    assert set(states["as upserted"]["contenders"]) == {*STORES, libraries[0], libraries[2]}
    assert set(states["optimized"]["contenders"]) == {*STORES, *libraries}
    assert set(states["0.1% of the rows"]["contenders"]) == {*STORES, libraries[2]}
    for state in states.values():
        assert state["overhead"]["fraction"] < state["overhead"]["goal"] == 0.02
        for contender in state["contenders"].values():
            assert contender["ann_recall"] > 0.99
            single = contender["single"]
            assert 0 < single["p50_ns"] <= single["p95_ns"] <= single["p99_ns"]
            assert len(single["by_round"]["p50_ns"]) == 2
    for contender in states["optimized"]["contenders"].values():
        assert contender["batch"]["per_s"] > 0
        assert contender["batch"]["ann_recall"] > 0.99
    for name in STORES:
        assert states["optimized"]["contenders"][name]["batch_by_clients"]["2"]["per_s"] > 0
    assert [(step["k"], step["settings"]) for step in document["sweep"]] == [
        (k, {name: {"efSearch": ef} for name in ("nmslib", "library of nmslib")})
        for k in (10, 1)
        for ef in (20, 200)
    ]
    points = document["points"]
    assert len(points) == 2 * 6 + 2 * 2 * 2
    for k in (10, 1):
        of_k = [point for point in points if point["k"] == k]
        # Among equally fast points, the one with the higher ANN recall.
        best = min(of_k, key=lambda point: (point["p50_ns"], -point["ann_recall"]))
        assert best["pareto"]
    low, high = points[0]["ann_recall_interval"]
    assert low <= points[0]["ann_recall"] <= high
    compared = {
        (ratio["of"], ratio["to"], ratio["what"]) for ratio in states["optimized"]["ratios"]
    }
    for quantity in ("single p50", "single p95", "single p99", "batch QPS"):
        assert {(name, f"library of {name}", quantity) for name in STORES} <= compared
    assert {ratio["what"] for ratio in document["ratios"]} == {"upsert", "optimize", "both"}


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_an_index_of_a_lancedb_store_and_of_its_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lance_index, "INDEX_ROWS", 1000)
    monkeypatch.setattr(lance_reader, "CACHE_ROWS", 1000)
    done = ann(
        *("--rows", "2000", "--dim", "16", "--stores", "lancedb", "--queries", "30"),
        *("--sweep", "nprobes=20", "-o", tmp_path),
    )
    assert done.status == 0, done.stderr
    document = json.loads((tmp_path / "bench-ann.json").read_text())
    before, after = document["states"].values()
    library = "library of lancedb"
    assert before["contenders"][library]["index"] == "exact scan"
    assert after["contenders"][library]["index"] == "IVF_SQ"
    assert "nprobes=" in after["contenders"]["lancedb"]["index"]
    assert "ANN recall@10" in done.stdout
    assert "relative to its library" in done.stdout


@pytest.mark.slow
def test_each_contender_in_its_own_process(tmp_path: Path) -> None:
    done = run(
        *("bench", "ann", "--rounds", "2", "--rows", "500", "--dim", "8", "-o", tmp_path),
        *("--stores", "exact,nmslib?M=8&efSearch=50", "--json"),
    )
    assert done.status == 0, done.stderr
    states = done.document["states"]
    for contender in states["optimized"]["contenders"].values():
        assert contender["peak_bytes"] > 10_000_000
    # The store has too few rows for a graph, so its library is not compared.
    assert {ratio["of"] for ratio in states["optimized"]["ratios"]} == {"exact"}


@pytest.mark.usefixtures("quick")
def test_an_interrupted_run_keeps_its_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(self: ContenderWorker) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ContenderWorker, "optimize", interrupted)
    done = ann("--rows", "300", "--dim", "8", "--stores", "exact", "-o", tmp_path)
    assert done.status == 130
    document = json.loads((tmp_path / "bench-ann.json").read_text())
    assert document["complete"] is False
    assert list(document["states"]) == ["as upserted"]
    assert "results up to the interruption are in" in done.stderr


@pytest.mark.usefixtures("quick")
def test_vectors_of_files_and_stores(tmp_path: Path) -> None:
    matrix = unit(40, 6)
    np.save(tmp_path / "a.npy", 3 * matrix.astype(np.float64))
    columns = {"name": pa.array(["x"] * 40), "vector": vector_array(matrix)}
    pa.parquet.write_table(pa.table(columns), tmp_path / "a.parquet")
    uri = f"exact:{tmp_path / 'store'}"
    with open_store(uri, Provenance("m", "weights:w", 6)) as store:
        ids = pa.array([f"{row:02}" for row in range(40)])
        store.upsert([pa.record_batch({"id": ids, "vector": vector_array(matrix)})])
    for source in (
        vectors.from_file(tmp_path / "a.npy"),
        vectors.from_file(tmp_path / "a.parquet"),
        vectors.from_store(uri),
    ):
        np.testing.assert_allclose(whole(source), matrix, atol=1e-6)
    out = tmp_path / "out"
    for option in (("--vectors", tmp_path / "a.npy"), ("--store", uri)):
        done = ann(*option, "--stores", "exact", "--k", "3", "-o", out, "--json")
        assert done.status == 0, done.stderr
        assert (done.document["vectors"]["rows"], done.document["vectors"]["dim"]) == (36, 6)


def test_invalid_files_of_vectors(tmp_path: Path) -> None:
    bad = unit(30, 4)
    bad[17, 2] = np.nan
    np.save(tmp_path / "nan.npy", bad)
    bad[17] = 0
    np.save(tmp_path / "zero.npy", bad)
    np.save(tmp_path / "flat.npy", np.zeros(9, np.float32))
    np.save(tmp_path / "text.npy", np.array([["a"]]))
    np.save(tmp_path / "object.npy", np.array([[{}]], dtype=object), allow_pickle=True)
    np.save(tmp_path / "few.npy", unit(5, 4))
    (tmp_path / "noise.npy").write_bytes(b"no matrix")
    (tmp_path / "noise.parquet").write_bytes(b"no table")
    (tmp_path / "a.csv").touch()
    pa.parquet.write_table(pa.table({"a": [1]}), tmp_path / "none.parquet")
    uneven = pa.table({"vector": pa.array([[1.0, 0.0], [1.0]] * 20)})
    pa.parquet.write_table(uneven, tmp_path / "uneven.parquet")
    for name, message in {
        "absent.npy": "found no such file",
        "a.csv": "expected a file of vectors (.npy, .parquet, .hdf5, .h5), found a file that ends",
        "nan.npy": "found norm nan at row 17; remove that row",
        "zero.npy": "found norm 0.0 at row 17; remove that row",
        "flat.npy": "expected numbers of shape (n, dim), found float32 (9,)",
        "text.npy": "expected numbers of shape (n, dim)",
        "object.npy": "it cannot be read",
        "noise.npy": "it cannot be read",
        "noise.parquet": "it cannot be read",
        "none.parquet": "expected a column 'vector' of lists of numbers, found columns a",
        "uneven.parquet": "expected vectors of one length",
        "few.npy": "expected more than 9 rows, found 5",
    }.items():
        error = ann("--vectors", tmp_path / name, "-o", tmp_path / "out").error
        assert message in error, error


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--stores", "faiss"], "expected stores of exact, lancedb, nmslib"),
        (["--stores", "nmslib?speed"], "found 'nmslib?speed'"),
        (["--stores", "nmslib?m=3"], "nmslib stores have no option 'm'"),
        (["--stores", ""], "found ''"),
        (["--selectivity", "0.01"], "expected a selectivity from 0.1 to 100 percent"),
        (["--store", "exact:no/such/store"], "no/such/store"),
        (["--rows", "9"], "expected more than 9 rows"),
        (["--rows", "90", "--k", "10,200"], "expected more than 199 rows, found 81 of length 512"),
        (["--sweep", "ef=3"], "expected settings to try such as efSearch=20,50"),
        (["--sweep", "efSearch=x"], "found 'efSearch=x'"),
    ],
)
def test_errors_are_one_line(tmp_path: Path, options: list[str], message: str) -> None:
    assert message in ann("-o", tmp_path, *options).error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "options",
    [
        ["--selectivity", "many"],
        ["--kind", "round"],
        ["--k", "0"],
        ["--clients", "contender"],
        ["--no-sweep", "--sweep", "efSearch=9"],
        ["--texts", __file__],
        ["--model", "a"],
    ],
)
def test_wrong_usage(tmp_path: Path, options: list[str]) -> None:
    assert ann("-o", tmp_path, *options).status == 2
