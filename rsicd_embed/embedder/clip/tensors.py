"""Names and shapes of a CLIP's tensors, and their validation.

The names are those of transformers' CLIPModel, ResNetModel and BertModel, extended to SigLIP's
towers and CLIP's modified ResNet. Other formats are converted to them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from rsicd_embed.embedder.clip.config import BertConfig, ClipConfig, TowerConfig
from rsicd_embed.embedder.clip.formats.rules import Naming, Plain, StoredShape
from rsicd_embed.embedder.clip.resnet_config import STRIDE, Convolution, ResNetConfig
from rsicd_embed.errors import WeightsError

# Tensors that transformers, open_clip and OpenAI store besides parameters.
_BUFFER = re.compile(
    r"input_resolution|context_length|vocab_size|(text\.)?attn_mask|.*\.num_batches_tracked"
    r"|.*\.(position_ids|token_type_ids)"
)

RESNET_STEM = "vision_model.embedder.embedder.convolution"
ATTENTION_POOL = "vision_model.attention_pool"
PROBE = "vision_model.head.probe"

Shapes = dict[str, tuple[int, ...]]


def shapes(config: ClipConfig) -> Shapes:
    """Shapes of all tensors of a checkpoint in PyTorch's layout: linear (out, in), conv OIHW."""
    if isinstance(config.vision, ResNetConfig):
        image = resnet_shapes(config.vision, config.image_size)
    else:
        image = _vit_shapes(config, config.vision)
    tensors = {**image, **_text_shapes(config), **_projections(config), "logit_scale": ()}
    return tensors | ({"logit_bias": ()} if config.siglip else {})


def _projections(config: ClipConfig) -> Shapes:
    image = _linear("visual_projection", config.vision.width, config.dim)
    if not config.image_bias:
        del image["visual_projection.bias"]
    text = _linear("text_projection", config.text.width, config.dim)
    hidden = config.text.projection_width if isinstance(config.text, BertConfig) else 0
    if hidden:
        text = {
            "text_projection.0.weight": (hidden, config.text.width),
            "text_projection.2.weight": (config.dim, hidden),
        }
    elif not config.siglip:
        del text["text_projection.bias"]
    return text if config.siglip else image | text


