"""Files written by earlier versions still open, and give the results recorded back then."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import rsicd_embed
from tests.data.formats import make
from tests.helpers import run

FORMATS = Path(make.__file__).parent
VERSIONS = sorted(path.name for path in FORMATS.iterdir() if (path / "expected.json").exists())


@pytest.fixture(params=VERSIONS)
def written(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any]:
    """Copies the files of a version to the working directory; returns its recorded results."""
    folder = tmp_path / "written"
    shutil.copytree(FORMATS / request.param, folder)
    monkeypatch.chdir(folder)
    expected: dict[str, Any] = json.loads((folder / "expected.json").read_text())
    return expected


def agrees(answer: Any, expected: Any, where: str = "") -> None:
    """Asserts that a document has the expected fields; later versions may add fields."""
    if isinstance(expected, dict):
        assert set(expected) <= set(answer), where
        for key, value in expected.items():
            agrees(answer[key], value, f"{where}.{key}")
    elif isinstance(expected, list):
        assert len(answer) == len(expected), where
        for i, value in enumerate(expected):
            agrees(answer[i], value, f"{where}[{i}]")
    elif isinstance(expected, float):
        assert answer == pytest.approx(expected, abs=1e-5), where
    else:
        assert answer == expected, where


@pytest.mark.parametrize("scheme", make.SCHEMES)
def test_stores_give_the_recorded_results(written: dict[str, Any], scheme: str) -> None:
    for name, expected in written[scheme].items():
        question = make.QUESTIONS[name]
        # The model had another path on the machine that wrote the store.
        model = ["--model", "model"] if question[0] == "search" else []
        answer = run(*question, "--store", f"{scheme}:{scheme}", *model, "--json").document
        agrees(answer, _without_places(expected), f"{scheme} {name}")


def _without_places(expected: Any) -> Any:
    """A result without machine-specific fields and byte counts."""
    if isinstance(expected, dict):
        return {
            key: _without_places(value)
            for key, value in expected.items()
            if key not in ("model", "bytes")
        }
    return expected


@pytest.mark.parametrize("scheme", make.SCHEMES)
def test_stores_can_be_written_to(written: dict[str, Any], scheme: str) -> None:
    store = f"{scheme}:{scheme}"
    for path in Path("images").glob("*_5.png"):
        path.write_bytes(Path("images", "sea_0.png").read_bytes())
    answer = run("ingest", "all.jsonl", "--store", store, "--model", "model", "--json").document
    assert (answer["embedded"], answer["unchanged"] + answer["updated"]) == (3, 15)
    with rsicd_embed.open_store(store) as opened:
        assert len(opened) == 18
        rows = opened.scan(columns=["id", "taken"]).read_all()
    assert rows["taken"].null_count == 0


@pytest.mark.parametrize("name", ["rows.parquet", "vectors.parquet"])
def test_row_files_can_be_imported(written: dict[str, Any], name: str) -> None:
    summary = rsicd_embed.import_rows([name], "exact:copy")
    assert summary.imported == 18
    if name == "rows.parquet":
        answer = run(*make.QUESTIONS["sql"], "--store", "exact:copy", "--json").document
        agrees(answer, written["exact"]["sql"])


def test_records_can_be_read(written: dict[str, Any]) -> None:
    records = [str(path) for path in Path.cwd().glob("*/*.json") if path.parent.name != "model"]
    benchmark = next(path for path in records if "bench-ann" in path)
    answer = run("bench", "compare", benchmark, benchmark, "--json").document
    assert answer["figures"]
    for record in records:
        if "bench-ann" in record or "eval-zeroshot" in record:
            assert run("bench", "report", record, "-o", "pages").status == 0


def test_training_run_can_be_resumed(written: dict[str, Any]) -> None:
    first = json.loads(Path("run", "metrics.jsonl").read_text())
    assert run(*make.TRAIN).status == 0
    rows = [json.loads(line) for line in Path("run", "metrics.jsonl").read_text().splitlines()]
    assert rows[0] == first
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4]
    assert rsicd_embed.load_embedder("run/best").embed_texts(["a forest"]).shape == (1, 8)
