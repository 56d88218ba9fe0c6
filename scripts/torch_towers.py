"""A ResNet and a BERT in PyTorch, from the tensors of a checkpoint, in parts that can be trained.

On a CPU that computes in bfloat16, PyTorch trains convolutions several times as fast as JAX.
Axes: b images or texts, c channels, t tokens, w width.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from rsicd_embed.embedder.clip.config import BertConfig
from rsicd_embed.embedder.clip.resnet_config import Convolution, ResNetConfig
from rsicd_embed.embedder.clip.tensors import RESNET_STEM, resnet_block

Tensors = Mapping[str, Tensor]


def resnet_stem(tensors: Tensors, tower: ResNetConfig, pixels: Tensor) -> Tensor:
    """Normalised pixels (b, 3, side, side) → maps before the first stage."""
    (stem,) = tower.stem
    x = functional.relu(convolution(tensors, RESNET_STEM, pixels, stem))
    return functional.max_pool2d(x, 3, stride=2, padding=1)


def resnet_stage(tensors: Tensors, tower: ResNetConfig, stage: int, x: Tensor) -> Tensor:
    """Applies a stage, counted from 0, to maps (b, c, h, w)."""
    for place, block in enumerate(list(tower.stages())[stage]):
        name, y = resnet_block(stage, place), x
        for layer, shape in enumerate(block.convolutions):
            y = functional.relu(y) if layer else y
            y = convolution(tensors, f"{name}.layer.{layer}.convolution", y, shape)
        if block.shortcut is not None:
            x = convolution(tensors, f"{name}.shortcut.convolution", x, block.shortcut)
        x = functional.relu(x + y)
    return x


def stage_names(tower: ResNetConfig, stage: int, names: Mapping[str, object]) -> list[str]:
    """Names of a stage's tensors among those of a checkpoint."""
    prefixes = tuple(f"{resnet_block(stage, place)}." for place in range(tower.depths[stage]))
    return [name for name in names if name.startswith(prefixes)]


def bert_embeddings(tensors: Tensors, tower: BertConfig, tokens: Tensor) -> Tensor:
    """Tokens (b, t) → the input (b, t, w) of the first layer."""
    name = "text_model.embeddings"
    x = functional.embedding(tokens, tensors[f"{name}.word_embeddings.weight"])
    x = x + tensors[f"{name}.position_embeddings.weight"][: tokens.shape[1]]
    return _norm(tensors, f"{name}.LayerNorm", x, tower)


def bert_layers(
    tensors: Tensors,
    tower: BertConfig,
    layers: range,
    x: Tensor,
    seen: Tensor,
    *,
    dropout: float = 0.0,
) -> Tensor:
    """Applies layers to (b, t, w); `seen`, bool (b, t), is False for padding."""
    for layer in layers:
        name = f"text_model.encoder.layer.{layer}"
        query, key, value = (
            _linear(tensors, f"{name}.attention.self.{part}", x)
            .unflatten(-1, (tower.heads, -1))
            .transpose(1, 2)
            for part in ("query", "key", "value")
        )
        y = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=seen[:, None, None, :]
        )
        y = _linear(tensors, f"{name}.attention.output.dense", y.transpose(1, 2).flatten(2))
        x = x + functional.dropout(y, dropout)
        x = _norm(tensors, f"{name}.attention.output.LayerNorm", x, tower)
        y = functional.gelu(_linear(tensors, f"{name}.intermediate.dense", x))
        y = functional.dropout(_linear(tensors, f"{name}.output.dense", y), dropout)
        x = _norm(tensors, f"{name}.output.LayerNorm", x + y, tower)
    return x


def pooled(x: Tensor, seen: Tensor) -> Tensor:
    """Mean of (b, t, w) over the tokens that are not padding, float32 (b, w)."""
    weight = seen.float()[..., None]
    return (x.float() * weight).sum(1) / weight.sum(1).clamp(min=1)


def convolution(tensors: Tensors, name: str, x: Tensor, shape: Convolution) -> Tensor:
    """A convolution of maps (b, c, h, h)."""
    weight, bias = tensors[f"{name}.weight"], tensors[f"{name}.bias"]
    if not weight.requires_grad:
        return functional.conv2d(x, weight, bias, stride=shape.stride, padding=shape.padding)
    # As a product, since PyTorch is slow to compute the gradient of a convolution on a CPU.
    around, steps = shape.padding, (x.shape[2] - 1) // shape.stride + 1
    padded = functional.pad(x.permute(0, 2, 3, 1), (0, 0, around, around, around, around))
    reach = shape.stride * (steps - 1) + 1
    windows = [
        padded[:, i : i + reach : shape.stride, j : j + reach : shape.stride]
        for i in range(shape.side)
        for j in range(shape.side)
    ]
    rows = torch.cat(windows, dim=-1)
    y = functional.linear(rows.flatten(0, 2), weight.permute(0, 2, 3, 1).flatten(1), bias)
    return y.unflatten(0, rows.shape[:3]).permute(0, 3, 1, 2)


def _linear(tensors: Tensors, name: str, x: Tensor) -> Tensor:
    return functional.linear(x, tensors[f"{name}.weight"], tensors[f"{name}.bias"])


def _norm(tensors: Tensors, name: str, x: Tensor, tower: BertConfig) -> Tensor:
    weight, bias = tensors[f"{name}.weight"], tensors[f"{name}.bias"]
    return functional.layer_norm(x.float(), (tower.width,), weight, bias, tower.eps)


def by_name(tensors: Mapping[str, object]) -> dict[str, Tensor]:
    """NumPy tensors as PyTorch's, with kernels in the layout that is fast on a CPU."""
    copies = {name: torch.tensor(tensor) for name, tensor in tensors.items()}
    return {
        name: t.contiguous(memory_format=torch.channels_last) if t.ndim == 4 else t
        for name, t in copies.items()
    }
