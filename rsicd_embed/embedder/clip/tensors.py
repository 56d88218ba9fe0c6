"""The tensors that a CLIP of some shape has, by their Hugging Face names, and a check of them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from rsicd_embed.embedder.clip.config import ClipConfig, TowerConfig
from rsicd_embed.errors import WeightsError

# What older checkpoints carry beside the parameters.
BUFFERS = ("text_model.embeddings.position_ids", "vision_model.embeddings.position_ids")

Shapes = dict[str, tuple[int, ...]]


def shapes(config: ClipConfig) -> Shapes:
    """Every tensor of a checkpoint, in PyTorch's layout: linear (out, in), convolution OIHW."""
    vision, text = config.vision, config.text
    side = config.patch_size
    embeddings = {
        "vision_model.embeddings.class_embedding": (vision.width,),
        "vision_model.embeddings.patch_embedding.weight": (vision.width, 3, side, side),
        "vision_model.embeddings.position_embedding.weight": (config.patches + 1, vision.width),
        "text_model.embeddings.token_embedding.weight": (config.vocab_size, text.width),
        "text_model.embeddings.position_embedding.weight": (config.context_length, text.width),
    }
    return {
        **embeddings,
        **_norm("vision_model.pre_layrnorm", vision.width),  # the reference's own spelling
        **_norm("vision_model.post_layernorm", vision.width),
        **_norm("text_model.final_layer_norm", text.width),
        **_blocks("vision_model", vision),
        **_blocks("text_model", text),
        "visual_projection.weight": (config.dim, vision.width),
        "text_projection.weight": (config.dim, text.width),
        "logit_scale": (),
    }


def _norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _linear(name: str, inputs: int, outputs: int) -> Shapes:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def _blocks(model: str, tower: TowerConfig) -> Shapes:
    found: Shapes = {}
    for layer in range(tower.layers):
        name = f"{model}.encoder.layers.{layer}"
        found |= _norm(f"{name}.layer_norm1", tower.width)
        for projection in ("q_proj", "k_proj", "v_proj", "out_proj"):
            found |= _linear(f"{name}.self_attn.{projection}", tower.width, tower.width)
        found |= _norm(f"{name}.layer_norm2", tower.width)
        found |= _linear(f"{name}.mlp.fc1", tower.width, tower.mlp_width)
        found |= _linear(f"{name}.mlp.fc2", tower.mlp_width, tower.width)
    return found


def checked(config: ClipConfig, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The tensors of a checkpoint as float32, each that the shape wants and no other.

    Raises:
        WeightsError: a tensor is missing, unused, misshapen or not finite; all are named.
    """
    wanted = shapes(config)
    problems = [f"missing {name}" for name in sorted(set(wanted) - set(tensors))]
    problems += [f"unused {name}" for name in sorted(set(tensors) - set(wanted) - set(BUFFERS))]
    found = {}
    for name, expected in wanted.items():
        if name not in tensors:
            continue
        # In C order, and not by ascontiguousarray, which makes a vector of a scalar.
        tensor = np.asarray(tensors[name], dtype=np.float32, order="C")
        # Some checkpoints keep the scalar as a vector of one.
        tensor = tensor.reshape(()) if expected == () and tensor.size == 1 else tensor
        if tensor.shape != expected:
            problems.append(f"{name}: expected shape {expected}, found {tensor.shape}")
        elif not np.isfinite(tensor).all():
            problems.append(f"{name}: NaN or infinity")
        else:
            found[name] = tensor
    if problems:
        shown = "; ".join(problems[:8]) + (f"; {len(problems) - 8} more" if problems[8:] else "")
        raise WeightsError(f"the weights do not fit the config: {shown}")
    return found
