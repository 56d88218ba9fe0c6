"""The shape of a CLIP model, read from and written to a Hugging Face `config.json`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from rsicd_embed.embedder.clip import resnet_config
from rsicd_embed.embedder.clip.resnet_config import ResNetConfig
from rsicd_embed.errors import ModelError

Activation = Literal["quick_gelu", "gelu", "gelu_pytorch_tanh"]
"""CLIP's `x * sigmoid(1.702 x)`, the exact GELU, or its tanh approximation, which SigLIP uses."""
ACTIVATIONS: tuple[Activation, ...] = get_args(Activation)
Pooling = Literal["mean", "first"]

# Up to transformers 4.30 every CLIP config had 2 here, regardless of the tokenizer's end token. The
# text is then pooled at argmax(ids), which works because the end token has the highest id.
LEGACY_EOS_TOKEN_ID = 2

# `model_type` in config.json. transformers has none for a CLIP with a ResNet: its
# VisionTextDualEncoder cannot project the ResNet's features, which keep two axes of length one.
# Nor does it have one that averages a BERT's features.
_VIT = "clip"
_SIGLIP = "siglip"
_OTHER_TOWERS = "rsicd-embed-clip"
_VIT_TOWER = "clip_vision_model"  # `model_type` in vision_config
_BERT = "bert"  # `model_type` in text_config


@dataclass(frozen=True)
class TowerConfig:
    """A pre-norm transformer; `eps` is that of its layer norms."""

    width: int
    layers: int
    heads: int
    mlp_width: int
    activation: Activation = "quick_gelu"
    eps: float = 1e-5


@dataclass(frozen=True, repr=False)
class BertConfig:
    """A post-norm, bidirectional transformer: BERT (arXiv:1810.04805), RoBERTa or XLM-R.

    Token type embeddings have been added to the position embeddings, which begin at the position of
    the first token: RoBERTa's two unused rows are left out.

    Attributes:
        pooling: "mean" averages the features of all tokens except padding, as in
            sentence-transformers (arXiv:1908.10084); "first" uses those of the first token.
        projection_width: hidden width of a two-layer projection with a GELU; 0 for a single layer.
    """

    width: int
    layers: int
    heads: int
    mlp_width: int
    activation: Activation = "gelu"
    eps: float = 1e-12
    pad_token_id: int = 0
    pooling: Pooling = "mean"
    projection_width: int = 0

    def __repr__(self) -> str:
        from rsicd_embed.records import later_fields  # imports pyarrow

        return later_fields(self, "pooling", "projection_width")


