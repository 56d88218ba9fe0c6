"""`train preview`: the image, its JSON, and errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rsicd_embed.pictures import sheets

from ..conftest import picture
from ..helpers import run
from .test_data_sources import dataset


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return dataset(tmp_path / "set", train=["1.png", "2.png", "3.png"], val=["4.png"])


@pytest.mark.parametrize("engine", ["device", "none"])
def test_a_preview_of_training_input(folder: Path, tmp_path: Path, engine: str) -> None:
    path = tmp_path / "pictures" / "views.png"
    arguments = ("train", "preview", "--dataset", folder, "-o", path, "--images", "2", "--views")
    options = ("--set", f"augment.engine={engine}", "--set", "data.class_captions=0", "--json")
    document = run(*arguments, "3", *options).document
    assert [len(entry["captions"]) for entry in document["images"]] == [3, 3]
    for entry in document["images"]:
        assert set(entry["captions"]) == {f"set {entry['id']}"}
    with Image.open(path) as image:
        assert (image.format, image.width) == ("PNG", 10 + 4 * 234)
        cells = [np.asarray(image.crop((10 + i * 234, 10, 234 + i * 234, 234))) for i in range(4)]
    alike = [bool(np.abs(cell - cells[1].astype(float)).mean() < 1) for cell in cells[2:]]
    assert alike == [engine == "none"] * 2
    first = path.read_bytes()
    assert run(*arguments, "3", *options).status == 0
    assert path.read_bytes() == first
    assert run(*arguments, "3", *options, "--seed", "5").document != document


@pytest.mark.parametrize("name", ["views.png", "views.jpg", "views.webp"])
def test_only_a_preview_is_replaced(folder: Path, name: str) -> None:
    arguments = ("train", "preview", "--dataset", folder, "--images", "1", "-o")
    path, image = folder / name, folder / "1.png"
    image_before = image.read_bytes()
    path.write_text("rubbish")
    for existing in (path, image):
        error = run(*arguments, existing).error
        assert f"{existing} exists, and is not a picture that train preview drew" in error
    assert (path.read_text(), image.read_bytes()) == ("rubbish", image_before)
    path.unlink()
    for views in (1, 2):
        assert run(*arguments, path, "--views", str(views)).status == 0
        with Image.open(path) as drawn:
            assert drawn.width == 10 + (views + 1) * 234


def test_invalid_requests(folder: Path, tmp_path: Path) -> None:
    arguments = ("train", "preview", "--dataset", folder, "-o", tmp_path / "views.png")
    assert (
        "at most the 3 images of the train split, found 4" in run(*arguments, "--images", "4").error
    )
    outcome = run(*arguments[:-1], tmp_path / "views.txt")
    assert (outcome.status, "expected a file of .png" in outcome.stderr) == (2, True)
    (folder / "2.png").write_bytes(b"rubbish")
    assert "2.png: not an image" in run(*arguments, "--images", "3").error


def test_long_captions_are_wrapped_and_truncated() -> None:
    image = picture(0, (300, 100))
    short, long, word = (
        sheets.draw_grid([sheets.GridRow([sheets.GridCell(image, text)])])
        for text in ("a port", "many boats lie there " * 30, "x" * 400)
    )
    assert short.height < long.height < short.height + 100
    assert word.height == short.height
    assert short.width == long.width == word.width
