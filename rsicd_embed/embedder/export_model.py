"""Any checkpoint → a directory in the Hugging Face layout, and onto the Hub if asked."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rsicd_embed.embedder import training_words
from rsicd_embed.embedder.clip import directory, parts, weights
from rsicd_embed.embedder.clip.weight_files import SAFETENSORS
from rsicd_embed.embedder.locate import locate
from rsicd_embed.errors import ModelError
from rsicd_embed.files import storage_errors, sync_file, sync_folder

CARD = "README.md"
DTYPES = {"float32": np.float32, "float16": np.float16}


@dataclass(frozen=True)
class ExportedModel:
    """A model directory that was written.

    Attributes:
        directory: where it is.
        fingerprint: of the model, as it will be loaded.
        weights_bytes: size of its weights.
        card: whether it has a model card.
    """

    directory: Path
    fingerprint: str
    weights_bytes: int
    card: bool


def export_model(model: str | Path | None, out: Path, *, dtype: str = "float32") -> ExportedModel:
    """Writes a checkpoint in the Hugging Face layout, whichever layout it has.

    Its card and its list of training words are copied too. The directory appears whole or not at
    all.

    Args:
        model: as `--model` takes it.
        out: a directory that is not there yet.
        dtype: of the weights, a key of DTYPES.

    Raises:
        ModelError: there is no such model, or `out` exists.
        StoreError: it cannot be written.
    """
    if out.exists():
        raise ModelError(f"expected no file or folder at {out}, found one; give another -o")
    source = locate(model).directory
    read = parts.read(source)
    params = weights.params_from_hf(read.config, read.tensors)
    with storage_errors(f"cannot write {out}"):
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as aside:
            made = Path(aside) / out.name
            stored = read.tokenizer.stored()
            directory.save(
                made, read.config, params, stored, read.preprocessor, dtype=DTYPES[dtype]
            )
            for name in (CARD, training_words.FILE):
                if (source / name).is_file():
                    shutil.copyfile(source / name, made / name)
            for path in made.iterdir():
                sync_file(path)
            sync_folder(made)
            written = parts.read(made)
            made.rename(out)
        sync_folder(out.parent)
    size = (out / SAFETENSORS).stat().st_size
    return ExportedModel(out, written.fingerprint, size, (out / CARD).exists())


def push(folder: Path, repo: str, *, private: bool = True) -> str:
    """Uploads a model directory to the Hugging Face Hub, with the user's own token.

    Args:
        folder: what `export_model` wrote.
        repo: OWNER/NAME, made if absent.
        private: whether a repository that is made is private.

    Returns:
        The address of the commit.

    Raises:
        ModelError: the Hub refused, or was not reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    api = HfApi()
    try:
        api.create_repo(repo, private=private, exist_ok=True)
        done = api.upload_folder(folder_path=str(folder), repo_id=repo)
    except (HfHubHTTPError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ModelError(
            f"{repo} could not be written on the Hub: {reason}; the model is in {folder}"
        ) from error
    return str(done.commit_url)
