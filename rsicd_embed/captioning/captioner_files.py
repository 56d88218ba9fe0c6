"""Captioners on disk: config.json, the vocabulary, and weights in float32 or eight bits.

Weights are stored by the names of the model's parameters, in PyTorch's layout: linear (out, in).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from rsicd_embed.captioning.caption_config import MODEL_TYPE, CaptionerConfig
from rsicd_embed.captioning.caption_model import CaptionModel
from rsicd_embed.captioning.gpt2 import TOKENIZER, BytePairs
from rsicd_embed.captioning.vocabulary import Vocabulary, Words
from rsicd_embed.embedder.clip import int8_weights, weight_files
from rsicd_embed.errors import ModelError, WeightsError
from rsicd_embed.files import read_json
from rsicd_embed.records import Provenance

CONFIG = "config.json"
Arrays: TypeAlias = dict[str, Any]
"""Parameters by name, such as decoder.blocks.0.attend.kernel."""


@dataclass(frozen=True)
class CaptionerParts:
    """A captioner.

    Attributes:
        config: its shape.
        params: its parameters.
        vocabulary: its tokens.
        made_by: provenance of the vectors that it was trained on.
        name: as passed to `--captioner`.
    """

    config: CaptionerConfig
    params: nnx.State[Any, Any]
    vocabulary: Vocabulary
    made_by: Provenance
    name: str


def abstract_arrays(config: CaptionerConfig) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes of the parameters by name."""
    state = nnx.state(nnx.eval_shape(lambda: CaptionModel(config, rngs=nnx.Rngs(0))))
    return named_arrays(state)


def named_arrays(params: nnx.State[Any, Any]) -> Arrays:
    """Parameters by name, sorted."""
    flat = {
        ".".join(map(str, path)): value.get_value() for path, value in nnx.to_flat_state(params)
    }
    return {name: flat[name] for name in sorted(flat)}


def params_of(arrays: Mapping[str, Any]) -> nnx.State[Any, Any]:
    """Inverse of `named_arrays`."""
    return nnx.from_flat_state(
        [
            (tuple(int(k) if k.isdigit() else k for k in name.split(".")), nnx.Param(value))
            for name, value in arrays.items()
        ]
    )


def save(directory: Path, parts: CaptionerParts, *, int8: bool = False) -> None:
    """Writes a captioner to an existing directory.

    Args:
        directory: the directory.
        parts: the captioner.
        int8: store weights in eight bits with a scale per channel, a quarter of the size.
    """
    made_by = parts.made_by
    content = {
        "model_type": MODEL_TYPE,
        "captioner": parts.config.as_dict(),
        "embedder": {
            "name": made_by.model, "fingerprint": made_by.fingerprint, "dim": made_by.dim,
        },
    }  # fmt: skip
    (directory / CONFIG).write_text(json.dumps(content, indent=2) + "\n", "utf-8")
    parts.vocabulary.save(directory)
    tensors = {
        _stored_name(name): _transposed(name, np.asarray(value))
        for name, value in named_arrays(parts.params).items()
    }
    if int8:
        int8_weights.write(tensors, directory / int8_weights.FILE)
    else:
        weight_files.save_safetensors(tensors, directory / weight_files.SAFETENSORS)


def read(directory: Path, name: str) -> CaptionerParts:
    """Reads a captioner.

    Args:
        directory: its directory.
        name: its name for messages.

    Raises:
        ModelError: the directory has no captioner, or a malformed one.
        WeightsError: the weights or the vocabulary do not fit.
    """
    content = read_json(directory / CONFIG)
    if content.get("model_type") != MODEL_TYPE:
        raise ModelError(
            f"{directory}: expected a captioner, found a model of type "
            f"{content.get('model_type')!r}; train one with `rsicd-embed train caption`"
        )
    config = CaptionerConfig.from_dict(content.get("captioner", {}))
    vocabulary: Vocabulary = (
        BytePairs.read(directory) if (directory / TOKENIZER).is_file() else Words.read(directory)
    )
    require_fitting(vocabulary, config, directory)
    try:
        made_by = content["embedder"]
        provenance = Provenance(str(made_by["name"]), str(made_by["fingerprint"]), made_by["dim"])
    except (KeyError, TypeError) as error:
        raise ModelError(
            f"{directory / CONFIG}: expected the name, fingerprint and dim of the embedder"
        ) from error
    stored = weight_files.load(directory)
    return CaptionerParts(config, checked(config, stored), vocabulary, provenance, name)


def require_fitting(vocabulary: Vocabulary, config: CaptionerConfig, directory: Path) -> None:
    """Raises WeightsError unless the decoder has an output for each token."""
    size = config.decoder.vocab_size
    if vocabulary.size != size:
        raise WeightsError(
            f"{directory}: expected a vocabulary of {size} tokens, which the decoder has, found "
            f"{vocabulary.size}; restore the vocabulary of this decoder"
        )


def checked(config: CaptionerConfig, stored: Mapping[str, np.ndarray]) -> nnx.State[Any, Any]:
    """Parameters from the tensors of a file.

    Raises:
        WeightsError: a tensor is missing, unused, not finite or of another shape.
    """
    wanted = abstract_arrays(config)
    names = {_stored_name(name): name for name in wanted}
    problems = [f"missing {name}" for name in sorted(set(names) - set(stored))]
    problems += [f"unused {name}" for name in sorted(set(stored) - set(names))]
    arrays: Arrays = {}
    for stored_name, name in names.items():
        if stored_name not in stored:
            continue
        tensor = _transposed(name, stored[stored_name])
        if tensor.shape != wanted[name].shape:
            problems.append(f"{name}: expected shape {wanted[name].shape}, found {tensor.shape}")
        elif not np.isfinite(tensor).all():
            problems.append(f"{name}: NaN or infinity")
        arrays[name] = jnp.asarray(tensor, jnp.float32)
    if problems:
        more = f"; {len(problems) - 5} more" if problems[5:] else ""
        raise WeightsError(
            f"the weights do not match the captioner: {'; '.join(problems[:5])}{more}"
        )
    return params_of(arrays)


def _stored_name(name: str) -> str:
    """decoder.blocks.0.attend.kernel → decoder.blocks.0.attend.weight."""
    module, _, leaf = name.rpartition(".")
    return f"{module}.weight" if leaf in ("kernel", "embedding", "scale") else name


def _transposed(name: str, tensor: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(tensor.T) if name.endswith(".kernel") else tensor
