"""`rsicd-embed find`: text and JSON output, drawings, and errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import rsicd_embed
from rsicd_embed.embedder.loading import load_for_a_query
from rsicd_embed.find import finding

from .conftest import picture
from .helpers import run


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "scene.png"
    picture(5, (150, 100)).save(path)
    return path


def test_json_matches_the_model(image: Path, tiny_model: Path) -> None:
    words = ("find", "a port", image, "--model", tiny_model, "--patch", "40", "--patch", "80")
    outcome = run(*words, "--overlap", "0.25", "-k", "1000", "--json")
    document = outcome.document
    assert outcome.status == 0
    assert (document["width"], document["height"]) == (150, 100)
    assert document["query"] == "a port"
    assert document["against"]
    patches = document["patches"]
    assert len(patches) == document["count"]
    assert [patch["rank"] for patch in patches] == list(range(1, len(patches) + 1))
    scores = [patch["score"] for patch in patches]
    assert scores == sorted(scores, reverse=True)
    embedder = rsicd_embed.load_embedder(tiny_model)
    with Image.open(image) as whole:
        crops = [whole.crop(patch["box"]) for patch in patches]
    vectors = embedder.embed_images(crops)
    np.testing.assert_allclose(vectors @ embedder.embed_texts(["a port"])[0], scores, atol=1e-4)
    logits = (
        document["logit_scale"]
        * vectors
        @ embedder.embed_texts(["a port", *document["against"]]).T.astype(np.float64)
    )
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    expected = weights[:, 0] / weights.sum(axis=1)
    np.testing.assert_allclose(expected, [patch["probability"] for patch in patches], atol=1e-3)


def test_text_output_and_drawing(image: Path, tiny_model: Path, tmp_path: Path) -> None:
    heat = tmp_path / "new" / "heat.png"
    words = ("find", "a port", image, "--model", tiny_model, "-k", "3", "-o", heat)
    outcome = run(*words, "--against", "bare land")
    assert outcome.status == 0
    assert [line.split()[0] for line in outcome.stdout.splitlines()] == ["1", "2", "3"]
    assert "ranked by cosine; probabilities are against: bare land" in outcome.stderr
    with Image.open(heat) as drawn:
        assert drawn.width == 480
        assert drawn.height > 320
        assert len(drawn.getcolors(1 << 24) or ()) > 1000
    before = heat.read_bytes()
    assert run(*words, "--patch", "4000").status == 1
    assert heat.read_bytes() == before
    assert [path.name for path in heat.parent.iterdir()] == ["heat.png"]


def test_many_patches_use_the_compiled_model(image: Path, tiny_model: Path) -> None:
    """With the same scores."""
    words = ("find", "a port", image, "--model", tiny_model, "--patch", "5", "--overlap", "0")
    document = run(*words, "--json", "-k", "1000").document
    assert document["count"] == 600
    question = finding.Question("a port", sides=(5,), overlap=0.0)
    with Image.open(image) as whole:
        few = finding.find(whole, question, load_for_a_query(tiny_model))
    expected = dict(zip(map(tuple, few.boxes.tolist()), few.scores.tolist(), strict=True))
    for patch in document["patches"]:
        assert patch["score"] == pytest.approx(expected[tuple(patch["box"])], abs=1e-4)


@pytest.mark.parametrize("size", [(1, 1), (5, 400), (33, 33)])
def test_images_of_any_shape(size: tuple[int, int], tiny_model: Path, tmp_path: Path) -> None:
    picture(1, size).save(tmp_path / "odd.png")
    words = ("find", "x", tmp_path / "odd.png", "--model", tiny_model, "-o", tmp_path / "o.jpg")
    document = run(*words, "--json").document
    assert document["patches"]


def test_errors_are_reported(image: Path, tiny_model: Path, tmp_path: Path) -> None:
    model = ("--model", tiny_model)
    assert "cannot be read" in run("find", "x", tmp_path / "no.png", *model).error
    text = tmp_path / "text.png"
    text.write_text("not a picture")
    assert "not an image of a known format" in run("find", "x", text, *model).error
    assert "shorter side, found 101" in run("find", "x", image, *model, "--patch", "101").error
    assert "an overlap from 0 to 0.9" in run("find", "x", image, *model, "--overlap", "1").error
    for wrong in (["--patch", "0"], ["-k", "0"], ["-o", "a.txt"], ["--against", " "]):
        assert run("find", "x", image, *model, *wrong).status == 2
    assert run("find", "", image, *model).status == 2
    before = image.read_bytes()
    assert run("find", "x", image, *model, "-o", image).status == 2
    assert image.read_bytes() == before


def test_patches_are_embedded_in_batches(tiny_model: Path) -> None:
    embedder = rsicd_embed.load_embedder(tiny_model, batch_size=64)
    sizes: list[int] = []
    question = finding.Question("x", (), (32,), 0.5)
    image = Image.new("RGB", (640, 640))
    result = finding.find(image, question, embedder, progress=sizes.append)
    assert len(result.boxes) == 39 * 39
    assert max(sizes) == 64
    assert [patch["rank"] for patch in result.best(2)] == [1, 2]