def resnet_shapes(vision: ResNetConfig, image_size: int = 224) -> Shapes:
    """Shapes of a ResNet image tower's tensors, by the names of transformers' ResNetModel."""
    tensors: Shapes = {}
    for name, convolution in zip(resnet_stem(vision), vision.stem, strict=True):
        tensors |= _convolution(name, convolution)
    for stage, blocks in enumerate(vision.stages()):
        for place, block in enumerate(blocks):
            name = resnet_block(stage, place)
            for layer, convolution in enumerate(block.convolutions):
                tensors |= _convolution(f"{name}.layer.{layer}.convolution", convolution)
            if block.shortcut is not None:
                tensors |= _convolution(f"{name}.shortcut.convolution", block.shortcut)
    if vision.attention_heads:
        positions = (image_size // STRIDE) ** 2 + 1
        tensors[f"{ATTENTION_POOL}.position_embedding.weight"] = (positions, vision.width)
        for part in ("q_proj", "k_proj", "v_proj"):
            tensors |= _linear(f"{ATTENTION_POOL}.{part}", vision.width, vision.width)
    return tensors


def resnet_stem(vision: ResNetConfig) -> list[str]:
    """Names of the stem's convolutions."""
    if not vision.attention_heads:
        return [RESNET_STEM]
    name = RESNET_STEM.removesuffix(".convolution")
    return [f"{name}.{layer}.convolution" for layer in range(len(vision.stem))]


def resnet_block(stage: int, place: int) -> str:
    """Common prefix of the names of a residual block's tensors."""
    return f"vision_model.encoder.stages.{stage}.layers.{place}"


def _convolution(name: str, shape: Convolution) -> Shapes:
    kernel = (shape.outputs, shape.inputs, shape.side, shape.side)
    return {f"{name}.weight": kernel, f"{name}.bias": (shape.outputs,)}


def _vit_shapes(config: ClipConfig, vision: TowerConfig) -> Shapes:
    name, width = "vision_model.embeddings", vision.width
    patches = (width, 3, config.patch_size, config.patch_size)
    tensors = {
        f"{name}.patch_embedding.weight": patches,
        f"{name}.position_embedding.weight": (config.patches + (not config.siglip), width),
        **_norm("vision_model.post_layernorm", width),
        **_blocks("vision_model", vision),
    }
    if config.siglip:
        return {
            **tensors,
            f"{name}.patch_embedding.bias": (width,),
            PROBE: (width,),
            **_attention("vision_model.head.self_attn", width),
            **_norm("vision_model.head.layernorm", width),
            **_linear("vision_model.head.mlp.fc1", width, vision.mlp_width),
            **_linear("vision_model.head.mlp.fc2", vision.mlp_width, width),
        }
    return {
        **tensors,
        f"{name}.class_embedding": (width,),
        **_norm("vision_model.pre_layrnorm", width),  # the reference's own spelling
    }


def _text_shapes(config: ClipConfig) -> Shapes:
    text, name = config.text, "text_model.embeddings"
    tokens, positions = (config.vocab_size, text.width), (config.context_length, text.width)
    if isinstance(text, BertConfig):
        return {
            f"{name}.word_embeddings.weight": tokens,
            f"{name}.position_embeddings.weight": positions,
            **_norm(f"{name}.LayerNorm", text.width),
            **_bert_layers("text_model", text),
        }
    return {
        f"{name}.token_embedding.weight": tokens,
        f"{name}.position_embedding.weight": positions,
        **_norm("text_model.final_layer_norm", text.width),
        **_blocks("text_model", text),
    }


def _norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _linear(name: str, inputs: int, outputs: int) -> Shapes:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def _attention(name: str, width: int) -> Shapes:
    parts = [_linear(f"{name}.{part}_proj", width, width) for part in ("q", "k", "v", "out")]
    return {name: shape for part in parts for name, shape in part.items()}


def _blocks(model: str, tower: TowerConfig) -> Shapes:
    tensors: Shapes = {}
    for layer in range(tower.layers):
        name = f"{model}.encoder.layers.{layer}"
        tensors |= _norm(f"{name}.layer_norm1", tower.width)
        tensors |= _attention(f"{name}.self_attn", tower.width)
        tensors |= _norm(f"{name}.layer_norm2", tower.width)
        tensors |= _linear(f"{name}.mlp.fc1", tower.width, tower.mlp_width)
        tensors |= _linear(f"{name}.mlp.fc2", tower.mlp_width, tower.width)
    return tensors


def _bert_layers(model: str, tower: BertConfig) -> Shapes:
    """Shapes of a BERT's layers, by the names of transformers' BertModel."""
    tensors: Shapes = {}
    for layer in range(tower.layers):
        name = f"{model}.encoder.layer.{layer}"
        for projection in ("query", "key", "value"):
            tensors |= _linear(f"{name}.attention.self.{projection}", tower.width, tower.width)
        tensors |= _linear(f"{name}.attention.output.dense", tower.width, tower.width)
        tensors |= _norm(f"{name}.attention.output.LayerNorm", tower.width)
        tensors |= _linear(f"{name}.intermediate.dense", tower.width, tower.mlp_width)
        tensors |= _linear(f"{name}.output.dense", tower.mlp_width, tower.width)
        tensors |= _norm(f"{name}.output.LayerNorm", tower.width)
    return tensors


def checked(
    config: ClipConfig, tensors: Mapping[str, np.ndarray], naming: Naming = Plain
) -> dict[str, np.ndarray]:
    """Validates the tensors of a checkpoint, and converts them to float32 by canonical name.

    Args:
        config: the model.
        tensors: the checkpoint's tensors, by its own names, which messages use.
        naming: where the checkpoint has each tensor.

    Raises:
        WeightsError: tensors are missing, unused, of another shape or not finite.
    """
    wanted = shapes(config)
    rules = {name: naming(name) for name in wanted}
    stored = {k: v for name in wanted for k, v in rules[name].stored(wanted[name]).items()}
    unused = [name for name in tensors if name not in stored and not _BUFFER.fullmatch(name)]
    problems = [f"missing {name}" for name in sorted(set(stored) - set(tensors))]
    problems += [f"unused {name}" for name in sorted(unused)]
    for name in (name for name in stored if name in tensors):
        expected, actual = stored[name], tensors[name].shape
        if not _fits(actual, expected):
            shape = str(expected).replace("None", "any")
            problems.append(f"{name}: expected shape {shape}, found {actual}")
        elif not np.isfinite(tensors[name]).all():
            problems.append(f"{name}: NaN or infinity")
    if problems:
        shown = "; ".join(problems[:8]) + (f"; {len(problems) - 8} more" if problems[8:] else "")
        raise WeightsError(f"the weights do not match the config: {shown}")
    # ascontiguousarray would turn a scalar into a vector.
    return {
        name: np.asarray(rules[name].read(tensors, shape), np.float32, order="C")
        for name, shape in wanted.items()
    }


def _fits(actual: tuple[int, ...], expected: StoredShape) -> bool:
    if all(size == 1 for size in expected):  # some checkpoints store the scalar as a vector
        return all(size == 1 for size in actual)
    return len(actual) == len(expected) and all(
        size in (None, have) for have, size in zip(actual, expected, strict=True)
    )
