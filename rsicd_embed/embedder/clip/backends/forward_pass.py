"""CLIP's forward pass over any array library, for inference from a checkpoint's own tensors.

The same computation as `clip.model`, which trains; the tests hold both against the reference.
Shapes: b images or texts, t tokens or patches, w width, d joint. A ResNet's maps, of b images and
c channels, have their axes in whichever order the library likes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, TypeVar

import numpy as np

from rsicd_embed.embedder.clip.config import (
    LEGACY_EOS_TOKEN_ID,
    BertConfig,
    ClipConfig,
    TowerConfig,
)
from rsicd_embed.embedder.clip.resnet_config import Convolution, ResNetConfig
from rsicd_embed.embedder.clip.tensors import RESNET_STEM, resnet_block
from rsicd_embed.embedder.preprocess import Preprocessor

Tensors = Mapping[str, np.ndarray]
T = TypeVar("T")


class Ops(Protocol[T]):
    """The operations that a CLIP is made of; T is the library's array."""

    def add(self, x: T, y: T) -> T:
        """Their sum."""
        ...

    def normalise(self, pixels: T, how: Preprocessor) -> T:
        """uint8 (b, h, w, 3) → floats, as `Preprocessor.normalise`."""
        ...

    def patches(self, pixels: T, weight: np.ndarray) -> T:
        """Floats (b, h, w, 3), kernel (w, 3, side, side) → (b, patches, w), row by row."""
        ...

    def positioned(self, x: T, positions: np.ndarray) -> T:
        """(b, t, w) plus the first t rows of positions."""
        ...

    def prepend(self, x: T, token: np.ndarray) -> T:
        """(b, t, w) → (b, t + 1, w) with `token` (w,) first."""
        ...

    def lookup(self, table: np.ndarray, tokens: T) -> T:
        """Rows of (n, w) by int32 (b, t) → (b, t, w)."""
        ...

    def at(self, x: T, places: T) -> T:
        """(b, t, w) and int32 (b,) → (b, w), for each of the batch the token at its place."""
        ...

    def first(self, x: T) -> T:
        """(b, t, w) → (b, w), the first tokens."""
        ...

    def linear(self, x: T, weight: np.ndarray, bias: np.ndarray | None) -> T:
        """(…, in) by (out, in) → (…, out)."""
        ...

    def layer_norm(self, x: T, weight: np.ndarray, bias: np.ndarray, eps: float) -> T:
        """To mean 0 and variance 1 over the last axis, then scaled and shifted."""
        ...

    def attention(
        self, query: T, key: T, value: T, *, heads: int, causal: bool = False, seen: T | None = None
    ) -> T:
        """Multi-head attention of (b, t, w), scaled by the root of a head's width.

        With `seen`, floats (b, t), only positions of 1 are seen, not those of 0.
        """
        ...

    def mean_of(self, x: T, seen: T) -> T:
        """(b, t, w) → (b, w), the mean of the positions whose `seen`, floats (b, t), is 1."""
        ...

    def activate(self, x: T, name: str) -> T:
        """`quick_gelu` or the exact `gelu`."""
        ...

    def maps(self, pixels: T) -> T:
        """Floats (b, h, w, 3) → maps of three channels."""
        ...

    def convolution(self, x: T, weight: np.ndarray, bias: np.ndarray, how: Convolution) -> T:
        """Maps by kernels (out, in, side, side), and (out,) added."""
        ...

    def relu(self, x: T) -> T:
        """What is below 0 to 0."""
        ...

    def max_pool(self, x: T) -> T:
        """The largest of each 3×3 positions, at a stride of 2; what lies outside never is."""
        ...

    def mean(self, x: T) -> T:
        """Maps to (b, c), their means over all positions."""
        ...

    def unit(self, x: T) -> T:
        """(b, d) to length 1."""
        ...


def image_vectors(
    ops: Ops[T], config: ClipConfig, tensors: Tensors, how: Preprocessor, pixels: T
) -> T:
    """uint8 (b, side, side, 3) → unit vectors (b, d)."""
    x = ops.normalise(pixels, how)
    if isinstance(config.vision, ResNetConfig):
        x = _resnet(ops, tensors, x, config.vision)
    else:
        x = _vit(ops, tensors, x, config.vision)
    return ops.unit(ops.linear(x, tensors["visual_projection.weight"], None))


def text_vectors(ops: Ops[T], config: ClipConfig, tensors: Tensors, tokens: T, pooled: T) -> T:
    """int32 (b, t), and what `pooled_positions` gives for them → unit vectors (b, d)."""
    if isinstance(config.text, BertConfig):
        x = _bert(ops, tensors, tokens, pooled, config.text)
    else:
        name = "text_model.embeddings"
        x = ops.lookup(tensors[f"{name}.token_embedding.weight"], tokens)
        x = ops.positioned(x, tensors[f"{name}.position_embedding.weight"])
        x = _blocks(ops, tensors, "text_model", x, config.text, causal=True)
        x = _norm(ops, tensors, "text_model.final_layer_norm", ops.at(x, pooled), config.text)
    return ops.unit(ops.linear(x, tensors["text_projection.weight"], None))


