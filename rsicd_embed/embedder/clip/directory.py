"""A CLIP model → a directory in the Hugging Face layout, which `parts.read` reads back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tokenizers import Tokenizer as FastTokenizer

from rsicd_embed.embedder import preprocess
from rsicd_embed.embedder.clip import config as clip_config
from rsicd_embed.embedder.clip import weight_files, weights


def save(
    directory: Path,
    config: clip_config.ClipConfig,
    params: weights.Params,
    tokens: FastTokenizer,
    pixels: preprocess.Preprocessor,
    *,
    dtype: type = np.float32,
) -> None:
    """Writes a directory that `load_embedder`, and transformers' `from_pretrained`, read back."""
    directory.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, np.ndarray] = {
        name: np.asarray(jax.device_get(tensor)).astype(dtype)
        for name, tensor in weights.params_to_hf(params).items()
    }
    tokens.no_truncation()
    tokens.no_padding()
    bos, eos = tokens.encode("").ids
    special = {"bos_token": tokens.id_to_token(bos), "eos_token": tokens.id_to_token(eos)}
    kind, pad, unknown = "CLIPTokenizer", special["eos_token"], special["eos_token"]
    if isinstance(config.text, clip_config.BertConfig):
        kind, pad, unknown = (
            "BertTokenizer",
            tokens.id_to_token(config.text.pad_token_id),
            tokens.model.unk_token,
        )
    contents: dict[str, dict[str, Any]] = {
        "config.json": clip_config.to_hf(
            config, bos_token_id=bos, logit_scale=float(tensors["logit_scale"])
        )
        | {"dtype": np.dtype(dtype).name},
        "preprocessor_config.json": preprocess.to_hf(pixels),
        "tokenizer_config.json": {
            "tokenizer_class": kind,
            "model_max_length": config.context_length,
            "pad_token": pad,
            "unk_token": unknown,
            **special,
        },
    }
    for name, content in contents.items():
        (directory / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    tokens.save(str(directory / "tokenizer.json"))
    weight_files.save_safetensors(tensors, directory / weight_files.SAFETENSORS)
