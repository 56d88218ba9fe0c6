"""open_clip's models: the same vectors, tokens, pixels and configs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from rsicd_embed.embedder import clip_vocabulary
from rsicd_embed.embedder.clip.formats import naming, open_clip_config
from rsicd_embed.embedder.clip.tensors import checked
from rsicd_embed.embedder.loading import load_embedder
from rsicd_embed.embedder.preprocess import from_open_clip
from rsicd_embed.embedder.tokenizer import Tokenizer
from tests.embedder import open_clip_models as reference
from tests.embedder.open_clip_models import KINDS

ENGINES = ("jax", "numpy", "openvino")


def picture(height: int, width: int, colour: tuple[float, float, float], seed: int) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3))
    return Image.fromarray((noise * np.array(colour)).astype(np.uint8))


IMAGES = [
    picture(40, 51, (1, 0.1, 0.2), 0),
    picture(64, 64, (0.1, 0.9, 0.1), 1),
    picture(90, 35, (0.5, 0.2, 1), 2),
]


@pytest.mark.usefixtures("one_tokenizer")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.filterwarnings("ignore:1 of 5 texts are longer")
def test_vectors_match_open_clip(
    kind: str, engine: Any, models: dict[str, Any], files: Path
) -> None:
    activation: Any = "quick_gelu" if kind == "quick_gelu" else "gelu"
    ours = load_embedder(files / f"{kind}.pt", activation=activation, backend=engine)
    images, texts = reference.vectors(models[kind], IMAGES, reference.TEXTS)
    for vectors, expected in (
        (ours.embed_images(IMAGES), images),
        (ours.embed_texts(reference.TEXTS), texts),
    ):
        assert (vectors * expected).sum(axis=1).min() >= 0.99999
        np.testing.assert_allclose(vectors, expected, atol=2e-5)


# Layers of both towers beside the sizes of published models; those of B/32 are complete.
PUBLISHED: dict[str, tuple[dict[str, Any], int, Any]] = {
    "B/32": (
        reference.settings({"layers": 12, "width": 768, "patch_size": 32}, quick=True),
        12,
        "quick_gelu",
    ),
    "B/16": (reference.settings({"layers": 2, "width": 768, "patch_size": 16}), 2, "gelu"),
    "L/14": (reference.settings({"layers": 2, "width": 1024, "patch_size": 14}), 2, "gelu"),
    "H/14": (
        reference.settings({"layers": 2, "width": 1280, "patch_size": 14, "head_width": 80}),
        2,
        "gelu",
    ),
    "RN50": (
        reference.settings({"layers": [3, 4, 6, 3], "width": 64, "patch_size": None}),
        2,
        "gelu",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_full_widths_match_open_clip(name: str, tmp_path: Path) -> None:
    """With the widths of the published models; the text towers are as wide as B/32's."""
    config, layers, activation = PUBLISHED[name]
    config["text_cfg"] |= {"width": 512, "heads": 8, "layers": layers}
    model = reference.model(config | {"embed_dim": 512})
    torch.save(model.state_dict(), tmp_path / "model.pt")
    images, texts = reference.vectors(model, IMAGES, reference.TEXTS[:3])
    for engine in ("jax", "openvino"):
        ours = load_embedder(tmp_path / "model.pt", activation=activation, backend=engine)  # type: ignore[arg-type]
        assert (ours.embed_images(IMAGES) * images).sum(axis=1).min() >= 0.9999
        assert (ours.embed_texts(reference.TEXTS[:3]) * texts).sum(axis=1).min() >= 0.9999


def test_tokens_match_open_clip(tmp_path: Path) -> None:
    ours = Tokenizer(
        clip_vocabulary.clip_tokenizer(tmp_path), context_length=77, pad_id=0, cleaning="lower"
    )
    theirs = reference.open_clip.get_tokenizer("ViT-B-32")
    samples = list(reference.random_texts(5000))
    with pytest.warns(UserWarning, match="were cut"):
        ids = ours(samples, length=77)
    np.testing.assert_array_equal(ids, theirs(samples).numpy())


def test_pixels_match_open_clip() -> None:
    sizes = [(31, 77), (224, 224), (225, 227), (300, 224), (500, 333), (64, 1000)]
    for preprocess in ({}, {"resize_mode": "squash", "interpolation": "bilinear"}):
        ours = from_open_clip(preprocess, 224)
        config = reference.open_clip.transform.PreprocessCfg(size=224, **preprocess)
        theirs = reference.image_transform_v2(config, is_train=False)
        for seed, size in enumerate(sizes):
            image = picture(*size, (1, 1, 1), seed)
            expected = theirs(image).numpy().transpose(1, 2, 0)
            np.testing.assert_allclose(ours.normalise(ours(image)), expected, atol=1e-6)


def test_long_clips_positions(models: dict[str, Any]) -> None:
    """The first 20 positions are CLIP's, the others come from a second table."""
    state = {name: value.numpy() for name, value in models["gelu"].state_dict().items()}
    state["positional_embedding"] = np.arange(248 * 64, dtype=np.float32).reshape(248, 64)
    state["positional_embedding_res"] = -state["positional_embedding"]
    config = open_clip_config.from_tensors(state, "gelu")
    assert config.context_length == 248
    tensors = checked(config, state, naming.open_clip(config, state))
    positions = tensors["text_model.embeddings.position_embedding.weight"]
    np.testing.assert_array_equal(positions[:20], state["positional_embedding"][:20])
    np.testing.assert_array_equal(positions[20:], state["positional_embedding_res"][20:])


@pytest.mark.parametrize("kind", KINDS)
def test_configs_and_tensors_round_trip(kind: str, models: dict[str, Any]) -> None:
    state = {name: value.numpy() for name, value in models[kind].state_dict().items()}
    config = open_clip_config.from_config(KINDS[kind], state)
    assert open_clip_config.from_config(open_clip_config.to_config(config), state) == config
    activation: Any = "quick_gelu" if kind == "quick_gelu" else "gelu"
    assert open_clip_config.from_tensors(state, activation) == config
    tensors = checked(config, state, naming.open_clip(config, state))
    written = naming.write(config, naming.open_clip(config), tensors)
    assert set(written) == set(state)
    again = checked(config, written, naming.open_clip(config))
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(again[name], tensor, err_msg=name)
    assert json.dumps(open_clip_config.to_config(config))
