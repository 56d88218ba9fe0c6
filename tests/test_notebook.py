"""Runs all cells of the fine-tuning notebook on a few images."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

NOTEBOOK = Path(__file__).parents[1] / "docs" / "finetune.ipynb"


@pytest.mark.slow
def test_it_runs_to_search_results(
    captioned_folder: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nbformat: Any = pytest.importorskip("nbformat")
    nbclient: Any = pytest.importorskip("nbclient")
    for name, value in {
        "DATASET": captioned_folder,
        "MODEL": tiny_model,
        "OUT": tmp_path / "out",
        "EPOCHS": 1,
        "BATCH_SIZE": 8,
        "JAX_PLATFORMS": "cpu",
    }.items():
        monkeypatch.setenv(name, str(value))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert all(not cell.get("outputs") for cell in notebook.cells)  # committed without outputs
    kernel = {"argv": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]}
    _install(tmp_path / "jupyter" / "kernels" / "python3", kernel)
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    nbclient.NotebookClient(notebook, timeout=1200, kernel_name="python3").execute(
        cwd=str(tmp_path)
    )
    shown = [
        output
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if output["output_type"] == "execute_result"
    ]
    assert ["image/png" in output["data"] for output in shown] == [True, True, True]
    printed = "".join(
        output["text"]
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if output["output_type"] == "stream"
    )
    assert "top1" in printed
    assert "best: epoch 1" in printed


def _install(folder: Path, kernel: dict[str, Any]) -> None:
    import json

    folder.mkdir(parents=True)
    content = kernel | {"display_name": "Python 3", "language": "python"}
    (folder / "kernel.json").write_text(json.dumps(content))
