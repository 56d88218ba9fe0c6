"""A teacher's vectors of the student's views, computed once."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from rsicd_embed.datasets.base import Example
from rsicd_embed.embedder.loading import load_embedder
from rsicd_embed.errors import TrainError
from rsicd_embed.train.config import TeacherConfig, TrainConfig
from rsicd_embed.train.input.augment import VIEWS, random_view, view_keys
from rsicd_embed.train.input.caption_draws import Captions
from rsicd_embed.train.input.captioned_images import CaptionedImages
from rsicd_embed.train.objective import TEACHER_IMAGES, TEACHER_TEXTS
from rsicd_embed.train.teacher import Teacher, teach
from tests.conftest import picture

CONFIG = dataclasses.replace(TrainConfig(), teacher=TeacherConfig("bundled", views=2), batch_size=4)


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> list[Example]:
    folder = tmp_path_factory.mktemp("taught")
    split = []
    for i in range(6):
        path = folder / f"{i}.png"
        picture(i).save(path)
        split.append(Example(path.name, str(path), {"captions": [f"picture {i}", "a picture"]}))
    return split


@pytest.fixture(scope="module")
def embedder(tiny_model: Path) -> Any:
    return load_embedder(tiny_model)


@pytest.fixture(scope="module")
def images(examples: list[Example], embedder: Any) -> Any:
    return CaptionedImages(
        examples,
        embedder.tokenizer,
        image_size=32,
        seed=0,
        data=CONFIG.data,
        augment=CONFIG.augment,
    )


def test_each_row_gets_the_vectors_of_its_view_and_caption(
    examples: list[Example], embedder: Any, images: Any, tmp_path: Path
) -> None:
    known = teach(embedder, examples, images.captions, CONFIG, tmp_path)
    assert known.images.shape == (2, 6, embedder.dim)
    batch = next(iter(images.epoch(0, 4)))
    own = np.arange(4)
    for epoch in (0, 1):
        arrays = known.arrays(batch, epoch, own)
        numbers = arrays[VIEWS]
        assert (numbers == np.stack([batch.rows, (batch.rows + epoch) % 2], axis=1)).all()
        # Embedding the views that the step makes gives the teacher's vectors.
        keys = view_keys(CONFIG.seed, jnp.asarray(numbers))
        seen = jax.vmap(lambda key, image: random_view(key, image[None], 32, CONFIG.augment)[0])(
            keys, batch.pixels
        )
        vectors = embedder.embed_pixels(np.asarray(seen.round()).astype(np.uint8))
        np.testing.assert_allclose(arrays[TEACHER_IMAGES], vectors, atol=2e-3)
        texts = _texts(images.captions, batch.groups[:, 0])
        np.testing.assert_allclose(arrays[TEACHER_TEXTS], embedder.embed_texts(texts), atol=2e-3)


def _texts(captions: Captions, same: np.ndarray) -> list[str]:
    return [captions.texts[int(np.flatnonzero(captions.same == number)[0])] for number in same]


class Counting:
    """An embedder that counts images."""

    def __init__(self, embedder: Any) -> None:
        self.embedder, self.pixels = embedder, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.embedder, name)

    def embed_pixels(self, pixels: np.ndarray) -> np.ndarray:
        self.pixels += len(pixels)
        return np.asarray(self.embedder.embed_pixels(pixels))


def test_vectors_are_computed_once_and_resumed(
    examples: list[Example], embedder: Any, images: Any, tmp_path: Path
) -> None:
    counting, advanced = Counting(embedder), list[int]()

    def taught(config: TrainConfig = CONFIG) -> Any:
        advanced.clear()
        vectors = teach(counting, examples, images.captions, config, tmp_path, advanced.append)
        assert sum(advanced) == 12  # including cached views
        return vectors

    first = taught()
    assert counting.pixels == 12
    (folder,) = tmp_path.iterdir()
    (folder / "view-1.npy").unlink()  # as if interrupted
    assert (taught().images == first.images).all()
    assert counting.pixels == 18
    taught()
    assert counting.pixels == 18
    taught(dataclasses.replace(CONFIG, seed=1))
    assert counting.pixels == 30


def test_changed_images_are_embedded_again(embedder: Any, images: Any, tmp_path: Path) -> None:
    examples = []
    for i in range(6):
        picture(i).save(tmp_path / f"{i}.bmp")
        caption = {"captions": [f"picture {i}"]}
        examples.append(Example(f"{i}.bmp", str(tmp_path / f"{i}.bmp"), caption))
    before = teach(embedder, examples, images.captions, CONFIG, tmp_path / "vectors")
    picture(9).save(tmp_path / "2.bmp")  # of the same size
    after = teach(embedder, examples, images.captions, CONFIG, tmp_path / "vectors")
    differ = (before.images != after.images).any(axis=(0, 2))
    assert differ.tolist() == [i == 2 for i in range(6)]


def test_views_differ(examples: list[Example], embedder: Any, images: Any, tmp_path: Path) -> None:
    known = teach(embedder, examples, images.captions, CONFIG, tmp_path)
    assert np.abs(known.images[0] - known.images[1]).max() > 1e-3
    assert isinstance(known, Teacher)
    assert known.dim == embedder.dim


def test_torchvision_views_cannot_be_taught() -> None:
    augment = dataclasses.replace(CONFIG.augment, engine="torchvision")
    with pytest.raises(TrainError, match="with a teacher, found 'torchvision'"):
        dataclasses.replace(CONFIG, augment=augment)


def test_an_unreadable_image(embedder: Any, images: Any, tmp_path: Path) -> None:
    path = tmp_path / "broken.png"
    path.write_text("rubbish")
    with pytest.raises(TrainError, match=r"broken\.png: not an image"):
        teach(embedder, [Example("x", str(path))], images.captions, CONFIG, tmp_path / "out")
    Image.new("RGB", (8, 8)).save(path)
    teach(embedder, [Example("x", str(path))], images.captions, CONFIG, tmp_path / "out")
