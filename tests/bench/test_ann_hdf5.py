"""HDF5 files of ann-benchmarks: vectors, queries and ground truth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rsicd_embed.bench.ann import vectors
from tests.helpers import run

from .test_ann_pieces import unit, whole

h5py = pytest.importorskip("h5py")
TRAIN, TEST = 3 * unit(60, 6), unit(9, 6, seed=1)
NEIGHBOURS = np.argsort(-TEST @ TRAIN.T, axis=1)[:, :5]


def write(path: Path, distance: Any = "angular", **changed: Any) -> Path:
    columns = {"train": TRAIN, "test": TEST, "neighbors": NEIGHBOURS} | changed
    with h5py.File(path, "w") as file:
        if distance is not None:
            file.attrs["distance"] = distance
        for name, values in columns.items():
            if values is not None:
                file[name] = values
    return path


def ann(file: Path, *options: str | Path) -> Any:
    words = ("--rounds", "1", "--one-process", "--against", "none", "--stores", "exact")
    return run("bench", "ann", "--vectors", file, *words, "--k", "5", *options)


@pytest.mark.parametrize("distance", ["angular", "cosine", b"angular"])
def test_vectors_and_queries_of_a_file(tmp_path: Path, distance: Any) -> None:
    file = write(tmp_path / "a.hdf5", distance)
    np.testing.assert_allclose(whole(vectors.from_file(file)), TRAIN / 3, atol=1e-6)
    done = ann(file, "-o", tmp_path / "out", "--json")
    assert done.status == 0, done.stderr
    document = done.document
    assert document["vectors"] == {"source": "a.hdf5", "rows": 60, "dim": 6}
    assert document["queries"] == {
        "count": 9,
        "kinds": {"given": 9},
        "ann_recall_of_their_neighbours": 1.0,
    }
    assert document["states"]["optimized"]["contenders"]["exact"]["ann_recall"] == 1.0


def test_wrong_ground_truth_of_a_file_is_not_used(tmp_path: Path) -> None:
    file = write(tmp_path / "a.h5", neighbors=NEIGHBOURS[::-1])
    done = ann(file, "-o", tmp_path / "out", "--json")
    assert done.document["queries"]["ann_recall_of_their_neighbours"] < 0.9
    assert done.document["states"]["optimized"]["contenders"]["exact"]["ann_recall"] == 1.0
    assert "the ground truth of a.h5 is wrong and not used" in done.stderr
    assert ann(write(tmp_path / "b.h5", neighbors=None), "-o", tmp_path / "b").status == 0


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"distance": "euclidean"}, "expected the attribute distance to be angular or cosine"),
        ({"distance": "jaccard"}, "found 'jaccard'; use a file with that metric"),
        ({"distance": None}, "found None"),
        ({"test": unit(9, 7)}, "expected queries (test) of the vectors' length 6, found 7"),
        ({"train": None}, "expected 'train' to be numbers of shape (n, dim), found none"),
        ({"train": np.zeros(9)}, "found float64 (9,)"),
        ({"test": np.zeros((0, 6))}, "expected 'test' to be numbers"),
        ({"neighbors": NEIGHBOURS[:4]}, "expected neighbors of 9 queries, found 4"),
        ({"test": np.full((9, 6), np.nan)}, "a.hdf5, queries: expected finite, non-zero vectors"),
        ({"train": TRAIN[:3]}, "expected more than 4 rows, found 3 of length 6; use a smaller k"),
    ],
)
def test_errors_are_one_line(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    file = write(tmp_path / "a.hdf5", **changed)
    assert message in ann(file, "-o", tmp_path / "out").error


def test_a_file_that_is_not_hdf5(tmp_path: Path) -> None:
    (tmp_path / "noise.hdf5").write_bytes(b"noise")
    assert (
        "expected an HDF5 file; it cannot be read"
        in ann(tmp_path / "noise.hdf5", "-o", tmp_path / "out").error
    )
