"""Shapes of open_clip models, from `open_clip_config.json` or a checkpoint's tensors alone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from rsicd_embed.embedder.clip.config import (
    Activation,
    BertConfig,
    ClipConfig,
    TowerConfig,
    hf_architecture,
)
from rsicd_embed.embedder.clip.resnet_config import ResNetConfig
from rsicd_embed.errors import ModelError

Tensors = Mapping[str, np.ndarray]

FILE = "open_clip_config.json"
HEAD_WIDTH = 64
# Widths of image towers whose heads have another width: ViT-H/14, g/14 and bigG/14.
_HEADS = {1280: 16, 1408: 16, 1664: 16}
_BOTTLENECK = 4

# Settings of open_clip for architectures that are not supported, and the values that turn them off.
_VISION_OFF: dict[str, tuple[Any, ...]] = {
    "ls_init_value": (None,),
    "attentional_pool": (False,),
    "no_ln_pre": (False,),
    "pos_embed_type": ("learnable",),
    "final_ln_after_pool": (False,),
    "pool_type": ("tok",),
    "act_kwargs": (None, {}),
    "norm_kwargs": (None, {}),
    "block_type": (None, "default"),
    "timm_model_name": (None,),
}
_TEXT_OFF: dict[str, tuple[Any, ...]] = {
    "ls_init_value": (None,),
    "embed_cls": (False,),
    "no_causal_mask": (False,),
    "final_ln_after_pool": (False,),
    "pool_type": ("argmax",),
    "proj_bias": (False,),
    "proj_type": ("linear",),
    "act_kwargs": (None, {}),
    "norm_kwargs": (None, {}),
    "block_type": (None, "default"),
    "tokenizer_mode": (None, ""),
}
_BLOCK_OFF: dict[str, tuple[Any, ...]] = dict.fromkeys(
    ("qk_norm", "scaled_cosine_attn", "scale_heads", "scale_attn_inner", "scale_attn", "scale_fc"),
    (False,),
)
_POOLERS = {"mean_pooler": "mean", "cls_last_hidden_state_pooler": "first"}
_ROBERTA_FIRST = 2  # the row of the first token's position embedding


def from_config(content: Mapping[str, Any], tensors: Tensors) -> ClipConfig:
    """Reads the content of an `open_clip_config.json`.

    Args:
        content: the file; either with `model_cfg`, or just that.
        tensors: the checkpoint, for the sizes of a Hugging Face text tower.

    Raises:
        ModelError: the model has another architecture, or a value is invalid.
    """
    model = _object(content, "model_cfg") if "model_cfg" in content else content
    vision, text = _object(model, "vision_cfg"), _object(model, "text_cfg")
    _require_off(vision, "vision_cfg", _VISION_OFF | _BLOCK_OFF)
    _require_off(text, "text_cfg", _TEXT_OFF | _BLOCK_OFF)
    activation: Activation = "quick_gelu" if model.get("quick_gelu", False) else "gelu"
    dim, size = _whole(model, "embed_dim", None), _side(vision)
    tower = _vision(vision, dim, size, activation)
    context = _whole(text, "context_length", 77)
    if text.get("hf_model_name"):
        text_tower: TowerConfig | BertConfig = _bert(text, tensors, context)
        vocab_size = len(tensors["text.transformer.embeddings.word_embeddings.weight"])
    else:
        width = _whole(text, "width", 512)
        text_tower = TowerConfig(
            width,
            _whole(text, "layers", 12),
            _whole(text, "heads", 8),
            int(width * text.get("mlp_ratio", 4.0)),
            activation,
        )
        vocab_size = _whole(text, "vocab_size", 49408)
    return ClipConfig(
        vision=tower,
        text=text_tower,
        dim=dim,
        image_size=size,
        patch_size=0 if isinstance(tower, ResNetConfig) else _whole(vision, "patch_size", 16),
        vocab_size=vocab_size,
        context_length=context,
        eos_token_id=vocab_size - 1 if isinstance(text_tower, TowerConfig) else 2,
    )


def from_tensors(tensors: Tensors, activation: Activation) -> ClipConfig:
    """Infers the shape of a model from open_clip's or OpenAI's tensors.

    Raises:
        ModelError: the tensors have another architecture or are incomplete.
    """

    def shape(name: str, axes: int) -> tuple[int, ...]:
        size = tensors[name].shape if name in tensors else tensors[f"text.{name}"].shape
        if len(size) != axes:
            raise ModelError(f"expected {name} with {axes} axes, found shape {size}")
        return size

    try:
        if "text.transformer.embeddings.word_embeddings.weight" in tensors:
            raise ModelError(
                "the file has a Hugging Face text tower, whose heads and pooling are in "
                f"{FILE}; pass a folder that has both"
            )
        vocab_size, width = shape("token_embedding.weight", 2)
        dim = shape("text_projection", 2)[1]
        context = shape("positional_embedding", 2)[0]
        blocks = "transformer.resblocks"
        text = TowerConfig(
            width,
            _layers(tensors, rf"(?:text\.)?{blocks}\.(\d+)\."),
            max(1, width // HEAD_WIDTH),
            shape(f"{blocks}.0.mlp.c_fc.weight", 2)[0],
            activation,
        )
        vision: TowerConfig | ResNetConfig
        if "visual.layer1.0.conv1.weight" in tensors:
            vision, size, patch = *_resnet(tensors, shape), 0
        else:
            width, _, patch, _ = shape("visual.conv1.weight", 4)
            positions = shape("visual.positional_embedding", 2)[0]
            size = round((positions - 1) ** 0.5) * patch
            vision = TowerConfig(
                width,
                _layers(tensors, rf"visual\.{blocks}\.(\d+)\."),
                _HEADS.get(width, max(1, width // HEAD_WIDTH)),
                shape(f"visual.{blocks}.0.mlp.c_fc.weight", 2)[0],
                activation,
            )
    except KeyError as error:
        name = str(error.args[0]).removeprefix("text.")
        raise ModelError(
            f"the checkpoint lacks {name}, which every CLIP of open_clip has: it is incomplete, or "
            "another kind of model"
        ) from error
    return ClipConfig(vision, text, dim, size, patch, vocab_size, context, vocab_size - 1)


def _resnet(tensors: Tensors, shape: Any) -> tuple[ResNetConfig, int]:
    width = shape("visual.conv3.weight", 4)[0]
    depths = tuple(_layers(tensors, rf"visual\.layer{stage}\.(\d+)\.") for stage in range(1, 5))
    positions = shape("visual.attnpool.positional_embedding", 2)[0]
    return modified_resnet(width, depths), round((positions - 1) ** 0.5) * 32


def modified_resnet(width: int, depths: tuple[int, ...]) -> ResNetConfig:
    """CLIP's ResNet with a stem of `width` channels; its heads are 64 wide, as in all of them."""
    return ResNetConfig(
        widths=tuple(width * _BOTTLENECK * 2**stage for stage in range(4)),
        depths=depths,
        stem_width=width,
        bottleneck=True,
        attention_heads=max(1, width * 32 // HEAD_WIDTH),
    )


def _layers(tensors: Tensors, pattern: str) -> int:
    numbers = {int(match[1]) for name in tensors if (match := re.match(pattern, name))}
    return max(numbers, default=0) + 1


def _vision(
    vision: Mapping[str, Any], dim: int, size: int, activation: Activation
) -> TowerConfig | ResNetConfig:
    layers, width = vision.get("layers", 12), _whole(vision, "width", 768)
    if isinstance(layers, list):
        return modified_resnet(width, tuple(int(depth) for depth in layers))
    return TowerConfig(
        width,
        _whole(vision, "layers", 12),
        width // _whole(vision, "head_width", HEAD_WIDTH),
        int(width * vision.get("mlp_ratio", 4.0)),
        activation,
    )


def _bert(text: Mapping[str, Any], tensors: Tensors, context: int) -> BertConfig:
    """A Hugging Face text tower; its sizes are those of the tensors."""
    name, pooler = str(text["hf_model_name"]), text.get("hf_pooler_type", "mean_pooler")
    family = name.lower()
    if "bert" not in family or any(kind in family for kind in ("distil", "albert", "deberta")):
        raise ModelError(f"{FILE}: expected a BERT, RoBERTa or XLM-R text tower, found {name}")
    if pooler not in _POOLERS:
        raise ModelError(f"{FILE}: expected a pooler of {', '.join(_POOLERS)}, found {pooler!r}")
    try:
        embeddings = "text.transformer.embeddings"
        width = tensors[f"{embeddings}.word_embeddings.weight"].shape[1]
        rows = len(tensors[f"{embeddings}.position_embeddings.weight"])
        mlp_width = len(tensors["text.transformer.encoder.layer.0.intermediate.dense.weight"])
    except KeyError as error:
        raise ModelError(f"the checkpoint lacks {error.args[0]}, a part of {name}") from error
    roberta = "roberta" in family
    available = rows - (_ROBERTA_FIRST if roberta else 0)
    if context > available:
        raise ModelError(f"{FILE}: expected a context of at most {available}, found {context}")
    hidden = tensors.get("text.proj.0.weight")
    return BertConfig(
        width,
        _layers(tensors, r"text\.transformer\.encoder\.layer\.(\d+)\."),
        max(1, width // HEAD_WIDTH),
        mlp_width,
        eps=1e-5 if roberta else 1e-12,
        pad_token_id=1 if roberta else 0,
        pooling="mean" if pooler == "mean_pooler" else "first",
        projection_width=0 if hidden is None else len(hidden),
    )


def to_config(config: ClipConfig) -> dict[str, Any]:
    """The `model_cfg` of an `open_clip_config.json`, which open_clip can build.

    Raises:
        ModelError: open_clip has no such architecture.
    """
    vision: dict[str, Any] = {"image_size": config.image_size}
    if isinstance(config.vision, ResNetConfig):
        expected = modified_resnet(config.vision.stem_width, config.vision.depths)
        if config.vision != expected:
            raise ModelError(f"open_clip has no such ResNet: {config.vision}")
        vision |= {"layers": list(config.vision.depths), "width": config.vision.stem_width}
    else:
        vision |= _tower(config.vision) | {"patch_size": config.patch_size}
        vision["head_width"] = config.vision.width // config.vision.heads
    if config.siglip:
        raise ModelError(f"open_clip has no such model: {config}")
    text: dict[str, Any] = {"context_length": config.context_length}
    if isinstance(config.text, BertConfig):
        size = "large" if config.text.width > 768 else "base"
        name = f"xlm-roberta-{size}" if config.text.pad_token_id else f"bert-{size}-uncased"
        poolers = {pooling: pooler for pooler, pooling in _POOLERS.items()}
        text |= {
            "hf_model_name": name,
            "hf_tokenizer_name": name,
            "hf_model_pretrained": False,
            "hf_pooler_type": poolers[config.text.pooling],
            "hf_proj_type": "mlp" if config.text.projection_width else "linear",
        }
    else:
        text |= _tower(config.text) | {"heads": config.text.heads, "vocab_size": config.vocab_size}
    activations = {
        tower.activation for tower in (config.vision, config.text) if isinstance(tower, TowerConfig)
    }
    if activations - {"gelu", "quick_gelu"} or len(activations) > 1:
        raise ModelError(f"open_clip has no such model: {config}")
    quick = {"quick_gelu": True} if "quick_gelu" in activations else {}
    return {"embed_dim": config.dim, **quick, "vision_cfg": vision, "text_cfg": text}


def has_architecture(config: ClipConfig) -> bool:
    """Whether open_clip has a model that transformers does not have."""
    try:
        to_config(config)
    except ModelError:
        return False
    return hf_architecture(config) is None


def _tower(tower: TowerConfig) -> dict[str, Any]:
    ratio = tower.mlp_width / tower.width
    return {"width": tower.width, "layers": tower.layers, "mlp_ratio": ratio}


def _object(content: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = content.get(name)
    if not isinstance(value, Mapping):
        raise ModelError(f"{FILE}: expected {name} to be an object, found {value!r}")
    return value


def _whole(content: Mapping[str, Any], name: str, default: int | None) -> int:
    value = content.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ModelError(f"{FILE}: expected {name} to be a whole number above 0, found {value!r}")
    return value


def _side(vision: Mapping[str, Any]) -> int:
    value = vision.get("image_size", 224)
    sides = value if isinstance(value, list) and value else [value]
    if len(set(sides)) != 1:
        raise ModelError(f"{FILE}: expected square images, found image_size {value}")
    return _whole({"image_size": sides[0]}, "image_size", None)


def _require_off(
    content: Mapping[str, Any], section: str, settings: Mapping[str, tuple[Any, ...]]
) -> None:
    for name, off in settings.items():
        if name in content and content[name] not in off:
            raise ModelError(
                f"{FILE}: {section}: {name} {content[name]!r} belongs to an architecture that is "
                "not supported; export the model to the Hugging Face layout if it has one there"
            )
