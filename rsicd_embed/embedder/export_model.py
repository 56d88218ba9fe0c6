"""Export of models to the Hugging Face directory layout and to the Hub."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tokenizers import Tokenizer as FastTokenizer

from rsicd_embed.embedder import preprocess, training_words
from rsicd_embed.embedder.clip import config as clip_config
from rsicd_embed.embedder.clip import int8_weights, parts, weight_files, weights
from rsicd_embed.embedder.clip.formats import naming, open_clip_config
from rsicd_embed.embedder.clip.formats.rules import Naming
from rsicd_embed.embedder.layout import OPEN_CLIP
from rsicd_embed.embedder.locate import locate
from rsicd_embed.embedder.tokenizer import Tokenizer
from rsicd_embed.errors import ModelError, one_line
from rsicd_embed.files import storage_errors, sync_file, sync_folder, temporary_folder


def save(
    directory: Path,
    config: clip_config.ClipConfig,
    params: weights.Params,
    tokens: FastTokenizer | Tokenizer,
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
    tensors = _converted(config, naming.transformers(config), params, dtype)
    fast, settings = tokenizer_files(config, tokens)
    ids = fast.encode("").ids
    contents: dict[str, dict[str, Any]] = {
        "config.json": clip_config.to_hf(
            config,
            bos_token_id=ids[0],
            logit_scale=float(tensors["logit_scale"].item()),
            pad_token_id=fast.token_to_id(settings["pad_token"]) if config.siglip else None,
        )
        | {"dtype": np.dtype(dtype).name},
        "preprocessor_config.json": preprocess.to_hf(pixels),
        "tokenizer_config.json": settings,
    }
    write_json(directory, contents)
    fast.save(str(directory / "tokenizer.json"))
    if quantize:
        int8_weights.write(tensors, directory / int8_weights.FILE)
    else:
        weight_files.save_safetensors(tensors, directory / weight_files.SAFETENSORS)


def save_open_clip(
    directory: Path,
    config: clip_config.ClipConfig,
    params: weights.Params,
    tokens: Tokenizer,
    pixels: preprocess.Preprocessor,
    *,
    dtype: type = np.float32,
) -> None:
    """Writes a model directory that `load_embedder` and open_clip's `local-dir:` read; see `save`.

    Raises:
        ModelError: open_clip has no such architecture.
    """
    model = open_clip_config.to_config(config)
    if isinstance(config.text, clip_config.BertConfig):
        model["text_cfg"]["tokenizer_kwargs"] = {"clean": tokens.cleaning}
    directory.mkdir(parents=True, exist_ok=True)
    content = {"model_cfg": model, "preprocess_cfg": preprocess.to_open_clip(pixels)}
    fast, settings = tokenizer_files(config, tokens)
    write_json(directory, {open_clip_config.FILE: content, "tokenizer_config.json": settings})
    fast.save(str(directory / "tokenizer.json"))
    tensors = _converted(config, naming.open_clip(config), params, dtype)
    weight_files.save_safetensors(tensors, directory / OPEN_CLIP.weights[0])


def _converted(
    config: clip_config.ClipConfig, names: Naming, params: weights.Params, dtype: type
) -> dict[str, np.ndarray]:
    tensors = {
        name: np.asarray(jax.device_get(tensor))
        for name, tensor in weights.params_to_hf(params).items()
    }
    stored = np.float32 if dtype is np.int8 else dtype
    return {
        name: tensor.astype(stored) if tensor.dtype == np.float32 else tensor
        for name, tensor in naming.write(config, names, tensors).items()
    }


def tokenizer_files(
    config: clip_config.ClipConfig, tokens: FastTokenizer | Tokenizer
) -> tuple[FastTokenizer, dict[str, Any]]:
    """The tokenizer to store, and the content of `tokenizer_config.json`."""
    fast = tokens.stored() if isinstance(tokens, Tokenizer) else tokens
    fast.no_truncation()
    fast.no_padding()
    ids = fast.encode("").ids
    first, last = fast.id_to_token(ids[0]), fast.id_to_token(ids[-1])
    pad = fast.id_to_token(tokens.pad_id) if isinstance(tokens, Tokenizer) else last
    kind, unknown = "CLIPTokenizer", last
    if config.siglip or isinstance(config.text, clip_config.BertConfig):
        kind = "PreTrainedTokenizerFast"
        unknown = getattr(fast.model, "unk_token", None) or last
    if isinstance(config.text, clip_config.BertConfig):
        pad = fast.id_to_token(config.text.pad_token_id)
        if config.text.pad_token_id == 0:
            kind = "BertTokenizer"
    settings = {
        "tokenizer_class": kind,
        "model_max_length": config.context_length,
        "pad_token": pad,
        "unk_token": unknown,
        "bos_token": first,
        "eos_token": last,
    }
    if isinstance(tokens, Tokenizer) and tokens.cleaning != "none":
        settings["text_cleaning"] = tokens.cleaning
    return fast, settings


def write_json(directory: Path, contents: Mapping[str, Mapping[str, Any]]) -> None:
    """Writes JSON files to a directory."""
    for name, content in contents.items():
        (directory / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


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
    """Atomically writes any checkpoint as a directory that other libraries read.

    A CLIP with a ViT and CLIP's text tower, and a SigLIP, are written in the Hugging Face layout of
    transformers; a model that only open_clip has, in open_clip's. Any other is written in our own
    layout, which is like the former.

    The model card and the list of training words are copied too.

    Args:
        model: as passed to `--model`.
        out: the directory to create.
        dtype: dtype of the weights, a key of DTYPES.

    Raises:
        ModelError: the model does not exist, or `out` exists.
        StoreError: the directory cannot be written.
    """
    require_new(out)
    located = locate(model)
    source, loaded = located.directory, parts.read(located)
    params = weights.params_from_hf(loaded.config, loaded.tensors)
    open_clip = open_clip_config.has_architecture(loaded.config)
    with written_aside(out) as directory:
        write = save_open_clip if open_clip and dtype != "int8" else save
        write(
            directory,
            loaded.config,
            params,
            loaded.tokenizer,
            loaded.preprocessor,
            dtype=DTYPES[dtype],
        )
        copied = [CARD, training_words.FILE]
        if loaded.config.siglip:  # its tokenizer's class may need them
            copied += ["tokenizer_config.json", "spiece.model"]
        for name in copied if located.file is None else ():
            if (source / name).is_file():
                shutil.copyfile(source / name, directory / name)
        written = parts.read(directory)
    size = sum(path.stat().st_size for path in out.glob("*.safetensors"))
    return ExportedModel(out, written.fingerprint, size, (out / CARD).exists())


def require_new(out: Path) -> None:
    """Raises ModelError if the directory to create exists."""
    if out.exists():
        raise ModelError(f"expected a new folder, found {out}, which exists; choose another -o")


@contextmanager
def written_aside(out: Path) -> Iterator[Path]:
    """Yields a directory to fill, which becomes `out` if the block succeeds.

    Raises:
        StoreError: it cannot be written.
    """
    with storage_errors(f"cannot write {out}"):
        out.parent.mkdir(parents=True, exist_ok=True)
        with temporary_folder(f".{out.name}-", out.parent) as aside:
            directory = aside / out.name
            yield directory
            for path in directory.iterdir():
                sync_file(path)
            sync_folder(directory)
            directory.rename(out)
        sync_folder(out.parent)


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
