"""Tables of tensor names: where each tensor of `tensors.shapes` is stored in a format."""

from __future__ import annotations

import re

import numpy as np

from rsicd_embed.embedder.clip.config import BertConfig, ClipConfig
from rsicd_embed.embedder.clip.formats.rules import (
    FoldedConvolution,
    Fused,
    LongPositions,
    Naming,
    Plain,
    Positions,
    Rule,
    Tensors,
)
from rsicd_embed.embedder.clip.tensors import ATTENTION_POOL, PROBE, shapes

# Canonical names and open_clip's, without the prefix of the tower.
_BLOCK = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "self_attn.out_proj": "attn.out_proj",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}
_OPEN_CLIP = {
    "vision_model.embeddings.class_embedding": "visual.class_embedding",
    "vision_model.embeddings.patch_embedding.weight": "visual.conv1.weight",
    "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
    "vision_model.pre_layrnorm.weight": "visual.ln_pre.weight",
    "vision_model.pre_layrnorm.bias": "visual.ln_pre.bias",
    "vision_model.post_layernorm.weight": "visual.ln_post.weight",
    "vision_model.post_layernorm.bias": "visual.ln_post.bias",
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.final_layer_norm.weight": "ln_final.weight",
    "text_model.final_layer_norm.bias": "ln_final.bias",
    f"{ATTENTION_POOL}.position_embedding.weight": "visual.attnpool.positional_embedding",
    "logit_scale": "logit_scale",
}
_PROJECTIONS = {
    "visual_projection.weight": "visual.proj",
    "text_projection.weight": "text_projection",
}
_LONG = "positional_embedding_res"
_PARTS = {"q_proj": 0, "k_proj": 1, "v_proj": 2}
_SPLIT = re.compile(r"(?P<module>.+)\.self_attn\.(?P<part>[qkv]_proj)\.(?P<leaf>weight|bias)")
_LAYER = re.compile(
    r"(?P<tower>vision|text)_model\.encoder\.layers\.(?P<n>\d+)\.(?P<module>.+)\.(?P<leaf>\w+)"
)
_STEM = re.compile(r"vision_model\.embedder\.embedder\.(\d+)\.convolution\.(weight|bias)")
_STAGE = re.compile(
    r"vision_model\.encoder\.stages\.(\d+)\.layers\.(\d+)\.(layer\.(\d+)|shortcut)"
    r"\.convolution\.(weight|bias)"
)


def open_clip(config: ClipConfig, names: Tensors | None = None) -> Naming:
    """open_clip's and OpenAI's names.

    Args:
        config: the model.
        names: the tensors of a checkpoint, which may have the text tower below `text.` and
            Long-CLIP's position embeddings; None for those that open_clip itself writes.
    """
    bert = config.text if isinstance(config.text, BertConfig) else None
    nested = bool(bert) or (names is not None and any(n.startswith("text.") for n in names))
    prefix = "text." if nested else ""

    def named(name: str) -> Rule:
        if name.startswith("text_projection") and bert:
            return Plain(name.replace("text_projection", "text.proj"))
        if bert and name.startswith("text_model."):
            return _bert(name.replace("text_model.", "text.transformer."), bert)
        if name in _PROJECTIONS and not (config.image_bias and name.startswith("visual")):
            stored = _PROJECTIONS[name]
            return Plain(prefix + stored if name.startswith("text") else stored, transposed=True)
        if name.startswith("visual_projection."):
            return Plain(name.replace("visual_projection", "visual.attnpool.c_proj"))
        if name in _OPEN_CLIP:
            stored = _OPEN_CLIP[name]
            if stored == "positional_embedding" and names is not None and prefix + _LONG in names:
                return LongPositions(prefix + stored, prefix + _LONG)
            return Plain(prefix + stored if name.startswith("text_model.") else stored)
        if name.startswith(ATTENTION_POOL):
            return Plain(name.replace(ATTENTION_POOL, "visual.attnpool"))
        if match := _STEM.fullmatch(name):
            n = int(match[1]) + 1
            return FoldedConvolution(f"visual.conv{n}", f"visual.bn{n}", match[2] == "bias")
        if match := _STAGE.fullmatch(name):
            block = f"visual.layer{int(match[1]) + 1}.{match[2]}"
            n = int(match[4] or 0) + 1
            convolution, norm = (
                (f"{block}.conv{n}", f"{block}.bn{n}")
                if match[4]
                else (f"{block}.downsample.0", f"{block}.downsample.1")
            )
            return FoldedConvolution(convolution, norm, match[5] == "bias")
        layer = _LAYER.fullmatch(name)
        if layer is None:
            return Plain(name)
        tower = "visual." if layer["tower"] == "vision" else prefix
        block = f"{tower}transformer.resblocks.{layer['n']}"
        part = layer["module"].removeprefix("self_attn.")
        if part in _PARTS:
            return Fused(f"{block}.attn.in_proj_{layer['leaf']}", _PARTS[part])
        return Plain(f"{block}.{_BLOCK[layer['module']]}.{layer['leaf']}")

    return named


def _bert(name: str, bert: BertConfig) -> Rule:
    embeddings = "text.transformer.embeddings"
    if name == f"{embeddings}.position_embeddings.weight":
        # RoBERTa counts positions from the padding's id, 1.
        first, rows = (bert.pad_token_id + 1, 514) if bert.pad_token_id else (0, 512)
        return Positions(name, f"{embeddings}.token_type_embeddings.weight", first, rows)
    return Plain(name)


def siglip(name: str) -> Rule:
    """Names of transformers' SiglipModel."""
    if name in ("logit_scale", "logit_bias"):
        return Plain(name, axes=1)
    if name == PROBE:
        return Plain(name, axes=2)
    match = _SPLIT.fullmatch(name)
    if match and match["module"] == "vision_model.head":
        return Fused(f"{match['module']}.attention.in_proj_{match['leaf']}", _PARTS[match["part"]])
    name = name.replace("vision_model.head.self_attn", "vision_model.head.attention")
    return Plain(name.replace("text_projection", "text_model.head"))


def transformers(config: ClipConfig, names: Tensors | None = None) -> Naming:
    """Names in a directory of the Hugging Face layout, or open_clip's if the file has those."""
    if names is not None and not config.siglip and "visual.conv1.weight" in names:
        return open_clip(config, names)
    return siglip if config.siglip else Plain


def write(config: ClipConfig, naming: Naming, tensors: Tensors) -> dict[str, np.ndarray]:
    """Converts tensors by canonical name to those of a format."""
    parts: dict[str, list[np.ndarray]] = {}
    for name in shapes(config):
        for stored, array in naming(name).write(tensors[name]).items():
            parts.setdefault(stored, []).append(array)
    return {
        name: np.concatenate(arrays) if len(arrays) > 1 else np.array(arrays[0], order="C")
        for name, arrays in parts.items()
    }
