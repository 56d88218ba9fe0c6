"""Parity with transformers' CLIPModel, CLIPTokenizer and CLIPImageProcessor."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rsicd_embed.embedder import preprocess
from rsicd_embed.embedder.clip import config as clip_config
from rsicd_embed.embedder.clip import tensors as clip_tensors
from rsicd_embed.embedder.clip import weights
from rsicd_embed.embedder.clip.backends.on_jax import JaxTowers
from rsicd_embed.embedder.clip.backends.on_numpy import NumpyTowers
from rsicd_embed.embedder.clip.backends.on_openvino import OpenvinoTowers
from rsicd_embed.embedder.clip.backends.towers import Towers
from rsicd_embed.embedder.loading import load_embedder
from rsicd_embed.embedder.preprocess import Preprocessor
from tests.embedder.onnx_towers import OnnxTowers
from tests.reference import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

TINY_TEXT = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "vocab_size": 99,
    "max_position_embeddings": 16,
    "bos_token_id": 97,
    "eos_token_id": 98,
    "pad_token_id": 98,
}
TINY_VISION = {
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "image_size": 32,
    "patch_size": 8,
}


def tiny(activation: str, **text: object) -> CLIPConfig:
    return CLIPConfig(
        text_config={**TINY_TEXT, "hidden_act": activation, **text},
        vision_config={**TINY_VISION, "hidden_act": activation},
        projection_dim=24,
    )


HOW = Preprocessor(resize=None, crop=None)
ENGINES = ("jax", "numpy", "openvino", "onnx")


def engine(name: str, reference: CLIPModel) -> Towers:
    """The reference's weights on one of our engines."""
    config = clip_config.from_hf(reference.config.to_dict())
    state = {name: value.numpy() for name, value in reference.state_dict().items()}
    tensors = clip_tensors.checked(config, state)
    if name == "jax":
        return JaxTowers(config, weights.params_from_hf(config, tensors), HOW)
    kinds = {"numpy": NumpyTowers, "openvino": OpenvinoTowers, "onnx": OnnxTowers}
    return kinds[name](config, tensors, HOW)


def assert_same_vectors(reference: CLIPModel, pixels: np.ndarray, tokens: np.ndarray) -> None:
    normal = torch.tensor(HOW.normalise(pixels).transpose(0, 3, 1, 2))
    with torch.no_grad():
        out = reference(pixel_values=normal, input_ids=torch.tensor(tokens))
    for name in ENGINES:
        ours = engine(name, reference)
        for theirs, vectors in (
            (out.image_embeds.numpy(), ours.encode_images(pixels)),
            (out.text_embeds.numpy(), ours.encode_texts(tokens.astype(np.int32))),
        ):
            assert vectors.dtype == np.float32, name
            assert (theirs * vectors).sum(axis=1).min() >= 0.99999, name
            np.testing.assert_allclose(vectors, theirs, atol=2e-5, err_msg=name)


def random_pixels(rng: np.random.Generator, count: int, side: int) -> np.ndarray:
    return rng.integers(0, 256, (count, side, side, 3), np.uint8)


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_tiny_model(activation: str) -> None:
    torch.manual_seed(0)
    reference = CLIPModel(tiny(activation)).eval()
    # Initial weights make a nearly linear model, so they are scaled up.
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 97, (3, 10))
    tokens[0, 5:], tokens[1, 9], tokens[2, 3] = 98, 98, 98  # padded, full, text after the end
    assert_same_vectors(reference, random_pixels(rng, 3, 32), tokens)


def test_old_checkpoints_pool_the_text_at_the_highest_id() -> None:
    """Their config says eos 2; the tokenizer's end token has the highest id."""
    torch.manual_seed(0)
    reference = CLIPModel(tiny("quick_gelu", eos_token_id=2)).eval()
    rng = np.random.default_rng(1)
    tokens = rng.integers(3, 98, (2, 8))
    tokens[0, 4], tokens[1, 7] = 98, 98
    tokens[0, 2] = 2  # an ordinary token in that vocabulary
    assert_same_vectors(reference, random_pixels(rng, 2, 32), tokens)


# Width, heads, patch and side of the image tower; width and heads of the text tower; joint width.
PUBLISHED = {
    "B/32": (768, 12, 32, 224, 512, 8, 512),
    "B/16": (768, 12, 16, 224, 512, 8, 512),
    "L/14@336": (1024, 16, 14, 336, 768, 12, 768),
}


