"""The README's commands and code, run as they stand there."""

from __future__ import annotations

import itertools
import json
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
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
    path = here / "images" / "m.csv"
    (guessed,) = rsicd_embed.open_sources([path])
    assert [str(kind) for kind in guessed.schema.types] == [
        "string", "double", "double", "string", "string",
    ]  # fmt: skip
    (declared,) = rsicd_embed.open_sources([path], column_types={"taken": "date"})
    assert str(declared.schema.field("taken").type) == "date32[day]"


class Scene:
    """What rasterio opens: a UTM scene whose upper left corner is a wedge of nodata."""

    crs = "EPSG:32631"

    def __init__(self) -> None:
        scene = np.random.default_rng(0).integers(200, 4000, (4, 520, 800)).astype(np.uint16)
        wedge = np.add.outer(np.arange(520), np.arange(800)) < 300
        self.mask = np.where(wedge, 0, 255).astype(np.uint8)
        self.bands = np.where(wedge, 65_535, scene)
        self.transform = self

    def __mul__(self, place: tuple[float, float]) -> tuple[float, float]:
        return 500_000 + 10 * place[0], 5_700_000 - 10 * place[1]

    def __enter__(self) -> Scene:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def read(self, indexes: list[int]) -> np.ndarray:
        return self.bands[np.subtract(indexes, 1)]

    def dataset_mask(self) -> np.ndarray:
        return self.mask


def to_degrees(
    source: str, target: str, x: Sequence[float], y: Sequence[float]
) -> tuple[list[float], list[float]]:
    """UTM zone 31 near its central meridian, roughly."""
    assert (source, target) == (Scene.crs, "EPSG:4326")
    north = [metres / 110_900 for metres in y]
    return [3 + (metres - 500_000) / 69_500 for metres in x], north


def test_a_scene_becomes_tiles_as_the_documents_say(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rasterio, warp = ModuleType("rasterio"), ModuleType("rasterio.warp")
    vars(rasterio)["open"] = lambda path: Scene()
    vars(warp)["transform"] = to_degrees
    monkeypatch.setitem(sys.modules, "rasterio", rasterio)
    monkeypatch.setitem(sys.modules, "rasterio.warp", warp)
    (code,) = blocks("python", SOURCES)
    exec(compile(code, "sources.md", "exec", dont_inherit=True), {})
    (lines,) = blocks("sh", SOURCES)
    for line in lines.splitlines():
        run(shlex.split(line)[1:])
    with rsicd_embed.open_store("lancedb:./tiles-store") as store:
        tiles = {row["id"]: row for row in store.scan().read_all().to_pylist()}
    # Three rows and four columns reach both edges; the tile in the corner is nodata.
    places = itertools.product((0, 132, 264), (0, 181, 362, 544))
    assert tiles.keys() == {f"{top}_{left}.png" for top, left in places} - {"0_0.png"}
    values = np.asarray(Image.open("tiles/264_544.png"))  # the last rows and columns
    assert (values.shape, values.dtype) == ((256, 256, 3), np.uint8)
    assert 100 < values.mean() < 155  # stretched over the data, not over nodata
    half = np.asarray(Image.open("tiles/0_181.png"))
    assert not half[:50, :50].any()
    tile = tiles["132_362.png"]
    assert tile["lon"] == pytest.approx(3 + 4900 / 69_500, abs=1e-6)
    assert tile["lat"] == pytest.approx(5_697_400 / 110_900, abs=1e-6)
    assert tile["west"] == pytest.approx(3 + 3620 / 69_500, abs=1e-6)
    assert tile["north"] == pytest.approx(5_698_680 / 110_900, abs=1e-6)


def test_it_shows_the_set_up() -> None:
    assert [block for block in blocks("sh") if "make" in block] == ["make demo\n", "make test\n"]
    for target in ("demo", "test"):
        assert re.search(rf"^{target}:", (PROJECT / "Makefile").read_text(), flags=re.MULTILINE)
