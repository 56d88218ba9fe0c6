"""hnswlib, faiss and usearch as lines to compare with: they find what there is to be found."""

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
    for need, some in reference_libraries.CONTENDERS.items()
    for name in some
]


@pytest.fixture
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Graphs that are alike in every run: built by several threads they depend on who is first."""
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
def test_a_library_finds_the_nearest_rows_and_keeps_them(
    need: str, name: str, tmp_path: Path
) -> None:
    pytest.importorskip(need)
    made = workload.prepare(vectors.generated(1200, 16), tmp_path, queries=40, k=10)
    right = ground_truth.GroundTruth(made, 10)
    kind = reference_libraries.CONTENDERS[need][name]
    built = kind(tmp_path / "own", 16)
    for batch in made.batches(500):
        built.upsert(batch)
    built.optimize()
    thorough = dict.fromkeys(kind.knobs, 1000)
    for one in (built, kind(tmp_path / "own", 16)):  # and as another process opens it
        usual = right.ann_recall(one.positions(one.search(made.queries, 10), 40))
        assert usual["ann_recall"] > 0.8
        one.configure(thorough)
        (first,) = one.positions(one.search(made.queries[:1], 10), 1)
        every = one.positions(one.search(made.queries, 10), 40)
        np.testing.assert_array_equal(first, every[0])
        assert right.ann_recall(every)["ann_recall"] > 0.99
        assert one.index().startswith(("HNSW (M=16", "IVF of "))
        one.close()


def test_they_stand_beside_the_stores(tmp_path: Path) -> None:
    pytest.importorskip("faiss")
    done = run(
        *("bench", "ann", "--rows", "1500", "--dim", "8", "--stores", "exact", "--queries", "20"),
        *("--against", "faiss", "--sweep", "nprobes=1,9", "--sweep", "efSearch=50"),
        *("--rounds", "1", "--one-process", "--json", "-o", tmp_path),
    )
    assert done.status == 0, done.stderr
    told = done.document["states"]["optimized"]["contenders"]
    assert list(told) == ["exact", "library of exact", "faiss HNSW", "faiss IVF"]
    steps = [one["settings"] for one in done.document["sweep"]]
    assert steps == [
        {"faiss HNSW": {"efSearch": 50}, "faiss IVF": {"nprobes": 1}},
        {"faiss IVF": {"nprobes": 9}},
    ]


def test_a_library_that_is_missing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(reference_libraries.NEEDS, "hnswlib", ("no_such_module",))
    words = ("bench", "ann", "--rows", "100", "--dim", "4", "-o", tmp_path, "--against")
    error = run(*words, "hnswlib").error
    assert "reference hnswlib needs no_such_module: pip install hnswlib" in error
    assert "expected references of hnswlib, faiss, usearch, or none" in run(*words, "annoy").error
