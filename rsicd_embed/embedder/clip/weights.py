"""Conversion between parameters of `model.Clip` and tensors of a Hugging Face checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import jax.numpy as jnp
import numpy as np
from flax import nnx

from rsicd_embed.embedder.clip.config import BertConfig, ClipConfig
from rsicd_embed.embedder.clip.model import Clip
from rsicd_embed.embedder.clip.tensors import ATTENTION_POOL, PROBE

# The parameters of `Clip`, and the path of one, such as ("image", "blocks", 0, "up", "bias").
Params: TypeAlias = "nnx.State[Any, Any]"
ParamPath: TypeAlias = tuple[Any, ...]

_TOWERS = {"image": "vision_model", "text": "text_model"}
_BLOCK = {
    ("norm1",): "layer_norm1",
    ("norm2",): "layer_norm2",
    ("attention", "query"): "self_attn.q_proj",
    ("attention", "key"): "self_attn.k_proj",
    ("attention", "value"): "self_attn.v_proj",
    ("attention", "out"): "self_attn.out_proj",
    ("up",): "mlp.fc1",
    ("down",): "mlp.fc2",
}
_BERT_LAYER = {
    ("attention", "query"): "attention.self.query",
    ("attention", "key"): "attention.self.key",
    ("attention", "value"): "attention.self.value",
    ("attention", "out"): "attention.output.dense",
    ("attention_norm",): "attention.output.LayerNorm",
    ("up",): "intermediate.dense",
    ("down",): "output.dense",
    ("output_norm",): "output.LayerNorm",
}
_TOWER = {
    ("image", "attention_pool", "query"): "attention_pool.q_proj",
    ("image", "attention_pool", "key"): "attention_pool.k_proj",
    ("image", "attention_pool", "value"): "attention_pool.v_proj",
    ("image", "head", "attention", "query"): "head.self_attn.q_proj",
    ("image", "head", "attention", "key"): "head.self_attn.k_proj",
    ("image", "head", "attention", "value"): "head.self_attn.v_proj",
    ("image", "head", "attention", "out"): "head.self_attn.out_proj",
    ("image", "head", "norm"): "head.layernorm",
    ("image", "head", "up"): "head.mlp.fc1",
    ("image", "head", "down"): "head.mlp.fc2",
    ("image", "norm_pre"): "pre_layrnorm",  # the reference's spelling
    ("image", "norm_post"): "post_layernorm",
    ("text", "norm_post"): "final_layer_norm",
    ("image", "patch_embed"): "embeddings.patch_embedding",
    ("image", "stem"): "embedder.embedder.convolution",
    ("text", "token_embed"): "embeddings.token_embedding",
}
_CONVOLUTIONS = ("patch_embed", "stem", "stages")
_WHOLE = {
    ("image", "class_embed"): "vision_model.embeddings.class_embedding",
    ("image", "position_embed"): "vision_model.embeddings.position_embedding.weight",
    ("text", "position_embed"): "text_model.embeddings.position_embedding.weight",
    ("image_projection", "kernel"): "visual_projection.weight",
    ("image_projection", "bias"): "visual_projection.bias",
    ("image", "head", "probe"): PROBE,
    ("image", "attention_pool", "position_embed"): f"{ATTENTION_POOL}.position_embedding.weight",
    ("text_projection", "kernel"): "text_projection.weight",
    ("text_projection", "bias"): "text_projection.bias",
    ("text_projection", "up", "kernel"): "text_projection.0.weight",
    ("text_projection", "down", "kernel"): "text_projection.2.weight",
    ("logit_scale",): "logit_scale",
    ("logit_bias",): "logit_bias",
}

# Names that differ for a BERT.
_BERT_TOWER = {
    ("text", "token_embed"): "embeddings.word_embeddings",
    ("text", "norm_pre"): "embeddings.LayerNorm",
}
_BERT_WHOLE = {("text", "position_embed"): "text_model.embeddings.position_embeddings.weight"}


@dataclass(frozen=True)
class _Entry:
    """Name and layout of a parameter in a checkpoint."""

    name: str
    layout: Literal["same", "linear", "conv"]

    def from_hf(self, tensor: np.ndarray) -> np.ndarray:
        if self.layout == "linear":
            return tensor.T  # (out, in) → (in, out)
        if self.layout == "conv":
            return tensor.transpose(2, 3, 1, 0)  # (out, in, h, w) → (h, w, in, out)
        return tensor

    def to_hf(self, tensor: np.ndarray) -> np.ndarray:
        if self.layout == "linear":
            return tensor.T
        if self.layout == "conv":
            return tensor.transpose(3, 2, 0, 1)
        return tensor


def _entry(path: ParamPath, *, bert: bool) -> _Entry:
    whole, modules = (_WHOLE | _BERT_WHOLE, _TOWER | _BERT_TOWER) if bert else (_WHOLE, _TOWER)
    if path in whole:
        return _Entry(whole[path], "linear" if path[-1] == "kernel" else "same")
    tower, leaf = path[0], path[-1]
    if path[1] == "blocks":
        module = f"encoder.layers.{path[2]}.{_BLOCK[path[3:-1]]}"
    elif path[1] == "layers":
        module = f"encoder.layer.{path[2]}.{_BERT_LAYER[path[3:-1]]}"
    elif path[:2] == ("image", "stem") and len(path) == 4:
        module = f"embedder.embedder.{path[2]}.convolution"
    elif path[1] == "stages":
        module = f"encoder.stages.{path[2]}.layers.{path[3]}.{_residual(path[4:-1])}.convolution"
    else:
        module = modules[path[:-1]]
    layout: Literal["same", "linear", "conv"] = "same"
    if leaf == "kernel":
        layout = "conv" if path[1] in _CONVOLUTIONS else "linear"
    kind = "bias" if leaf == "bias" else "weight"
    return _Entry(f"{_TOWERS[str(tower)]}.{module}.{kind}", layout)


def _residual(path: ParamPath) -> str:
    """("convolutions", 1) → layer.1, ("shortcut",) → shortcut."""
    return f"layer.{path[1]}" if path[0] == "convolutions" else str(path[0])


def _abstract(config: ClipConfig, dtype: Any = jnp.float32) -> Clip:
    """A model with parameter shapes but no values."""
    return nnx.eval_shape(lambda: Clip(config, dtype=dtype, rngs=nnx.Rngs(0)))


def params_from_hf(config: ClipConfig, tensors: Mapping[str, np.ndarray]) -> Params:
    """Converts the result of `tensors.checked` to float32 parameters of `Clip`."""
    paths = [path for path, _ in nnx.to_flat_state(nnx.state(_abstract(config)))]
    bert = isinstance(config.text, BertConfig)
    flat = []
    for path in paths:
        entry = _entry(path, bert=bert)
        flat.append((path, nnx.Param(jnp.asarray(entry.from_hf(tensors[entry.name])))))
    return nnx.from_flat_state(flat)


def params_to_hf(params: Params) -> dict[str, np.ndarray]:
    """Converts parameters of `Clip` to tensors by Hugging Face name, in their dtype."""
    tensors = {}
    flat = list(nnx.to_flat_state(params))
    bert = any(path[:2] == ("text", "layers") for path, _ in flat)
    for path, variable in flat:
        entry = _entry(path, bert=bert)
        # np.ascontiguousarray would turn a scalar into a vector.
        tensors[entry.name] = np.array(entry.to_hf(np.asarray(variable[...])), order="C")
    return tensors


def build(config: ClipConfig, params: Params, *, dtype: Any = jnp.float32) -> Clip:
    """Builds a model from `params` that computes in `dtype`, without initialising parameters."""
    model = _abstract(config, dtype)
    nnx.update(model, params)
    return model
