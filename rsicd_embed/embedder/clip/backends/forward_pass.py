"""CLIP's forward pass over any array library, for inference from a checkpoint's tensors.

It computes the same as `clip.model`, which is used for training; tests compare both with the
reference. Axes: b images or texts, t tokens or patches, w width, d joint dimensions. The axes of a
ResNet's maps, of b images and c channels, are in the order that the library prefers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Protocol, TypeVar

import numpy as np

from rsicd_embed.embedder.clip.config import (
    LEGACY_EOS_TOKEN_ID,
    BertConfig,
    ClipConfig,
    TowerConfig,
)
from rsicd_embed.embedder.clip.resnet_config import Convolution, Residual, ResNetConfig
from rsicd_embed.embedder.clip.tensors import (
    ATTENTION_POOL,
    PROBE,
    resnet_block,
    resnet_stem,
)
from rsicd_embed.embedder.preprocess import Preprocessor

Tensors = Mapping[str, np.ndarray]
_POST_NORM = "vision_model.post_layernorm"
T = TypeVar("T")


class Ops(Protocol[T]):
    """The operations of a CLIP; T is the array type of a library."""

    def add(self, x: T, y: T) -> T:
        """The sum x + y."""
        ...

    def normalise(self, pixels: T, preprocessor: Preprocessor) -> T:
        """Normalises uint8 (b, h, w, 3) as `Preprocessor.normalise` does."""
        ...

    def patches(self, pixels: T, weight: np.ndarray) -> T:
        """Embeds the patches of (b, h, w, 3) with a kernel (w, 3, side, side): (b, patches, w)."""
        ...

    def positioned(self, x: T, positions: np.ndarray) -> T:
        """Adds the first t rows of `positions` to (b, t, w)."""
        ...

    def prepend(self, x: T, token: np.ndarray) -> T:
        """Prepends `token` (w,) to (b, t, w): (b, t + 1, w)."""
        ...

    def lookup(self, table: np.ndarray, tokens: T) -> T:
        """Gathers rows of `table` (n, w) by int32 (b, t): (b, t, w)."""
        ...

    def repeat(self, token: np.ndarray, x: T) -> T:
        """Repeats `token` (w,) for every item of `x` (b, t, w): (b, 1, w)."""
        ...

    def with_mean(self, x: T) -> T:
        """Prepends the mean over t to (b, t, w): (b, t + 1, w)."""
        ...

    def at(self, x: T, places: T) -> T:
        """Selects from (b, t, w) one position per row, given by int32 (b,): (b, w)."""
        ...

    def first(self, x: T) -> T:
        """Selects the first position of (b, t, w): (b, w)."""
        ...

    def linear(self, x: T, weight: np.ndarray, bias: np.ndarray | None) -> T:
        """Multiplies (…, in) by the transpose of `weight` (out, in) and adds `bias`: (…, out)."""
        ...

    def layer_norm(self, x: T, weight: np.ndarray, bias: np.ndarray, eps: float) -> T:
        """Normalises the last axis to mean 0 and variance 1, then scales and shifts it."""
        ...

    def attention(
        self, query: T, key: T, value: T, *, heads: int, causal: bool = False, seen: T | None = None
    ) -> T:
        """Multi-head attention of (b, q, w) over (b, t, w), scaled by a head's width's square root.

        With `seen`, floats (b, t), positions with 0 are masked.
        """
        ...

    def mean_of(self, x: T, seen: T) -> T:
        """Averages (b, t, w) over the positions whose `seen`, floats (b, t), is 1: (b, w)."""
        ...

    def activate(self, x: T, name: str) -> T:
        """Applies a `config.Activation`."""
        ...

    def maps(self, pixels: T) -> T:
        """Converts floats (b, h, w, 3) to maps with three channels."""
        ...

    def convolution(self, x: T, weight: np.ndarray, bias: np.ndarray, shape: Convolution) -> T:
        """Convolves maps with kernels (out, in, side, side) and adds `bias` (out,)."""
        ...

    def relu(self, x: T) -> T:
        """Sets negative values to 0."""
        ...

    def max_pool(self, x: T) -> T:
        """3×3 max-pooling with stride 2 and padding that never wins."""
        ...

    def average_pool(self, x: T, side: int) -> T:
        """Averages squares of maps, without overlap."""
        ...

    def positions(self, x: T) -> T:
        """Flattens maps, row by row: (b, positions, c)."""
        ...

    def mean(self, x: T) -> T:
        """Averages maps over all positions: (b, c)."""
        ...

    def unit(self, x: T) -> T:
        """L2-normalises (b, d)."""
        ...


def image_vectors(
    ops: Ops[T], config: ClipConfig, tensors: Tensors, preprocessor: Preprocessor, pixels: T
) -> T:
    """Embeds images uint8 (b, side, side, 3) as unit vectors (b, d)."""
    if isinstance(config.vision, ResNetConfig):
        maps = first_maps(ops, config.vision, tensors, preprocessor, pixels)
        return vectors_of_maps(ops, config.vision, tensors, maps)
    x = ops.normalise(pixels, preprocessor)
    x = _vit(ops, tensors, x, config.vision, siglip=config.siglip)
    return ops.unit(x if config.siglip else _project(ops, tensors, "visual_projection", x))


def first_maps(
    ops: Ops[T], tower: ResNetConfig, tensors: Tensors, preprocessor: Preprocessor, pixels: T
) -> T:
    """Maps of images uint8 (b, h, w, 3) after the first block of a ResNet.

    Their sides are a quarter of the image's. Rounding before them costs most of the precision: see
    docs/models.md.
    """
    x = ops.maps(ops.normalise(pixels, preprocessor))
    for name, shape in zip(resnet_stem(tower), tower.stem, strict=True):
        x = ops.relu(_convolution(ops, tensors, name, x, shape))
    x = ops.average_pool(x, 2) if tower.attention_heads else ops.max_pool(x)
    name, block = next(_blocks_of(tower))
    return _residual(ops, tensors, name, x, block)


def vectors_of_maps(ops: Ops[T], tower: ResNetConfig, tensors: Tensors, x: T) -> T:
    """Unit vectors (b, d) from `first_maps`."""
    for name, block in islice(_blocks_of(tower), 1, None):
        x = _residual(ops, tensors, name, x, block)
    x = _attention_pool(ops, tensors, x, tower) if tower.attention_heads else ops.mean(x)
    return ops.unit(_project(ops, tensors, "visual_projection", x))


def text_vectors(ops: Ops[T], config: ClipConfig, tensors: Tensors, tokens: T, pooled: T) -> T:
    """Embeds tokens int32 (b, t) with their `pooled_positions` as unit vectors (b, d)."""
    if isinstance(config.text, BertConfig):
        x = _bert(ops, tensors, tokens, pooled, config.text)
    else:
        name = "text_model.embeddings"
        x = ops.lookup(tensors[f"{name}.token_embedding.weight"], tokens)
        x = ops.positioned(x, tensors[f"{name}.position_embedding.weight"])
        x = _blocks(ops, tensors, "text_model", x, config.text, causal=not config.siglip)
        x = _norm(ops, tensors, "text_model.final_layer_norm", ops.at(x, pooled), config.text)
    if "text_projection.0.weight" in tensors:
        x = ops.activate(_project(ops, tensors, "text_projection.0", x), "gelu")
        return ops.unit(_project(ops, tensors, "text_projection.2", x))
    return ops.unit(_project(ops, tensors, "text_projection", x))


def pooled_positions(config: ClipConfig, tokens: np.ndarray) -> np.ndarray:
    """The positions at which the features of texts are pooled, from tokens int32 (b, t).

    Returns:
        For CLIP's text tower int32 (b,), the position of the end token (see
        `LEGACY_EOS_TOKEN_ID`), for SigLIP's that of the last token; for a BERT float32 (b, t), 1
        for tokens and 0 for padding.
    """
    if config.siglip:
        return np.full(len(tokens), tokens.shape[1] - 1, np.int32)
    if isinstance(config.text, BertConfig):
        seen: np.ndarray = (tokens != config.text.pad_token_id).astype(np.float32)
        return seen
    legacy = config.eos_token_id == LEGACY_EOS_TOKEN_ID
    ends: np.ndarray = np.argmax(tokens if legacy else tokens == config.eos_token_id, axis=1)
    return ends.astype(np.int32)


def _vit(ops: Ops[T], tensors: Tensors, pixels: T, tower: TowerConfig, *, siglip: bool) -> T:
    name = "vision_model.embeddings"
    x = ops.patches(pixels, tensors[f"{name}.patch_embedding.weight"])
    if siglip:
        x = ops.positioned(x, tensors[f"{name}.patch_embedding.bias"][None])
        x = ops.positioned(x, tensors[f"{name}.position_embedding.weight"])
        x = _blocks(ops, tensors, "vision_model", x, tower, causal=False)
        return _attention_head(ops, tensors, _norm(ops, tensors, _POST_NORM, x, tower), tower)
    x = ops.prepend(x, tensors[f"{name}.class_embedding"])
    x = ops.positioned(x, tensors[f"{name}.position_embedding.weight"])
    x = _norm(ops, tensors, "vision_model.pre_layrnorm", x, tower)
    x = _blocks(ops, tensors, "vision_model", x, tower, causal=False)
    return _norm(ops, tensors, _POST_NORM, ops.first(x), tower)


def _attention_head(ops: Ops[T], tensors: Tensors, x: T, tower: TowerConfig) -> T:
    name = "vision_model.head"
    attention = f"{name}.self_attn"
    query = _linear(ops, tensors, f"{attention}.q_proj", ops.repeat(tensors[PROBE], x))
    key, value = (_linear(ops, tensors, f"{attention}.{part}_proj", x) for part in "kv")
    y = ops.first(ops.attention(query, key, value, heads=tower.heads))
    x = _linear(ops, tensors, f"{attention}.out_proj", y)
    y = _linear(ops, tensors, f"{name}.mlp.fc1", _norm(ops, tensors, f"{name}.layernorm", x, tower))
    return ops.add(x, _linear(ops, tensors, f"{name}.mlp.fc2", ops.activate(y, tower.activation)))


def _blocks_of(tower: ResNetConfig) -> Iterator[tuple[str, Residual]]:
    for stage, blocks in enumerate(tower.stages()):
        for place, block in enumerate(blocks):
            yield resnet_block(stage, place), block


def _residual(ops: Ops[T], tensors: Tensors, name: str, x: T, block: Residual) -> T:
    y = x
    for layer, shape in enumerate(block.convolutions):
        y = ops.relu(y) if layer else y
        y = _convolution(ops, tensors, f"{name}.layer.{layer}.convolution", y, shape)
    if block.shortcut is not None:
        x = _convolution(ops, tensors, f"{name}.shortcut.convolution", x, block.shortcut)
    return ops.relu(ops.add(x, y))


def _convolution(ops: Ops[T], tensors: Tensors, name: str, x: T, shape: Convolution) -> T:
    x = x if shape.pool == 1 else ops.average_pool(x, shape.pool)
    return ops.convolution(x, tensors[f"{name}.weight"], tensors[f"{name}.bias"], shape)


def _attention_pool(ops: Ops[T], tensors: Tensors, x: T, tower: ResNetConfig) -> T:
    x = ops.with_mean(ops.positions(x))
    x = ops.positioned(x, tensors[f"{ATTENTION_POOL}.position_embedding.weight"])
    query, key, value = (
        _linear(ops, tensors, f"{ATTENTION_POOL}.{part}_proj", x) for part in "qkv"
    )
    return ops.first(ops.attention(query, key, value, heads=tower.attention_heads))


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
    return ops.mean_of(x, seen) if tower.pooling == "mean" else ops.first(x)


def _blocks(
    ops: Ops[T], tensors: Tensors, model: str, x: T, tower: TowerConfig, *, causal: bool
) -> T:
    for layer in range(tower.layers):
        name = f"{model}.encoder.layers.{layer}"
        y = _norm(ops, tensors, f"{name}.layer_norm1", x, tower)
        query, key, value = (
            _linear(ops, tensors, f"{name}.self_attn.{letter}_proj", y) for letter in "qkv"
        )
        y = ops.attention(query, key, value, heads=tower.heads, causal=causal)
        x = ops.add(x, _linear(ops, tensors, f"{name}.self_attn.out_proj", y))
        y = _norm(ops, tensors, f"{name}.layer_norm2", x, tower)
        y = ops.activate(_linear(ops, tensors, f"{name}.mlp.fc1", y), tower.activation)
        x = ops.add(x, _linear(ops, tensors, f"{name}.mlp.fc2", y))
    return x


def _project(ops: Ops[T], tensors: Tensors, name: str, x: T) -> T:
    return ops.linear(x, tensors[f"{name}.weight"], tensors.get(f"{name}.bias"))


def _linear(ops: Ops[T], tensors: Tensors, name: str, x: T) -> T:
    return ops.linear(x, tensors[f"{name}.weight"], tensors[f"{name}.bias"])


def _norm(ops: Ops[T], tensors: Tensors, name: str, x: T, tower: TowerConfig | BertConfig) -> T:
    return ops.layer_norm(x, tensors[f"{name}.weight"], tensors[f"{name}.bias"], tower.eps)
