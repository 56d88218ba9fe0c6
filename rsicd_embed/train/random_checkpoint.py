"""A CLIP of a published shape with random weights: as fast as a trained one, made offline."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rsicd_embed.embedder import export_model
from rsicd_embed.embedder.clip import weights
from rsicd_embed.embedder.clip.tensors import shapes
from rsicd_embed.embedder.preprocess import Preprocessor
from rsicd_embed.errors import ModelError
from rsicd_embed.train import vocabulary as bpe
from rsicd_embed.train.shapes import SHAPES


def write(folder: Path, shape: str, texts: Sequence[str], seed: int = 0) -> None:
    """Writes a model directory in the Hugging Face layout.

    Args:
        folder: the directory, made if absent.
        shape: a name of SHAPES.
        texts: whose words the vocabulary knows; other words are spelt, which takes more tokens
            than a real vocabulary would.
        seed: of the weights.

    Raises:
        ModelError: there is no such shape.
    """
    if shape not in SHAPES:
        raise ModelError(f"expected a shape of {', '.join(SHAPES)}, found {shape!r}")
    config = SHAPES[shape]
    draw = np.random.default_rng(seed)
    tensors = {name: _random(draw, name, size) for name, size in shapes(config).items()}
    vocabulary = bpe.train([*texts, *texts], config.vocab_size)  # it learns what occurs twice
    pixels = Preprocessor(config.image_size, (config.image_size, config.image_size))
    params = weights.params_from_hf(config, tensors)
    export_model.save(folder, config, params, vocabulary, pixels)


def _random(draw: np.random.Generator, name: str, size: tuple[int, ...]) -> np.ndarray:
    """Of a scale at which different pictures get different vectors."""
    if name == "logit_scale":
        return np.asarray(np.log(1 / 0.07), np.float32)
    if name.endswith(".bias"):
        return np.zeros(size, np.float32)
    if "norm" in name:
        return np.ones(size, np.float32)
    inputs = int(np.prod(size[1:])) if len(size) > 1 else size[0]
    std = 0.02 if "embedding.weight" in name and "patch" not in name else inputs**-0.5
    return draw.standard_normal(size, np.float32) * np.float32(std)
