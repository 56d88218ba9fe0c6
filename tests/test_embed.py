"""`rsicd-embed embed`: vectors in a file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import rsicd_embed
from rsicd_embed.embedder.base import provenance
from rsicd_embed.rowfile import RowFile

from .helpers import IDS, run


def test_parquet(pictures: Path, tiny_model: Path, tmp_path: Path) -> None:
    manifest = pictures / "m.jsonl"
    rows = [{"path": name, "label": f"label {i}"} for i, name in enumerate(reversed(IDS))]
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    output = tmp_path / "vectors.parquet"
    outcome = run("embed", manifest, "-o", output, "--model", tiny_model, "--json")
    assert outcome.document["embedded"] == 5
    table = pq.read_table(output)
    assert table["id"].to_pylist() == list(reversed(IDS))
    assert table["label"].to_pylist() == [row["label"] for row in rows]
    embedder = rsicd_embed.load_embedder(tiny_model)
    vectors = np.stack(table["vector"].to_pylist())
    wanted = embedder.embed_images([pictures / name for name in reversed(IDS)])
    np.testing.assert_allclose(vectors, wanted, atol=1e-6)
    file = RowFile.open(output)
    assert file is not None
    assert file.provenance == provenance(embedder)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["pictures", "vectors.parquet"]


def test_npy_skips_unreadable_images(pictures: Path, tiny_model: Path, tmp_path: Path) -> None:
    (pictures / "b.png").write_text("broken")
    output = tmp_path / "vectors.npy"
    outcome = run("embed", pictures, "-o", output, "--model", tiny_model, "--json")
    assert [skipped["uri"] for skipped in outcome.document["skipped"]] == [str(pictures / "b.png")]
    ids = json.loads((tmp_path / "vectors.ids.json").read_text())
    assert ids == [name for name in IDS if name != "b.png"]
    vectors = np.load(output)
    assert (vectors.dtype, vectors.shape) == (np.float32, (4, 64))
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("name", ["vectors.parquet", "vectors.npy"])
def test_no_readable_image_gives_an_empty_file(
    pictures: Path, tiny_model: Path, tmp_path: Path, name: str
) -> None:
    for path in pictures.rglob("*.*"):
        path.write_text("broken")
    output = tmp_path / name
    run("embed", pictures, "-o", output, "--model", tiny_model)
    vectors = np.load(output) if name.endswith("npy") else pq.read_table(output)
    assert len(vectors) == 0


def test_a_failure_leaves_the_old_file(pictures: Path, tiny_model: Path, tmp_path: Path) -> None:
    output = tmp_path / "vectors.npy"
    output.write_text("old")
    output.with_suffix(".ids.json").write_text("[]")  # as an earlier run wrote it
    (pictures / "b.png").write_text("broken")
    failed = run("embed", pictures, "-o", output, "--model", tiny_model, "--strict")
    assert "b.png: not an image" in failed.error
    assert output.read_text() == "old"


def test_invalid_outputs_are_refused(pictures: Path, tiny_model: Path, tmp_path: Path) -> None:
    assert run("embed", pictures, "-o", tmp_path / "vectors.csv").status == 2
    nowhere = tmp_path / "none" / "vectors.npy"
    assert "cannot write" in run("embed", pictures, "-o", nowhere, "--model", tiny_model).error


def test_another_programs_matrix_is_not_replaced(
    pictures: Path, tiny_model: Path, tmp_path: Path
) -> None:
    output = tmp_path / "vectors.npy"
    np.save(output, np.zeros(3))
    embed = ("embed", pictures, "-o", output, "--model", tiny_model)
    assert "exists and was not written by rsicd-embed; choose another file" in run(*embed).error
    assert np.load(output).shape == (3,)
    output.unlink()
    assert [run(*embed).status for _ in range(2)] == [0, 0]


def test_another_programs_table_is_not_replaced(
    pictures: Path, tiny_model: Path, tmp_path: Path
) -> None:
    manifest = tmp_path / "manifest.parquet"
    pq.write_table(pa.table({"path": ["a.png"]}), manifest)
    before = manifest.read_bytes()
    refused = run("embed", pictures, "-o", manifest, "--model", tiny_model)
    assert "exists and was not written by rsicd-embed; choose another file" in refused.error
    assert manifest.read_bytes() == before
