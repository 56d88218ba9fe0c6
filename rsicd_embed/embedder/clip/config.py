"""The shape of a CLIP model, read from and written to a Hugging Face `config.json`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from rsicd_embed.embedder.clip import resnet_config
from rsicd_embed.embedder.clip.resnet_config import ResNetConfig
from rsicd_embed.errors import ModelError

Activation = Literal["quick_gelu", "gelu"]

# Up to transformers 4.30 every CLIP config had 2 here, regardless of the tokenizer's end token. The
# text is then pooled at argmax(ids), which works because the end token has the highest id.
LEGACY_EOS_TOKEN_ID = 2

# `model_type` in config.json. transformers has none for a CLIP with a ResNet: its
# VisionTextDualEncoder cannot project the ResNet's features, which keep two axes of length one.
_VIT = "clip"
_RESNET = "rsicd-embed-clip"
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


@dataclass(frozen=True)
class BertConfig:
    """A post-norm, bidirectional transformer (Devlin et al. 2018, arXiv:1810.04805).

    Its features are averaged over the tokens except padding, as in sentence-transformers
    (arXiv:1908.10084). Token type embeddings have been added to the position embeddings.
    """

    width: int
    layers: int
    heads: int
    mlp_width: int
    activation: Activation = "gelu"
    eps: float = 1e-12
    pad_token_id: int = 0


@dataclass(frozen=True)
class ClipConfig:
    """A CLIP model (Radford et al. 2021, arXiv:2103.00020).

    Attributes:
        vision: the image tower, a ViT or a ResNet.
        text: the text tower: CLIP's causal transformer or a BERT.
        dim: length of the joint embedding.
        image_size: height and width in pixels; a multiple of `patch_size`, or of 32 for a ResNet.
        patch_size: height and width of a ViT's patches; 0 for a ResNet.
        vocab_size: number of tokens.
        context_length: maximum number of tokens, including begin and end tokens.
        eos_token_id: token at which texts are pooled; 2 means argmax(ids), see LEGACY_EOS_TOKEN_ID.
    """

    vision: TowerConfig | ResNetConfig
    text: TowerConfig | BertConfig
    dim: int
    image_size: int
    patch_size: int
    vocab_size: int
    context_length: int
    eos_token_id: int

    def __post_init__(self) -> None:
        if self.dim < 1:
            raise ModelError(f"expected an embedding of length 1 or more, found {self.dim}")
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
    if config["hidden_act"] not in ("quick_gelu", "gelu"):
        raise ModelError(
            f"expected hidden_act quick_gelu or gelu, found {config['hidden_act']!r}; "
            "no Hugging Face CLIP checkpoint uses another"
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
    """Reads the content of a `config.json`: Hugging Face's CLIP, or our CLIP with a ResNet.

    Raises:
        ModelError: it describes another kind of model, or an invalid CLIP.
    """
    kind = config.get("model_type")
    if kind not in (_VIT, _RESNET):
        raise ModelError(
            f"expected model_type {_VIT!r} or {_RESNET!r} in config.json, found {kind!r}; "
            "pass a Hugging Face CLIP checkpoint"
        )
    vision = _section(config, "vision_config", _VISION_DEFAULTS if kind == _VIT else _IMAGE_DEFAULT)
    text = _section(config, "text_config", _TEXT_DEFAULTS)
    whole = {"projection_dim": config.get("projection_dim", 512)}
    whole |= {f"text_config.{name}": text[name] for name in _TEXT_NUMBERS}
    sizes = _VISION_NUMBERS if kind == _VIT else tuple(_IMAGE_DEFAULT)
    _require_whole(whole | {f"vision_config.{name}": vision[name] for name in sizes})
    return ClipConfig(
        vision=_vit(vision) if kind == _VIT else resnet_config.from_hf(vision),
        text=_text(text),
        dim=config.get("projection_dim", 512),
        image_size=vision["image_size"],
        patch_size=vision["patch_size"] if kind == _VIT else 0,
        vocab_size=text["vocab_size"],
        context_length=text["max_position_embeddings"],
        eos_token_id=text["eos_token_id"],
    )


def _text(text: Mapping[str, Any]) -> TowerConfig | BertConfig:
    tower = _tower(text)
    if text.get("model_type") != _BERT:
        return tower
    return BertConfig(**dataclasses.asdict(tower), pad_token_id=text["pad_token_id"])


def _vit(vision: Mapping[str, Any]) -> TowerConfig:
    if vision["num_channels"] != 3:
        raise ModelError(f"expected 3 image channels, found {vision['num_channels']}")
    return _tower(vision)


def to_hf(config: ClipConfig, *, bos_token_id: int, logit_scale: float) -> dict[str, Any]:
    """The content of a `config.json`; for a ViT, transformers' CLIPConfig can read it."""

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

    kind: dict[str, Any]
    vision: dict[str, Any]
    if isinstance(config.vision, ResNetConfig):
        kind = {"model_type": _RESNET}
        vision = resnet_config.to_hf(config.vision) | {"image_size": config.image_size}
    else:
        kind = {"architectures": ["CLIPModel"], "model_type": _VIT}
        vision = {
            **tower(config.vision),
            "model_type": "clip_vision_model",
            "image_size": config.image_size,
            "patch_size": config.patch_size,
        }
    return {
        **kind,
        "projection_dim": config.dim,
        "logit_scale_init_value": logit_scale,
        "vision_config": vision,
        "text_config": {
            **tower(config.text),
            "model_type": _BERT if isinstance(config.text, BertConfig) else "clip_text_model",
            "vocab_size": config.vocab_size,
            "max_position_embeddings": config.context_length,
            "bos_token_id": bos_token_id,
            "eos_token_id": config.eos_token_id,
            "pad_token_id": (
                config.text.pad_token_id
                if isinstance(config.text, BertConfig)
                else config.eos_token_id
            ),
        },
    }