@pytest.mark.parametrize(
    "name",
    [
        "B/32",
        pytest.param("B/16", marks=pytest.mark.slow),
        pytest.param("L/14@336", marks=pytest.mark.slow),
    ],
)
def test_published_shapes(name: str) -> None:
    """The shapes of all published CLIPs with a ViT, with fewer layers."""
    width, heads, patch, side, text_width, text_heads, dim = PUBLISHED[name]
    layers = {"num_hidden_layers": 2}
    vision = {"hidden_size": width, "num_attention_heads": heads, "intermediate_size": 4 * width}
    text = {"hidden_size": text_width, "num_attention_heads": text_heads}
    reference = CLIPModel(
        CLIPConfig(
            vision_config=vision | layers | {"image_size": side, "patch_size": patch},
            text_config=text | layers | {"intermediate_size": 4 * text_width},
            projection_dim=dim,
        )
    ).eval()
    assert_same_vectors_of_full_size(reference)


@pytest.mark.slow
def test_all_layers_of_vit_b_32() -> None:
    reference = CLIPModel(CLIPConfig()).eval()
    assert sum(p.numel() for p in reference.parameters()) > 150e6
    assert_same_vectors_of_full_size(reference)


def assert_same_vectors_of_full_size(reference: CLIPModel) -> None:
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 49406, (2, 77))
    tokens[0, 30:], tokens[1, 76] = 49407, 49407
    side = reference.config.vision_config.image_size
    assert_same_vectors(reference, random_pixels(rng, 2, side), tokens)


def test_a_saved_directory_is_a_hugging_face_checkpoint(tiny_model: Path) -> None:
    """transformers loads a saved model, and both give the same vectors end to end."""
    reference = CLIPModel.from_pretrained(tiny_model).float().eval()
    tokenizer = CLIPTokenizer.from_pretrained(tiny_model)
    processor = CLIPImageProcessorPil.from_pretrained(tiny_model)
    ours = load_embedder(tiny_model)
    texts = ["a desert with yellow dunes .", "boats"]
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 256, s, np.uint8)) for s in [(50, 70, 3), (31, 9, 3)]]
    with torch.no_grad():
        out = reference(
            **tokenizer(texts, padding=True, return_tensors="pt"),
            **processor(images, return_tensors="pt"),
        )
    np.testing.assert_allclose(ours.embed_texts(texts), out.text_embeds.numpy(), atol=2e-5)
    np.testing.assert_allclose(ours.embed_images(images), out.image_embeds.numpy(), atol=2e-5)


TEXTS = [
    "many planes are parked near a large building in an airport .",
    "A Volcano's crater — naïve 12",
    "",
    "  two\n\tspaces ",
    "it's 2024: don't!!!",
    "日本 🛰️ émigré",
    "a long one " * 30,
    "it says <|endoftext|> in the middle",
]


def test_tokens(tiny_model: Path) -> None:
    ours = load_embedder(tiny_model).tokenizer
    length = ours.context_length
    theirs = CLIPTokenizer.from_pretrained(tiny_model)(
        TEXTS, padding="max_length", truncation=True, max_length=length, return_tensors="np"
    )
    with pytest.warns(UserWarning, match="1 of 8 texts"):
        np.testing.assert_array_equal(ours(TEXTS, length=length), theirs["input_ids"])


def test_tokens_by_the_references_rules(tiny_model: Path) -> None:
    """From the vocabulary only, without the rules in our tokenizer.json."""
    model = json.loads((tiny_model / "tokenizer.json").read_text())["model"]
    merges = [tuple(pair) for pair in model["merges"]]
    theirs = CLIPTokenizer(vocab=model["vocab"], merges=merges)
    ours = load_embedder(tiny_model).tokenizer
    short = [text for text in TEXTS if len(text) < 100]
    padded = theirs(short, padding="max_length", max_length=32, return_tensors="np")
    np.testing.assert_array_equal(ours(short, length=32), padded["input_ids"])


SIZES = [(224, 224), (500, 333), (333, 500), (100, 90), (1, 1), (37, 1200), (225, 224), (10000, 3)]


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_pixels_of_any_size(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), np.uint8))
    assert_same_pixels(CLIPImageProcessorPil(), image)


@pytest.mark.parametrize(
    "settings",
    [
        {"size": {"shortest_edge": 20}, "crop_size": {"height": 33, "width": 33}},  # padded
        {"size": {"height": 30, "width": 50}, "crop_size": {"height": 24, "width": 24}},
        {"do_resize": False, "crop_size": {"height": 16, "width": 16}},
        {"do_center_crop": False, "size": {"height": 16, "width": 16}},
        {"do_normalize": False},
        {"do_rescale": False, "do_normalize": False},
        {"resample": 2, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4]},
    ],
    ids=lambda settings: "-".join(settings),
)
def test_pixels_of_other_settings(settings: dict[str, object]) -> None:
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (45, 61, 3), np.uint8))
    assert_same_pixels(CLIPImageProcessorPil(**settings), image)


def assert_same_pixels(reference: CLIPImageProcessorPil, image: Image.Image) -> None:
    ours = preprocess.from_hf(json.loads(reference.to_json_string()))
    theirs = reference(image, return_tensors="np")["pixel_values"][0]
    np.testing.assert_array_equal(ours.normalise(ours(image)), theirs.transpose(1, 2, 0))