def pooled_positions(config: ClipConfig, tokens: np.ndarray) -> np.ndarray:
    """Where the features of each text are read, from its tokens, int32 (b, t).

    Returns:
        For CLIP's text tower int32 (b,), the position of the end token (see
        `LEGACY_EOS_TOKEN_ID`); for a BERT float32 (b, t), 1 for tokens and 0 for padding.
    """
    if isinstance(config.text, BertConfig):
        seen: np.ndarray = (tokens != config.text.pad_token_id).astype(np.float32)
        return seen
    legacy = config.eos_token_id == LEGACY_EOS_TOKEN_ID
    ends: np.ndarray = np.argmax(tokens if legacy else tokens == config.eos_token_id, axis=1)
    return ends.astype(np.int32)


def _vit(ops: Ops[T], tensors: Tensors, pixels: T, tower: TowerConfig) -> T:
    name = "vision_model.embeddings"
    x = ops.patches(pixels, tensors[f"{name}.patch_embedding.weight"])
    x = ops.prepend(x, tensors[f"{name}.class_embedding"])
    x = ops.positioned(x, tensors[f"{name}.position_embedding.weight"])
    x = _norm(ops, tensors, "vision_model.pre_layrnorm", x, tower)
    x = _blocks(ops, tensors, "vision_model", x, tower, causal=False)
    return _norm(ops, tensors, "vision_model.post_layernorm", ops.first(x), tower)


def _resnet(ops: Ops[T], tensors: Tensors, pixels: T, tower: ResNetConfig) -> T:
    def convolution(name: str, x: T, how: Convolution) -> T:
        return ops.convolution(x, tensors[f"{name}.weight"], tensors[f"{name}.bias"], how)

    x = ops.max_pool(ops.relu(convolution(RESNET_STEM, ops.maps(pixels), tower.stem)))
    for stage, blocks in enumerate(tower.stages()):
        for place, block in enumerate(blocks):
            name, y = resnet_block(stage, place), x
            for layer, how in enumerate(block.convolutions):
                y = ops.relu(y) if layer else y
                y = convolution(f"{name}.layer.{layer}.convolution", y, how)
            if block.shortcut is not None:
                x = convolution(f"{name}.shortcut.convolution", x, block.shortcut)
            x = ops.relu(ops.add(x, y))
    return ops.mean(x)


def _bert(ops: Ops[T], tensors: Tensors, tokens: T, seen: T, tower: BertConfig) -> T:
    name = "text_model.embeddings"
    x = ops.lookup(tensors[f"{name}.word_embeddings.weight"], tokens)
    x = ops.positioned(x, tensors[f"{name}.position_embeddings.weight"])
    x = _norm(ops, tensors, f"{name}.LayerNorm", x, tower)
    for layer in range(tower.layers):
        name = f"text_model.encoder.layer.{layer}"
        query, key, value = (
            _linear(ops, tensors, f"{name}.attention.self.{part}", x)
            for part in ("query", "key", "value")
        )
        y = ops.attention(query, key, value, heads=tower.heads, seen=seen)
        y = _linear(ops, tensors, f"{name}.attention.output.dense", y)
        x = _norm(ops, tensors, f"{name}.attention.output.LayerNorm", ops.add(x, y), tower)
        y = _linear(ops, tensors, f"{name}.intermediate.dense", x)
        y = _linear(ops, tensors, f"{name}.output.dense", ops.activate(y, tower.activation))
        x = _norm(ops, tensors, f"{name}.output.LayerNorm", ops.add(x, y), tower)
    return ops.mean_of(x, seen)


def _blocks(
    ops: Ops[T], tensors: Tensors, model: str, x: T, tower: TowerConfig, *, causal: bool
) -> T:
    for layer in range(tower.layers):
        name = f"{model}.encoder.layers.{layer}"
        y = _norm(ops, tensors, f"{name}.layer_norm1", x, tower)
        query, key, value = (
            _linear(ops, tensors, f"{name}.self_attn.{one}_proj", y) for one in "qkv"
        )
        y = ops.attention(query, key, value, heads=tower.heads, causal=causal)
        x = ops.add(x, _linear(ops, tensors, f"{name}.self_attn.out_proj", y))
        y = _norm(ops, tensors, f"{name}.layer_norm2", x, tower)
        y = ops.activate(_linear(ops, tensors, f"{name}.mlp.fc1", y), tower.activation)
        x = ops.add(x, _linear(ops, tensors, f"{name}.mlp.fc2", y))
    return x


def _linear(ops: Ops[T], tensors: Tensors, name: str, x: T) -> T:
    return ops.linear(x, tensors[f"{name}.weight"], tensors[f"{name}.bias"])


def _norm(ops: Ops[T], tensors: Tensors, name: str, x: T, tower: TowerConfig | BertConfig) -> T:
    return ops.layer_norm(x, tensors[f"{name}.weight"], tensors[f"{name}.bias"], tower.eps)
