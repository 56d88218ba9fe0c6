"""Export of models to the Hugging Face directory layout and to the Hub."""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tokenizers import Tokenizer as FastTokenizer

from rsicd_embed.embedder import preprocess, training_words
from rsicd_embed.embedder.clip import config as clip_config
from rsicd_embed.embedder.clip import int8_weights, parts, weight_files, weights
from rsicd_embed.embedder.locate import locate
from rsicd_embed.errors import ModelError, one_line
from rsicd_embed.files import storage_errors, sync_file, sync_folder


def save(
    directory: Path,
    config: clip_config.ClipConfig,
    params: weights.Params,
    tokens: FastTokenizer,
    pixels: preprocess.Preprocessor,
    *,
    dtype: type = np.float32,
) -> None:
    """Writes a model directory that `load_embedder` and transformers' `from_pretrained` read.

    Args:
        directory: created if absent.
        config: shape of the model.
        params: parameters of `model.Clip`.
        tokens: the tokenizer.
        pixels: the image preprocessing.
        dtype: dtype of the stored weights; np.int8 stores them as described in `int8_weights`.
    """
    directory.mkdir(parents=True, exist_ok=True)
    quantize = dtype is np.int8
    tensors: dict[str, np.ndarray] = {
        name: np.asarray(jax.device_get(tensor)).astype(np.float32 if quantize else dtype)
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
    if quantize:
        int8_weights.write(tensors, directory / int8_weights.FILE)
    else:
        weight_files.save_safetensors(tensors, directory / weight_files.SAFETENSORS)


CARD = "README.md"
DTYPES = {"float32": np.float32, "float16": np.float16, "int8": np.int8}


@dataclass(frozen=True)
class ExportedModel:
    """A model directory that was written.

    Attributes:
        directory: path of the directory.
        fingerprint: fingerprint of the exported model.
        weights_bytes: size of the weights file.
        card: whether there is a model card.
    """

    directory: Path
    fingerprint: str
    weights_bytes: int
    card: bool


def export_model(model: str | Path | None, out: Path, *, dtype: str = "float32") -> ExportedModel:
    """Atomically writes any checkpoint as a directory in the Hugging Face layout.

    The model card and the list of training words are copied too.

    Args:
        model: as passed to `--model`.
        out: the directory to create.
        dtype: dtype of the weights, a key of DTYPES.

    Raises:
        ModelError: the model does not exist, or `out` exists.
        StoreError: the directory cannot be written.
    """
    if out.exists():
        raise ModelError(f"expected no file or folder at {out}, found one; choose another -o")
    located = locate(model)
    source, loaded = located.directory, parts.read(located)
    params = weights.params_from_hf(loaded.config, loaded.tensors)
    with storage_errors(f"cannot write {out}"):
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as aside:
            directory = Path(aside) / out.name
            tokens = loaded.tokenizer.stored()
            save(
                directory,
                loaded.config,
                params,
                tokens,
                loaded.preprocessor,
                dtype=DTYPES[dtype],
            )
            for name in (CARD, training_words.FILE):
                if (source / name).is_file():
                    shutil.copyfile(source / name, directory / name)
            for path in directory.iterdir():
                sync_file(path)
            sync_folder(directory)
            written = parts.read(directory)
            directory.rename(out)
        sync_folder(out.parent)
    file = int8_weights.FILE if dtype == "int8" else weight_files.SAFETENSORS
    size = (out / file).stat().st_size
    return ExportedModel(out, written.fingerprint, size, (out / CARD).exists())


def push(folder: Path, repo: str, *, private: bool = True) -> str:
    """Uploads a model directory to the Hugging Face Hub with the user's token.

    Args:
        folder: a directory written by `export_model`.
        repo: OWNER/NAME, created if absent.
        private: whether a new repository is private.

    Returns:
        URL of the commit.

    Raises:
        ModelError: the Hub refused the upload or cannot be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    api = HfApi()
    try:
        api.create_repo(repo, private=private, exist_ok=True)
        done = api.upload_folder(folder_path=str(folder), repo_id=repo)
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise ModelError(
            f"{repo} could not be written on the Hub: {one_line(error, limit=300)}; "
            f"the model is in {folder}"
        ) from error
    return str(done.commit_url)
