"""The README's commands and code, run as they stand there."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import rsicd_embed
from rsicd_embed.cli import main
from tests.conftest import picture

PROJECT = Path(__file__).parents[1]
README = (PROJECT / "README.md").read_text(encoding="utf-8")
SOURCES = (PROJECT / "docs" / "sources.md").read_text(encoding="utf-8")


def blocks(language: str, document: str = README) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", document, flags=re.DOTALL)


def run(words: list[str]) -> str:
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, f"{words}\n{result.output}"
    return result.stdout


@pytest.fixture
def here(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with ./images in it, and a toy data set."""
    pictures.rename(tmp_path / "images")
    data = tmp_path / "toy"
    data.mkdir()
    entries = []
    for i in range(12):
        name = f"{['beach', 'river'][i % 2]}_{i}.png"
        picture(i).save(data / name)
        entries.append(
            {
                "filename": name,
                "split": ("val", "test", "train", "train")[i // 3],
                "sentences": [{"raw": f"picture number {i} ."}],
            }
        )
    (data / "dataset_toy.json").write_text(json.dumps({"images": entries}))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_command_works_in_its_order(here: Path) -> None:
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    assert 'pip install ".[train]"' in README
    commands = [line for line in lines if line.startswith("rsicd-embed ")]
    assert len(commands) >= 7
    for line in commands:
        words = shlex.split(line.replace("PATH/TO/rsicd", str(here / "toy")))[1:]
        if words[:2] == ["train", "--dataset"]:  # as it stands, it would take an hour
            words += ["--shape", "tiny", "--epochs", "1", "--batch-size", "4"]
        assert run(words) or words[0] == "train"


def test_the_python_works(here: Path) -> None:
    ours, lancedbs = blocks("python")
    names: dict[str, Any] = {}
    exec(compile(ours, "README.md", "exec", dont_inherit=True), names)
    assert names["hits"].num_rows == 10  # two queries, five pictures
    assert names["hits"].column_names[:4] == ["query", "rank", "id", "score"]
    exec(compile(lancedbs, "README.md", "exec", dont_inherit=True), names)
    assert names["hits"]["uri"].to_pylist() == ["./images/a.png"]


def test_the_manifest_of_the_documents(here: Path) -> None:
    (table,) = blocks("csv", SOURCES)
    (here / "images" / "m.csv").write_text(table)
    schema = rsicd_embed.open_sources([here / "images" / "m.csv"])[0].schema
    kinds = ["string", "double", "double", "date32[day]", "string"]
    assert [str(kind) for kind in schema.types] == kinds


def test_a_scene_becomes_tiles_as_the_documents_say(here: Path) -> None:
    (code,) = blocks("python", SOURCES)
    scene = np.random.default_rng(0).integers(200, 4000, (520, 800, 3)).astype(np.uint16)
    exec(
        compile(code, "sources.md", "exec", dont_inherit=True),
        {"scene": scene, "west": 4.0, "north": 52.0, "step": 0.0001},
    )
    (lines,) = blocks("sh", SOURCES)
    for line in lines.splitlines():
        run(shlex.split(line)[1:])
    with rsicd_embed.open_store("lancedb:./tiles-store") as store:
        assert len(store) == 6
    values = np.asarray(Image.open("tiles/0_0.png"))
    assert values.dtype == np.uint8
    assert 100 < values.mean() < 155


def test_it_shows_the_set_up() -> None:
    assert [block for block in blocks("sh") if "make" in block] == ["make demo\n", "make test\n"]
    for target in ("demo", "test"):
        assert re.search(rf"^{target}:", (PROJECT / "Makefile").read_text(), flags=re.MULTILINE)
