"""Groups of near-duplicates, in every store and on the command line."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from rsicd_embed.curation.near_duplicates import find_duplicates, write_duplicates
from rsicd_embed.errors import QueryError
from rsicd_embed.records import vector_array
from rsicd_embed.stores.base import open_store
from tests.conftest import picture
from tests.helpers import SCHEMES, rows, run
from tests.query.conftest import DIM, MADE_BY


@pytest.mark.parametrize("scheme", SCHEMES)
def test_groups(scheme: str, tmp_path: Path) -> None:
    """The same groups as connected components of all pairs, also where many rows are equal."""
    random = np.random.default_rng(0)
    centres = random.standard_normal((60, DIM))
    copies = [*range(60), *random.integers(0, 60, 60), *[7] * 60]
    vectors = centres[copies] + 0.05 * random.standard_normal((180, DIM))
    vectors[120:] = vectors[7]
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    table = pa.table(
        {
            "id": [f"{i:03}" for i in range(180)],
            "vector": vector_array(vectors),
            "width": pa.array([100 + i % 5 for i in range(180)], pa.int32()),
            "height": pa.array([10] * 180, pa.int32()),
        }
    )
    near = vectors @ vectors.T >= 0.97
    labels = np.arange(180)
    for _ in range(180):
        labels = np.array([labels[row].min() for row in near])
    expected = {
        frozenset(f"{i:03}" for i in np.flatnonzero(labels == label))
        for label in np.unique(labels)
        if (labels == label).sum() > 1
    }
    with open_store(f"{scheme}:{tmp_path / 'store'}", MADE_BY) as store:
        store.upsert(table.to_batches())
        groups = find_duplicates(store, 0.97)
        assert {frozenset(group.ids) for group in groups} == expected
        assert len(groups[0].ids) == max(map(len, expected))
        for group in groups:
            places = [int(id_) for id_ in group.ids]
            assert places[0] == max(places, key=lambda i: (i % 5, -i))
            lowest = (vectors[places[1:]] @ vectors[places[0]]).min()
            assert group.similarity == pytest.approx(min(1, lowest), abs=1e-6)
        written = write_duplicates(store, groups, "duplicate_of")
        column = store.scan(["id", "duplicate_of"]).read_all().to_pylist()
        assert written == sum(row["duplicate_of"] is not None for row in column)
        assert written == sum(len(group.ids) - 1 for group in groups)
        # Rows that were not compared keep their values.
        some = find_duplicates(store, 0.97, where="id < '060'")
        write_duplicates(store, some, "duplicate_of", where="id < '060'", overwrite=True)
        now = store.scan(["id", "duplicate_of"]).read_all().to_pylist()
        before = {row["id"]: row["duplicate_of"] for row in column if row["id"] >= "060"}
        assert {row["id"]: row["duplicate_of"] for row in now if row["id"] >= "060"} == before
        with pytest.raises(QueryError, match="from -1 to 1"):
            find_duplicates(store, 1.5)


def test_command(uri: str, tiny_model: Path, pictures: Path, tmp_path: Path) -> None:
    picture(0, (40, 30)).save(pictures / "copy.png")
    picture(0, (40, 30)).save(pictures / "copy-2.png")
    run("ingest", pictures, "--store", uri, "--model", tiny_model)
    before = rows(uri)
    command = ("duplicates", "--store", uri, "--threshold", 0.99999)
    document = run(*command, "--json").document
    copies = {"copy.png", "copy-2.png"}
    assert any(copies <= set(group["ids"]) for group in document["groups"])
    assert rows(uri) == before
    done = run(*command, "-o", tmp_path / "list.csv", "--write", "duplicate_of")
    assert done.status == 0
    listed = list(csv.DictReader((tmp_path / "list.csv").read_text().splitlines()))
    assert {row["id"] for row in listed} == {i for g in document["groups"] for i in g["ids"]}
    kept = [id_ for id_, row in rows(uri).items() if row["duplicate_of"] is None]
    assert len(kept) == len(before) - document["duplicates"]
    assert "exists already" in run(*command, "--write", "duplicate_of").error
    assert "from -1 to 1" in run("duplicates", "--store", uri, "--threshold", 2).error