@dataclass(frozen=True, repr=False)
class ClipConfig:
    """A CLIP model (Radford et al. 2021, arXiv:2103.00020) or a SigLIP (arXiv:2303.15343).

    Attributes:
        vision: the image tower, a ViT or a ResNet.
        text: the text tower: CLIP's causal transformer or a BERT.
        dim: length of the joint embedding.
        image_size: height and width in pixels; a multiple of `patch_size`, or of 32 for a ResNet.
        patch_size: height and width of a ViT's patches; 0 for a ResNet.
        vocab_size: number of tokens.
        context_length: maximum number of tokens, including begin and end tokens.
        eos_token_id: token at which texts are pooled; 2 means argmax(ids), see LEGACY_EOS_TOKEN_ID.
            A SigLIP does not use it.
        siglip: both towers are SigLIP's. The ViT has no class token and no initial norm, its patch
            embedding has a bias, and it is pooled by attention; there is no image projection. The
            text tower sees every token, and the last of `context_length` is pooled, by a projection
            with a bias. Pairs are scored by a sigmoid, with a bias.
    """

    vision: TowerConfig | ResNetConfig
    text: TowerConfig | BertConfig
    dim: int
    image_size: int
    patch_size: int
    vocab_size: int
    context_length: int
    eos_token_id: int
    siglip: bool = False

    def __repr__(self) -> str:
        from rsicd_embed.records import later_fields  # imports pyarrow

        return later_fields(self, "siglip")

    def __post_init__(self) -> None:
        if self.dim < 1:
            raise ModelError(f"expected an embedding of length 1 or more, found {self.dim}")
        if self.siglip and not (
            type(self.vision) is type(self.text) is TowerConfig and self.dim == self.vision.width
        ):
            raise ModelError(
                "expected a SigLIP of two transformers whose embedding is as long as its image "
                f"tower is wide, found {self}"
            )
        for tower, name in ((self.vision, "vision"), (self.text, "text")):
            if not isinstance(tower, ResNetConfig) and tower.width % tower.heads:
                raise ModelError(
                    f"{name} tower: expected a width divisible by its heads, "
                    f"found {tower.width} and {tower.heads}"
                )
        if isinstance(self.vision, ResNetConfig):
            if self.patch_size != 0:
                raise ModelError(f"expected patch size 0 for a ResNet, found {self.patch_size}")
            _check_size(self.image_size, resnet_config.STRIDE, "the ResNet's stride")
        else:
            _check_size(self.image_size, self.patch_size, "the patch size")

    @property
    def image_bias(self) -> bool:
        """Whether the image projection has a bias, as that of an attention-pooled ResNet has."""
        return isinstance(self.vision, ResNetConfig) and self.vision.attention_heads > 0

    @property
    def patches(self) -> int:
        """Number of patches per image of a ViT; 0 for a ResNet."""
        return (self.image_size // self.patch_size) ** 2 if self.patch_size else 0


def _check_size(image_size: int, unit: int, name: str) -> None:
    if unit < 1 or image_size < unit or image_size % unit:
        raise ModelError(
            f"expected an image size divisible by {name}, found {image_size} and {unit}"
        )


# Defaults of transformers' CLIPVisionConfig and CLIPTextConfig.
_TOWER_DEFAULTS = {"num_hidden_layers": 12, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5}
_VISION_DEFAULTS = _TOWER_DEFAULTS | {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_attention_heads": 12,
    "num_channels": 3,
    "image_size": 224,
    "patch_size": 32,
}
_TEXT_DEFAULTS = _TOWER_DEFAULTS | {
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_attention_heads": 8,
    "vocab_size": 49408,
    "max_position_embeddings": 77,
    "eos_token_id": 49407,
}
_IMAGE_DEFAULT = {"image_size": 224}
# Differences of transformers' SiglipVisionConfig and SiglipTextConfig.
_SIGLIP_DEFAULTS = {"hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6}
_SIGLIP_VISION_DEFAULTS = _VISION_DEFAULTS | _SIGLIP_DEFAULTS | {"patch_size": 16}
_SIGLIP_TEXT_DEFAULTS = _TEXT_DEFAULTS | {
    **_SIGLIP_DEFAULTS,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_attention_heads": 12,
    "vocab_size": 32000,
    "max_position_embeddings": 64,
}

_TOWER_NUMBERS = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
_VISION_NUMBERS = (*_TOWER_NUMBERS, "num_channels", "image_size", "patch_size")
_TEXT_NUMBERS = (*_TOWER_NUMBERS, "vocab_size", "max_position_embeddings", "eos_token_id")


def _section(config: Mapping[str, Any], name: str, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """A tower's section of `config.json`, completed by defaults."""
    section = dict(defaults)
    for key in (name, f"{name}_dict"):  # older checkpoints have the latter, which takes precedence
        values = config.get(key) or {}
        if not isinstance(values, Mapping):
            raise ModelError(f"config.json: expected {key} to be an object, found {values!r}")
        section |= values
    return section


def _require_whole(values: Mapping[str, Any]) -> None:
    wrong = [
        f"{name} {value!r}"
        for name, value in values.items()
        if not isinstance(value, int) or isinstance(value, bool) or value < 1
    ]
    if wrong:
        raise ModelError(f"config.json: expected whole numbers above 0, found {', '.join(wrong)}")


def _tower(config: Mapping[str, Any]) -> TowerConfig:
    if config["hidden_act"] not in ACTIVATIONS:
        raise ModelError(
            f"config.json: expected hidden_act {', '.join(ACTIVATIONS)}, "
            f"found {config['hidden_act']!r}"
        )
    eps = config["layer_norm_eps"]
    if not isinstance(eps, int | float) or not 0 < eps < 1:
        raise ModelError(f"config.json: expected layer_norm_eps between 0 and 1, found {eps!r}")
    return TowerConfig(
        width=config["hidden_size"],
        layers=config["num_hidden_layers"],
        heads=config["num_attention_heads"],
        mlp_width=config["intermediate_size"],
        activation=config["hidden_act"],
        eps=eps,
    )


def from_hf(config: Mapping[str, Any]) -> ClipConfig:
    """Reads a `config.json`: Hugging Face's CLIP or SigLIP, or our CLIP of other towers.

    Raises:
        ModelError: it describes another kind of model, or an invalid CLIP.
    """
    kind = config.get("model_type")
    if kind not in (_VIT, _SIGLIP, _OTHER_TOWERS):
        raise ModelError(
            f"expected model_type {_VIT!r}, {_SIGLIP!r} or {_OTHER_TOWERS!r} in config.json, "
            f"found {kind!r}; pass a Hugging Face CLIP or SigLIP checkpoint"
        )
    siglip = kind == _SIGLIP
    resnet = kind == _OTHER_TOWERS and not (
        isinstance(config.get("vision_config"), Mapping)
        and config["vision_config"].get("model_type") == _VIT_TOWER
    )
    image_defaults = _SIGLIP_VISION_DEFAULTS if siglip else _VISION_DEFAULTS
    vision = _section(config, "vision_config", _IMAGE_DEFAULT if resnet else image_defaults)
    text = _section(config, "text_config", _SIGLIP_TEXT_DEFAULTS if siglip else _TEXT_DEFAULTS)
    dim = vision["hidden_size"] if siglip else config.get("projection_dim", 512)
    if siglip and (vision.get("vision_use_head", True) is not True or "vocab_size" not in text):
        raise ModelError("config.json: expected a SigLIP with an attention-pooling head")
    if text.get("projection_size", dim) != dim:
        raise ModelError(
            f"config.json: expected text features as long as the image's, {dim}, found "
            f"{text['projection_size']}"
        )
    whole = {"projection_dim": dim}
    whole |= {f"text_config.{name}": text[name] for name in _TEXT_NUMBERS}
    sizes = tuple(_IMAGE_DEFAULT) if resnet else _VISION_NUMBERS
    _require_whole(whole | {f"vision_config.{name}": vision[name] for name in sizes})
    return ClipConfig(
        vision=resnet_config.from_hf(vision) if resnet else _vit(vision),
        text=_text(text),
        dim=dim,
        image_size=vision["image_size"],
        patch_size=0 if resnet else vision["patch_size"],
        vocab_size=text["vocab_size"],
        context_length=text["max_position_embeddings"],
        eos_token_id=text["eos_token_id"],
        siglip=siglip,
    )


def _text(text: Mapping[str, Any]) -> TowerConfig | BertConfig:
    tower = _tower(text)
    if text.get("model_type") != _BERT:
        return tower
    return BertConfig(
        **dataclasses.asdict(tower),
        pad_token_id=text["pad_token_id"],
        pooling=text.get("pooling", "mean"),
        projection_width=text.get("projection_width", 0),
    )


def _vit(vision: Mapping[str, Any]) -> TowerConfig:
    if vision["num_channels"] != 3:
        raise ModelError(f"expected 3 image channels, found {vision['num_channels']}")
    return _tower(vision)


def hf_architecture(config: ClipConfig) -> str | None:
    """transformers' class for the model, which reads its exported directory; None without one."""
    if config.siglip:
        return "SiglipModel"
    plain = isinstance(config.vision, TowerConfig) and isinstance(config.text, TowerConfig)
    return "CLIPModel" if plain else None


def to_hf(
    config: ClipConfig, *, bos_token_id: int, logit_scale: float, pad_token_id: int | None = None
) -> dict[str, Any]:
    """The content of a `config.json`, which `hf_architecture`'s class can read.

    Args:
        config: the model.
        bos_token_id: the tokenizer's begin token.
        logit_scale: natural logarithm of the factor of cosines.
        pad_token_id: the tokenizer's padding; None for that of the text tower.
    """
    if pad_token_id is None:
        pad_token_id = (
            config.text.pad_token_id if isinstance(config.text, BertConfig) else config.eos_token_id
        )

    def tower(shape: TowerConfig | BertConfig) -> dict[str, Any]:
        return {
            "hidden_size": shape.width,
            "num_hidden_layers": shape.layers,
            "num_attention_heads": shape.heads,
            "intermediate_size": shape.mlp_width,
            "hidden_act": shape.activation,
            "layer_norm_eps": shape.eps,
            "projection_dim": config.dim,
        }

    architecture = hf_architecture(config)
    family = "siglip" if config.siglip else "clip"
    text = tower(config.text) | {"model_type": f"{family}_text_model"}
    if isinstance(config.text, BertConfig):
        text["model_type"] = _BERT
        if config.text.pooling != "mean":
            text["pooling"] = config.text.pooling
        if config.text.projection_width:
            text["projection_width"] = config.text.projection_width
    if config.siglip:
        text["projection_size"] = config.dim
    if isinstance(config.vision, ResNetConfig):
        vision = resnet_config.to_hf(config.vision) | {"image_size": config.image_size}
    else:
        vision = {
            **tower(config.vision),
            "model_type": f"{family}_vision_model",
            "image_size": config.image_size,
            "patch_size": config.patch_size,
        }
    kind = {"architectures": [architecture], "model_type": family} if architecture else {}
    return {
        **(kind or {"model_type": _OTHER_TOWERS}),
        "projection_dim": config.dim,
        "logit_scale_init_value": logit_scale,
        "vision_config": vision,
        "text_config": {
            **text,
            "vocab_size": config.vocab_size,
            "max_position_embeddings": config.context_length,
            "bos_token_id": bos_token_id,
            "eos_token_id": config.eos_token_id,
            "pad_token_id": pad_token_id,
        },
    }
