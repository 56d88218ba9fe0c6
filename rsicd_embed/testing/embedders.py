"""The conformance suite of embedders: subclass `EmbedderContract` and override its fixture.

class TestMine(EmbedderContract):
    @pytest.fixture
    def embedder(self):
        return MyEmbedder()
"""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rsicd_embed.embedder.base import Embedder
from rsicd_embed.errors import ImageError, RsicdEmbedError

TEXTS = ("a desert with yellow dunes", "boats in a harbour", "", "naïve 日本 🛰", "a desert")


def picture(seed: int, size: tuple[int, int] = (40, 36)) -> Image.Image:
    """A picture of random coloured blocks; `size` is (width, height)."""
    blocks = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    return Image.fromarray(blocks).resize(size, Image.Resampling.BICUBIC)


class EmbedderContract:
    """Every test uses the fixture `embedder`, which a subclass must override."""

    @pytest.fixture
    def embedder(self) -> Embedder:
        """The embedder under test."""
        raise NotImplementedError("a subclass provides the embedder")

    def check(self, embedder: Embedder, vectors: np.ndarray, n: int) -> None:
        """Asserts that vectors are float32 (n, dim), C-contiguous, finite and of unit norm."""
        assert vectors.shape == (n, embedder.dim)
        assert vectors.dtype == np.float32
        assert vectors.flags.c_contiguous
        assert np.isfinite(vectors).all()
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)

    def test_properties(self, embedder: Embedder) -> None:
        """An embedder has a name, dimension, fingerprint and batch size."""
        assert isinstance(embedder, Embedder)
        assert isinstance(embedder.name, str)
        assert embedder.name
        assert embedder.dim > 0
        assert embedder.batch_size > 0
        assert f"dim:{embedder.dim}" in embedder.fingerprint.split("/")

    @pytest.mark.parametrize("n", [0, 1, 2, 5])
    def test_images_in_input_order(self, embedder: Embedder, n: int) -> None:
        """Each row equals the embedding of its picture alone."""
        images = [picture(i) for i in range(n)]
        vectors = embedder.embed_images(images)
        self.check(embedder, vectors, n)
        for image, vector in zip(images, vectors, strict=True):
            np.testing.assert_allclose(embedder.embed_images([image])[0], vector, atol=1e-4)

    @pytest.mark.parametrize("n", range(len(TEXTS) + 1))
    def test_texts_in_input_order(self, embedder: Embedder, n: int) -> None:
        """Each row equals the embedding of its text alone."""
        vectors = embedder.embed_texts(TEXTS[:n])
        self.check(embedder, vectors, n)
        for text, vector in zip(TEXTS[:n], vectors, strict=True):
            np.testing.assert_allclose(embedder.embed_texts([text])[0], vector, atol=1e-4)

    def test_more_than_a_batch(self, embedder: Embedder) -> None:
        """Inputs are complete and in order across batches."""
        n = embedder.batch_size + 1
        pixels = np.stack([embedder.preprocess(picture(i % 3)) for i in range(n)])
        vectors = embedder.embed_pixels(pixels)
        self.check(embedder, vectors, n)
        np.testing.assert_allclose(vectors[3:], vectors[:-3], atol=1e-4)

    def test_kinds_of_image_input(self, embedder: Embedder, tmp_path: Path) -> None:
        """A picture, its path (as a Path or str) and its bytes give equal vectors."""
        path = tmp_path / "a.png"
        picture(3).save(path)
        data = io.BytesIO()
        picture(3).save(data, "PNG")
        vectors = embedder.embed_images([picture(3), path, str(path), data.getvalue()])
        np.testing.assert_allclose(vectors, vectors[[0]].repeat(4, axis=0), atol=1e-4)

    def test_preprocessed_shape_on_any_thread(self, embedder: Embedder) -> None:
        """All pictures become uint8 arrays of one shape, on any thread."""
        images = [picture(i, size) for i, size in enumerate([(9, 70), (70, 9), (1, 1), (224, 224)])]
        pixels = [embedder.preprocess(image) for image in images]
        kinds = {(array.shape, array.dtype) for array in pixels}
        assert kinds == {(pixels[0].shape, np.dtype(np.uint8))}
        with ThreadPoolExecutor(4) as pool:
            for array, other in zip(pixels, pool.map(embedder.preprocess, images), strict=True):
                np.testing.assert_array_equal(array, other)

    def test_embed_images_is_preprocess_and_embed_pixels(self, embedder: Embedder) -> None:
        """`ingest` calls these two methods, and gets the same vectors."""
        images = [picture(i) for i in range(3)]
        pixels = np.stack([embedder.preprocess(image) for image in images])
        vectors = embedder.embed_images(images)
        np.testing.assert_allclose(embedder.embed_pixels(pixels), vectors, atol=1e-4)

    def test_a_broken_image_is_named(self, embedder: Embedder, tmp_path: Path) -> None:
        """The error is one line with the path of the image."""
        path = tmp_path / "no.jpg"
        path.write_text("not a picture")
        with pytest.raises(ImageError, match=r"no\.jpg") as caught:
            embedder.embed_images([picture(0), path])
        assert "\n" not in str(caught.value)

    def test_a_single_text_or_image_is_refused(self, embedder: Embedder, tmp_path: Path) -> None:
        """A single item must be put in a list: a text would be embedded letter by letter."""
        with pytest.raises(RsicdEmbedError, match="list"):
            embedder.embed_texts("a river")
        path = tmp_path / "a.png"
        picture(3).save(path)
        for image in (picture(3), path, str(path), path.read_bytes()):
            with pytest.raises(RsicdEmbedError, match="list"):
                embedder.embed_images(image)  # type: ignore[arg-type]
