"""Random views on the device and by torchvision, one setting at a time."""

from __future__ import annotations

import dataclasses
import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rsicd_embed.errors import TrainError
from rsicd_embed.train.config import AugmentConfig, TrainConfig, parse
from rsicd_embed.train.input import torchvision_views as by_torchvision
from rsicd_embed.train.input.augment import random_view
from rsicd_embed.train.input.torchvision_views import Views
from tests.conftest import picture

SIDE, SIZE = 18, 16
# Nothing random: a view is the resized image.
STILL = AugmentConfig(
    crop=1.0,
    area=(1.0, 1.0),
    jitter=0.0,
    horizontal_flip=0.0,
    vertical_flip=0.0,
    quarter_turns=False,
)
PIXELS = np.stack([np.asarray(picture(i, (SIDE, SIDE))) for i in range(6)])


_on_device = jax.jit(random_view, static_argnums=(2, 3))


def views_by(
    engine: str, options: AugmentConfig, seed: int = 0, pixels: np.ndarray = PIXELS
) -> np.ndarray:
    """Views of some images, float32 (n, SIZE, SIZE, 3)."""
    options = dataclasses.replace(options, engine=engine)
    if engine == "device":
        return np.asarray(_on_device(jax.random.key(seed), jnp.asarray(pixels), SIZE, options))
    seeds = np.random.default_rng(seed).integers(2**63, size=len(pixels), dtype=np.uint64)
    return Views(options, pixels.shape[1], SIZE)(pixels, seeds).astype(np.float32)


engines = pytest.mark.parametrize("engine", ["device", "torchvision"])


@engines
def test_without_augmentation_a_view_is_the_resized_image(engine: str) -> None:
    from PIL import Image

    views = views_by(engine, STILL)
    for view, pixels in zip(views, PIXELS, strict=True):
        resized = Image.fromarray(pixels).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
        assert np.abs(view - np.asarray(resized)).mean() < 8  # the device resizes bilinearly


@engines
@pytest.mark.parametrize(
    ("switch", "symmetries"),
    [
        ({"horizontal_flip": 1.0}, {(0, True)}),
        ({"vertical_flip": 1.0}, {(2, True)}),
        ({"horizontal_flip": 0.5}, {(0, False), (0, True)}),
        ({"quarter_turns": True}, {(0, False), (1, False), (2, False), (3, False)}),
        (
            {"quarter_turns": True, "horizontal_flip": 0.5},
            {(turns, mirrored) for turns in range(4) for mirrored in (False, True)},
        ),
    ],
)
def test_each_symmetry_alone(
    engine: str, switch: dict[str, float], symmetries: set[tuple[int, bool]]
) -> None:
    image = np.repeat(PIXELS[:1], 96, axis=0)
    whole = views_by(engine, STILL, pixels=image)[0]
    candidates = {
        (turns, mirrored): np.rot90(whole[:, ::-1] if mirrored else whole, turns)
        for turns in range(4)
        for mirrored in (False, True)
    }
    symmetries_seen = set()
    for view in views_by(engine, dataclasses.replace(STILL, **switch), pixels=image):
        errors = {
            key: float(np.abs(view - candidate).mean()) for key, candidate in candidates.items()
        }
        best = min(errors, key=errors.__getitem__)
        assert errors[best] < 4
        symmetries_seen.add(best)
    assert symmetries_seen == symmetries


@engines
def test_crops_have_the_configured_side_and_area(engine: str) -> None:
    """On a ramp, the range of values shows the part that was cropped."""
    side = 64
    ramp = np.tile(np.arange(side, dtype=np.uint8) * 4, (side, 1))
    pixels = np.repeat(np.stack([ramp, ramp, ramp], axis=-1)[None], 64, axis=0)

    def seen(**options: object) -> np.ndarray:
        views = views_by(engine, dataclasses.replace(STILL, **options), pixels=pixels)  # type: ignore[arg-type]
        columns = views.mean(axis=(1, 3))
        return (columns[:, -1] - columns[:, 0]) / 4 / side

    assert np.abs(seen() - 1).max() < 0.1
    half = seen(crop=0.5)
    assert np.abs(half - 0.5).max() < 0.1
    area = seen(area=(0.25, 0.5))
    assert 0.4 < area.min() < 0.55 < area.max() < 0.77
    both = seen(crop=0.5, area=(0.25, 0.25))
    assert np.abs(both - 0.25).max() < 0.07


@engines
def test_jitter_changes_colours_only(engine: str) -> None:
    grey = np.full((32, SIDE, SIDE, 3), 128, np.uint8)
    views = views_by(engine, dataclasses.replace(STILL, jitter=0.25), pixels=grey)
    assert np.ptp(views, axis=(1, 2, 3)).max() < 1.5  # no borders appear, and grey stays grey
    levels = views.mean(axis=(1, 2, 3))
    assert 90 < levels.min() < 110 < 146 < levels.max() < 166
    assert 0 <= views.min() <= views.max() <= 255


@engines
def test_views_depend_only_on_the_seed(engine: str) -> None:
    first, same, other = (views_by(engine, AugmentConfig(), seed) for seed in (0, 0, 1))
    assert first.shape == (6, SIZE, SIZE, 3)
    np.testing.assert_array_equal(first, same)
    assert np.abs(first - other).max() > 1


def test_torch_generator_is_left_unchanged() -> None:
    import torch

    seeds = np.arange(6, dtype=np.uint64)
    views = Views(AugmentConfig("torchvision"), SIDE, SIZE)
    torch.manual_seed(3)
    wanted = torch.rand(4).tolist()
    torch.manual_seed(3)
    threads = torch.get_num_threads()
    whole = views(PIXELS, seeds)
    assert torch.rand(4).tolist() == wanted
    assert torch.get_num_threads() == threads
    np.testing.assert_array_equal(views(PIXELS[4:], seeds[4:]), whole[4:])  # in smaller batches


def test_defaults_of_each_engine() -> None:
    assert AugmentConfig("device").crop_area == (0.5, 1.0)
    original = AugmentConfig("torchvision")
    assert (original.crop_side, original.crop_area) == (0.8, (0.8, 1.0))
    assert AugmentConfig("torchvision", crop=0.9).crop_side == 0.9


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ({"engine": "gpu"}, "expected augment.engine to be one of device, torchvision, none"),
        ({"crop": 0.0}, r"expected augment.crop in \(0, 1\], found 0.0"),
        ({"crop": 1.5}, r"expected augment.crop in \(0, 1\], found 1.5"),
        (
            {"area": [0.8, 1.2]},
            r"expected augment.area to be \[least, most\] within \(0, 1\], found",
        ),
        ({"area": [0.9, 0.8]}, r"found \[0.9, 0.8\]"),
        ({"area": [0.9]}, r"found \[0.9\]"),
        ({"jitter": -0.1}, r"expected augment.jitter in \[0, 1\]"),
        ({"vertical_flip": 2.0}, r"expected augment.vertical_flip in \[0, 1\]"),
    ],
)
def test_invalid_settings(setting: dict[str, object], complaint: str) -> None:
    with pytest.raises(TrainError, match=complaint):
        parse.replaced(TrainConfig(), {f"augment.{name}": v for name, v in setting.items()})


def test_missing_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "torchvision" else find(name)
    )
    with pytest.raises(TrainError, match=r"needs torchvision.*rsicd-embed\[augment\]"):
        by_torchvision.require_torchvision()
