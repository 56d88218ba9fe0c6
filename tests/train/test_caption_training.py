"""Training of a tiny captioner: learning, resuming, batches and errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image

from rsicd_embed.captioning.loading_captioner import load_captioner
from rsicd_embed.captioning.vocabulary import Words
from rsicd_embed.datasets import captioned
from rsicd_embed.datasets.base import Example
from rsicd_embed.errors import SettingError, TrainError, TrainStoppedError
from rsicd_embed.evaluation.caption_metrics import cider_reward
from rsicd_embed.evaluation.caption_protocol import caption_point
from rsicd_embed.train.captioner.caption_batches import CaptionedVectors
from rsicd_embed.train.captioner.caption_loop import train_captioner, views_to_embed
from rsicd_embed.train.captioner.caption_settings import (
    CaptionTrainConfig,
    DecoderSettings,
)
from rsicd_embed.train.captioner.caption_step import TOKENS, VECTORS, WEIGHTS, noisy
from rsicd_embed.train.captioner.caption_vectors import view, view_vectors
from rsicd_embed.train.config import OptimizerConfig, parse
from rsicd_embed.train.input.training_data import TrainingData
from rsicd_embed.train.observers import Observer, Row

CONFIG = CaptionTrainConfig(
    DecoderSettings(mapping_width=16, width=16, layers=1, heads=2, max_words=7, prefix=1),
    OptimizerConfig(learning_rate=1e-2, weight_decay=0.01),
    views=2,
    noise=0.05,
    dropout=0.0,
    ema=0.5,
    epochs=30,
    batch_size=12,
    eval_every=15,
)


class MeanColours:
    """An embedder whose vectors are the mean colours of images."""

    name, dim, batch_size = "colours", 3, 5
    fingerprint = "weights:colours/dim:3"
    embedded = 0

    def preprocess(self, image: Image.Image) -> np.ndarray:
        return np.asarray(image.resize((4, 4)))

    def embed_pixels(self, pixels: np.ndarray) -> np.ndarray:
        self.embedded += len(pixels)
        vectors = pixels.mean(axis=(1, 2)).astype(np.float32) - 100
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


@pytest.fixture(scope="module")
def data(captioned_folder: Path) -> TrainingData:
    source = captioned.load(captioned_folder)
    assert source is not None
    train = source.split("train")
    return TrainingData(train, (1.0,) * len(train), source.split("val"), ("toy",))


class StopAfter(Observer):
    """Stops a run after a number of epochs, as a signal would."""

    def __init__(self, epochs: int) -> None:
        self._epochs = epochs

    def on_epoch(self, row: Row) -> None:
        if row["epoch"] == self._epochs:
            raise TrainStoppedError("stopped")


@pytest.mark.slow
def test_a_run_learns_and_resumes_exactly(data: TrainingData, tmp_path: Path) -> None:
    embedder: Any = MeanColours()
    best = train_captioner(CONFIG, data, tmp_path / "whole", embedder, caption_point, cider_reward)
    assert best["cider_d"] > 1
    assert embedder.embedded == views_to_embed(CONFIG, data) > 0
    captioner = load_captioner(tmp_path / "whole")
    assert captioner.made_by.fingerprint == embedder.fingerprint
    (vectors,) = view_vectors(embedder, data.val, 1, tmp_path / "val")
    texts = captioner.caption_vectors(vectors).texts
    right = [str(e.label) in text for e, text in zip(data.val, texts, strict=True)]
    assert np.mean(right) > 0.8

    shared = tmp_path / "whole" / "vectors"
    embedder.embedded = 0
    with pytest.raises(TrainStoppedError):
        train_captioner(
            CONFIG,
            data,
            tmp_path / "parts",
            embedder,
            caption_point,
            cider_reward,
            [StopAfter(17)],
            shared,
        )
    resumed = train_captioner(
        CONFIG, data, tmp_path / "parts", embedder, caption_point, cider_reward, vectors=shared
    )
    assert embedder.embedded == 0
    timeless = ("seconds", "images_per_s", "waited_for_data")
    assert {k: v for k, v in resumed.items() if k not in timeless} == {
        k: v for k, v in best.items() if k not in timeless
    }
    with pytest.raises(TrainError, match="other settings"):
        other = parse.replaced(CONFIG, {"noise": 0.1})
        train_captioner(
            other, data, tmp_path / "parts", embedder, caption_point, cider_reward, vectors=shared
        )


def test_a_diverging_loss_stops_the_run(data: TrainingData, tmp_path: Path) -> None:
    config = parse.replaced(
        CONFIG, {"optimizer.learning_rate": 1e30, "optimizer.clip_norm": 0.0, "views": 1}
    )
    with pytest.raises(TrainError, match=r"not finite.* a lower --learning-rate"):
        train_captioner(config, data, tmp_path / "run", MeanColours(), caption_point, cider_reward)  # type: ignore[arg-type]


def test_views_are_crops_turned_and_flipped() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8))
    assert view(image, 0, 7) is image
    views = [view(image, number, 7) for number in range(1, 9)]
    assert len({v.tobytes() for v in views}) == 8
    assert {v.width > v.height for v in views} == {True, False}
    assert min(v.width * v.height for v in views) >= 0.6 * 600
    assert view(image, 1, 7).tobytes() == views[0].tobytes()
    assert view(image, 1, 8).tobytes() != views[0].tobytes()


def test_unreadable_images_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("no image")
    example = Example("a.png", str(tmp_path / "a.png"), {"captions": ["a port"]})
    with pytest.raises(TrainError, match=r"a\.png: .*; repair or remove this image"):
        view_vectors(MeanColours(), [example], 1, tmp_path / "vectors")  # type: ignore[arg-type]


def test_shared_vectors_follow_the_contents_of_images(tmp_path: Path) -> None:
    embedder: Any = MeanColours()
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    paths = [tmp_path / "a" / "1.bmp", tmp_path / "b" / "1.bmp"]
    for path in paths:
        Image.new("RGB", (8, 8), (200, 0, 0)).save(path)
    first, moved = (Example("1", str(path), {"captions": ["a port"]}) for path in paths)
    red = view_vectors(embedder, [first], 1, tmp_path / "vectors")
    done = embedder.embedded
    assert np.array_equal(view_vectors(embedder, [moved], 1, tmp_path / "vectors"), red)
    assert embedder.embedded == done
    Image.new("RGB", (8, 8), (0, 0, 200)).save(paths[0])  # as many bytes
    assert not np.allclose(view_vectors(embedder, [first], 1, tmp_path / "vectors"), red)


@pytest.fixture
def vectors() -> CaptionedVectors:
    captions = [["a port"], ["a long river with many bends"], ["a desert", "a bridge over a river"]]
    examples = [Example(f"{i}", f"{i}", {"captions": own}) for i, own in enumerate(captions)]
    words = Words.of((c for own in captions for c in own), 1)
    views = np.arange(12, dtype=np.float32).reshape(2, 3, 2)
    return CaptionedVectors.of(views, examples, (1.0, 1.0, 2.0), words, max_words=4, seed=0)


def test_batches(vectors: CaptionedVectors) -> None:
    assert vectors.steps(2) == 2
    seen = [batch for epoch in range(40) for batch in vectors.epoch(epoch, 2, np.arange(2))]
    rows = np.concatenate([batch[VECTORS][:, 0] for batch in seen]).astype(int) // 2
    assert set(rows) == set(range(6))  # each view of each image
    assert np.bincount(rows % 3).tolist() == [40, 40, 80]
    lengths = np.concatenate([batch[WEIGHTS].sum(axis=1) for batch in seen]).astype(int)
    assert set(lengths) == {3, 5}  # with the end, but for cut captions
    assert {batch[TOKENS].shape[1] for batch in seen} == {4, 5}
    skipped = list(vectors.epoch(3, 2, np.arange(2), skip=1))
    np.testing.assert_array_equal(skipped[0][TOKENS], seen[7][TOKENS])
    with pytest.raises(TrainError, match="at least a batch of 5 images, found 4"):
        vectors.steps(5)


def test_noise_keeps_unit_norm() -> None:
    vectors = np.eye(4, 64, dtype=np.float32)
    moved = np.asarray(noisy(vectors, 0.3, jax.random.key(0)))
    np.testing.assert_allclose(np.linalg.norm(moved, axis=1), 1, atol=1e-5)
    cosine = (moved * vectors).sum(axis=1)
    assert (cosine < 0.99).all()
    assert (cosine > 0.9).all()


def test_settings() -> None:
    with pytest.raises(SettingError, match="decoder from scratch has to be trained"):
        DecoderSettings(freeze=True)
    with pytest.raises(SettingError, match="views ≥ 1, found 0"):
        parse.replaced(CONFIG, {"views": 0})
