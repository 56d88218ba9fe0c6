"""Fine-tuning on cached maps: the bundled model's recipe, at a tiny size."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from rsicd_embed.embedder import export_model
from rsicd_embed.embedder.clip import parts
from rsicd_embed.embedder.clip.parts import ModelParts
from rsicd_embed.embedder.clip.resnet_config import Convolution
from rsicd_embed.embedder.clip.weights import params_from_hf
from rsicd_embed.embedder.loading import load_clip
from rsicd_embed.errors import ModelError, TrainError
from rsicd_embed.train.input.training_data import TrainingData, training_source
from scripts import torch_towers
from scripts.cache_maps import MapCache, cache, random_view
from scripts.train_on_maps import Run, Validation, contrastive
from scripts.two_towers import Settings, Texts, TwoTowers
from tests.conftest import picture
from tests.embedder.test_bert import CONFIG, HOW, random_tensors, wordpiece
from tests.evaldata import captioned

SETTINGS = Settings(
    epochs=3,
    warm_epochs=1,
    batch_size=6,
    image_lr=1e-3,
    text_lr=1e-3,
    head_lr=3e-3,
    text_layers=1,
    ema=0.5,
    dropout=0.0,
)


STEM = "vision_model.embedder.embedder.convolution.weight"


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny ResNet and BERT, whose vectors tell the three colours apart."""
    path = tmp_path_factory.mktemp("start") / "model"
    tensors = random_tensors() | {"logit_scale": np.array(np.log(10), np.float32)}
    tensors[STEM] = 10 * tensors[STEM]
    export_model.save(path, CONFIG, params_from_hf(CONFIG, tensors), wordpiece(), HOW)
    return path


@pytest.fixture(scope="module")
def start(directory: Path) -> ModelParts:
    return parts.read(directory)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TrainingData:
    """Twelve images of three colours to train on."""
    folder = captioned(tmp_path_factory.mktemp("data") / "toy", splits=("train", "val"))
    return training_source([(folder, 1.0)])


@pytest.fixture(scope="module")
def maps(
    start: ModelParts, data: TrainingData, tmp_path_factory: pytest.TempPathFactory
) -> MapCache:
    folder = tmp_path_factory.mktemp("maps")
    cache(start, data, folder, 2)
    return MapCache.of(folder, MapCache.key(start, data))


def test_the_towers_are_those_of_the_model(
    directory: Path, start: ModelParts, data: TrainingData, maps: MapCache
) -> None:
    embedder = load_clip(directory, backend="numpy")
    towers = TwoTowers(start, SETTINGS)
    words = ["the river", "many boats with green trees", "a port"]
    texts = Texts(towers, words, start.tokenizer(words))
    with torch.no_grad():
        ours = towers.images(maps.unpack(np.asarray(maps.val())).float()).numpy()
        described = towers.texts(*texts[:]).numpy()
    images = embedder.embed_images([example.path for example in data.val])
    assert np.sum(ours * images, axis=1).min() > 0.99  # of eight bits
    assert np.sum(described * embedder.embed_texts(words), axis=1).min() > 0.999


def test_views_are_random_and_reproducible() -> None:
    image = picture(1)
    views = [random_view(image, 32, np.random.default_rng(i)) for i in range(40)]
    assert {view.shape for view in views} == {(32, 32, 3)}
    assert len({view.tobytes() for view in views}) == 40
    assert random_view(image, 32, np.random.default_rng(3)).tobytes() == views[3].tobytes()


def test_the_loss_is_clips_and_knows_repeated_captions() -> None:
    logits = torch.randn(4, 4, generator=torch.Generator().manual_seed(0))
    apart = torch.arange(4)
    expected = torch.nn.functional.cross_entropy(logits, apart)
    expected = (expected + torch.nn.functional.cross_entropy(logits.T, apart)) / 2
    assert contrastive(logits, apart).item() == pytest.approx(expected.item())
    equal = torch.tensor([[1.0, 1.0], [1.0, 1.0]])
    assert contrastive(50 * equal, torch.zeros(2)).item() == pytest.approx(np.log(2), abs=1e-5)


@pytest.mark.slow
def test_a_run_learns_continues_and_is_kept(
    start: ModelParts, data: TrainingData, maps: MapCache, tmp_path: Path
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    Run(start, data, maps, whole, SETTINGS).train()
    lines = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4]
    assert lines[-1]["loss"] < lines[0]["loss"] - 0.2
    best = load_clip(whole / "best", backend="numpy")
    assert best.fingerprint != start.fingerprint

    class Stopped(Run):
        def _losses(self, epoch: int) -> Iterator[float]:
            if epoch == 2:
                raise KeyboardInterrupt
            return super()._losses(epoch)

    with pytest.raises(KeyboardInterrupt):
        Stopped(start, data, maps, cut, SETTINGS).train()
    Run(start, data, maps, cut, SETTINGS).train()
    assert load_clip(cut / "best", backend="numpy").fingerprint == best.fingerprint
    other = replace(SETTINGS, seed=1)
    with pytest.raises(TrainError, match="expected a run of"):
        Run(start, data, maps, cut, other)
    with pytest.raises(TrainError, match="expected 20 images or more, found 12"):
        Run(start, data, maps, tmp_path / "x", replace(SETTINGS, batch_size=20))
    with pytest.raises(ModelError, match="expected maps of"):
        MapCache.of(maps.folder, "another")
    metrics = Validation(TwoTowers(start, SETTINGS), data.val, maps)()
    assert {"mr", "top1"} <= set(metrics)


@pytest.mark.parametrize(("side", "stride"), [(1, 1), (1, 2), (3, 1), (3, 2)])
def test_products_equal_convolutions(side: int, stride: int) -> None:
    """Layers that are trained are computed as products, and others as convolutions."""
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(2, 6, 9, 9, generator=generator)
    weight = torch.randn(4, 6, side, side, generator=generator)
    tensors = {"c.weight": weight, "c.bias": torch.randn(4, generator=generator)}
    shape = Convolution(6, 4, side=side, stride=stride)
    expected = torch_towers.convolution(tensors, "c", maps, shape)
    tensors["c.weight"] = weight.clone().requires_grad_()
    ours = torch_towers.convolution(tensors, "c", maps, shape)
    assert ours.shape == expected.shape
    torch.testing.assert_close(ours.detach(), expected, atol=1e-5, rtol=0)
