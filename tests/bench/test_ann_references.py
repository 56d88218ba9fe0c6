"""The reference libraries hnswlib, faiss and usearch return the nearest rows."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from functools import partialmethod
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rsicd_embed.bench.ann import ground_truth, reference_libraries, vectors, workload
from tests.helpers import run

EACH = [
    pytest.param(need, name, id=name)
    for need, names in reference_libraries.CONTENDERS.items()
    for name in names
]


@pytest.fixture
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Makes graphs reproducible: with several threads they depend on scheduling."""
    if importlib.util.find_spec("usearch"):
        from usearch.index import Index

        monkeypatch.setattr(Index, "add", partialmethod(Index.add, threads=1))
    if importlib.util.find_spec("hnswlib"):
        import hnswlib

        class OneThread(hnswlib.Index):  # type: ignore[misc]
            def add_items(self, *arguments: Any) -> None:
                super().add_items(*arguments, num_threads=1)

        monkeypatch.setattr(hnswlib, "Index", OneThread)
    if not importlib.util.find_spec("faiss"):
        yield
        return
    import faiss

    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    yield
    faiss.omp_set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(("need", "name"), EACH)
def test_a_library_returns_the_nearest_rows_and_saves_its_index(
    need: str, name: str, tmp_path: Path
) -> None:
    pytest.importorskip(need)
    prepared = workload.prepare(vectors.generated(1200, 16), tmp_path, queries=40, k=10)
    right = ground_truth.GroundTruth(prepared, 10)
    kind = reference_libraries.CONTENDERS[need][name]
    built = kind(tmp_path / "own", 16)
    for batch in prepared.batches(500):
        built.upsert(batch)
    built.optimize()
    thorough = dict.fromkeys(kind.knobs, 1000)
    for library in (built, kind(tmp_path / "own", 16)):  # and reopened
        usual = right.ann_recall(library.positions(library.search(prepared.queries, 10), 40))
        assert usual["ann_recall"] > 0.8
        library.configure(thorough)
        (first,) = library.positions(library.search(prepared.queries[:1], 10), 1)
        every = library.positions(library.search(prepared.queries, 10), 40)
        np.testing.assert_array_equal(first, every[0])
        assert right.ann_recall(every)["ann_recall"] > 0.99
        assert library.index().startswith(("HNSW (M=16", "IVF of "))
        library.close()


def test_references_are_contenders_next_to_the_stores(tmp_path: Path) -> None:
    pytest.importorskip("faiss")
    done = run(
        *("bench", "ann", "--rows", "1500", "--dim", "8", "--stores", "exact", "--queries", "20"),
        *("--against", "faiss", "--sweep", "nprobes=1,9", "--sweep", "efSearch=50"),
        *("--rounds", "1", "--one-process", "--json", "-o", tmp_path),
    )
    assert done.status == 0, done.stderr
    contenders = done.document["states"]["optimized"]["contenders"]
    assert list(contenders) == ["exact", "library of exact", "faiss HNSW", "faiss IVF"]
    steps = [step["settings"] for step in done.document["sweep"]]
    assert steps == [
        {"faiss HNSW": {"efSearch": 50}, "faiss IVF": {"nprobes": 1}},
        {"faiss IVF": {"nprobes": 9}},
    ]


def test_kinds_of_index_are_contenders(tmp_path: Path) -> None:
    words = ("bench", "ann", "--rows", "600", "--dim", "8", "--stores", "exact", "--rounds", "1")
    words += ("--one-process", "--against", "none", "--no-libraries", "--optimized-only")
    done = run(
        *(*words, "--queries", "9", "--indexes", "IVF_SQ", "--sweep", "nprobes=1,9"),
        *("--sweep", "refine=4", "--json", "-o", tmp_path),
    )
    assert done.status == 0, done.stderr
    assert list(done.document["states"]) == ["optimized"]
    assert done.document["contenders"]["LanceDB IVF_SQ"]["disk_bytes"] > 0
    searched = done.document["states"]["optimized"]["contenders"]["LanceDB IVF_SQ"]
    assert searched["index"] == "IVF_SQ"
    steps = [step["contenders"]["LanceDB IVF_SQ"]["ann_recall"] for step in done.document["sweep"]]
    assert len(steps) == 2
    assert steps[1] == 1.0
    error = run(*words, "--indexes", "IVF", "-o", tmp_path).error
    assert "expected kinds of index of IVF_SQ, IVF_PQ, IVF_RQ, IVF_HNSW_SQ, found 'IVF'" in error


def test_a_missing_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(reference_libraries.NEEDS, "hnswlib", ("no_such_module",))
    words = ("bench", "ann", "--rows", "100", "--dim", "4", "-o", tmp_path, "--against")
    error = run(*words, "hnswlib").error
    assert "reference hnswlib needs no_such_module: pip install hnswlib" in error
    assert "expected references of hnswlib, faiss, usearch, or none" in run(*words, "annoy").error
