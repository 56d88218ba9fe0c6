"""Locates the checkpoint that `--model` names: bundled, a directory, or on the Hugging Face Hub."""

from __future__ import annotations

import difflib
import os
import queue
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from rsicd_embed import plugins
from rsicd_embed.embedder import known_models
from rsicd_embed.embedder.clip import weight_files
from rsicd_embed.embedder.layout import CLIP, CheckpointLayout
from rsicd_embed.errors import ModelError, RsicdEmbedError, first_line, one_line

BUNDLED = "bundled"
_BUNDLED_DIRECTORY = Path(__file__).parent / "bundled"
_HUB_ID = re.compile(r"(?P<repo>[\w][\w.-]*/[\w.-]+)(@(?P<revision>[\w./-]+))?")
# Repositories are not named like model files.
_FILE = re.compile(r".*\.(pt|pth|bin|ckpt|safetensors|msgpack|npz|onnx|json|zip)", re.IGNORECASE)


@dataclass(frozen=True)
class Located:
    """A checkpoint's directory, and the name under which it can be located again."""

    directory: Path
    name: str


def locate(model: str | Path | None, layout: CheckpointLayout = CLIP) -> Located:
    """Locates a model, and downloads it if necessary.

    Args:
        model: None or "bundled", a directory, a name that `known_models` lists, or a Hugging Face
            id `owner/name`, optionally with `@revision`. Only ids are looked up on the Hub.
        layout: the files of the checkpoint.

    Raises:
        ModelError: the model does not exist or cannot be downloaded. The message suggests
            directories with similar names, and the model inside the folder of a training run.
    """
    if model is None or str(model) == BUNDLED:
        return Located(_BUNDLED_DIRECTORY, BUNDLED)
    text = str(model)
    if not text.strip():
        raise ModelError("expected a model, found an empty name; omit --model for the bundled one")
    path = Path(text).expanduser()
    if path.is_dir():
        _refuse_other_folder(path)
        return Located(path, str(path.resolve()))
    if known := known_models.find(text):
        return replace(locate(known.location, layout), name=text)
    match = _HUB_ID.fullmatch(text)
    if path.exists() or match is None or _FILE.fullmatch(text):
        raise ModelError(
            f"expected a model directory or a Hugging Face id such as {layout.example}, "
            f"found {_description(text, path, layout)}"
        )
    try:
        return Located(download(match["repo"], match["revision"], layout), text)
    except ModelError as error:
        raise ModelError(f"{error}{_suggestion(path)}") from error


def _refuse_other_folder(path: Path) -> None:
    """Recognises folders that are easily mistaken for a model's.

    Raises:
        ModelError: the folder is a training run or a store; the message suggests what to pass.
    """
    if (path / "config.json").exists():
        return
    if (path / "run.json").is_file():
        best = path / "best"
        advice = f"pass {best}" if best.is_dir() else "it has no best model yet: continue training"
        raise ModelError(
            f"expected a model directory, found the folder of a training run: {path}; {advice}"
        )
    if (path / "manifest.json").is_file() or any(path.glob("*.lance")) or path.suffix == ".lance":
        raise ModelError(
            f"expected a model directory, found the folder of a store: {path}; "
            "pass it to --store, and omit --model to use the store's model"
        )


def _description(text: str, path: Path, layout: CheckpointLayout) -> str:
    """Describes what was found instead of a model, with advice."""
    if path.exists():
        beside = (path.parent / layout.settings[0]).is_file()
        return f"a file: {text}" + (f"; pass its folder, {path.parent}" if beside else "")
    scheme, colon, _ = text.partition(":")
    if colon and scheme in plugins.names(plugins.STORES):
        return (
            f"the URI of a store: {text}; pass it to --store, and omit --model to use the "
            "store's model"
        )
    return f"no such directory: {text}{_suggestion(path)}"


def _suggestion(path: Path) -> str:
    """Suggests similar directories and listed models: `; did you mean models/clip?`, or nothing."""
    missing = next((part for part in (path, *path.parents) if part.parent.is_dir()), path)
    try:
        names = [folder.name for folder in missing.parent.iterdir() if folder.is_dir()]
    except OSError:
        return ""
    if missing.parent == path.parent == Path():
        names += known_models.known_models()
    rest = path.relative_to(missing)
    near = [
        str(missing.with_name(name) / rest)
        for name in difflib.get_close_matches(missing.name, names)
        if name in known_models.known_models() or (missing.with_name(name) / rest).is_dir()
    ]
    return f"; did you mean {' or '.join(near)}?" if near else ""


# Short, so that a mistyped path fails quickly without a network; HF_HUB_ETAG_TIMEOUT overrides it.
_PATIENCE_S = 2.5


class _UnreachableError(Exception):
    """The Hub does not answer."""


def download(repo: str, revision: str | None, layout: CheckpointLayout) -> Path:
    """Downloads the required files of a checkpoint, and returns its local directory.

    Cached files are used if HF_HUB_OFFLINE is set or the Hub cannot be reached within 2.5 s
    (HF_HUB_ETAG_TIMEOUT changes this limit).

    Raises:
        ModelError: the Hub cannot be reached and the model is not cached, the repository or
            revision does not exist, access is gated, or files are missing.
    """
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError

    checkpoint_id = repo + (f"@{revision}" if revision else "")

    def has(name: str) -> bool:
        cached = try_to_load_from_cache(repo, name, revision=revision)
        if isinstance(cached, str) or failure is not None:
            return isinstance(cached, str)
        answer = _ask(repo, revision, name)
        if answer is not None and not isinstance(answer, EntryNotFoundError):
            raise answer
        return answer is None

    def fetch(name: str) -> Path:
        offline = failure is not None
        return Path(hf_hub_download(repo, name, revision=revision, local_files_only=offline))

    with _hub_errors(checkpoint_id, layout.kind):
        failure = _ask(repo, revision, layout.settings[0])
        if isinstance(failure, EntryNotFoundError):
            failure = None  # the repository is there
        missing = layout.missing(has)
        if missing and failure is not None:
            raise failure
        if missing:
            raise ModelError(
                f"{checkpoint_id} is not a {layout.kind} checkpoint: expected "
                f"{', '.join(missing)} in the repository, found none"
            )
        paths = {name: fetch(name) for name in layout.used(has)}
        if weight_files.INDEX in paths:
            for shard in weight_files.shard_names(paths[weight_files.INDEX]):
                fetch(shard)
    return paths[layout.settings[0]].parent


def _ask(repo: str, revision: str | None, name: str) -> Exception | None:
    """Checks that the Hub has a file; returns the error, or None.

    There is a single request, without the library's retries. It runs on a thread because host name
    resolution has no timeout.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import HfHubHTTPError

    url = hf_hub_url(repo, name, revision=revision)  # raises an error for an invalid id
    patience_s = float(os.environ.get("HF_HUB_ETAG_TIMEOUT") or _PATIENCE_S)
    answers: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()

    def ask() -> None:
        try:
            get_hf_file_metadata(url, timeout=patience_s)
            answers.put(None)
        except HfHubHTTPError as error:
            answers.put(error)
        except Exception as error:  # the HTTP client depends on the library's version
            answers.put(_UnreachableError(first_line(error)))

    threading.Thread(target=ask, name="hub", daemon=True).start()
    try:
        return answers.get(timeout=patience_s + 0.5)
    except queue.Empty:
        return _UnreachableError(f"no answer within {patience_s:g} s")


@contextmanager
def _hub_errors(checkpoint_id: str, kind: str) -> Iterator[None]:
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        yield
    except RsicdEmbedError:
        raise
    except GatedRepoError as error:
        raise ModelError(
            f"{checkpoint_id} is gated: accept its terms on the Hub and log in"
        ) from error
    except RevisionNotFoundError as error:
        raise ModelError(
            f"{checkpoint_id}: the repository has no such revision; name another"
        ) from error
    except RepositoryNotFoundError as error:
        raise ModelError(
            f"{checkpoint_id} is neither a directory here nor a model on the Hub; check the name, "
            "or log in"
        ) from error
    except (_UnreachableError, LocalEntryNotFoundError) as error:
        raise ModelError(
            f"{checkpoint_id} is not a directory here, and the Hugging Face Hub cannot be reached "
            f"({first_line(error)}); connect, or pass a local directory"
        ) from error
    except EntryNotFoundError as error:
        raise ModelError(
            f"{checkpoint_id} is not a {kind} checkpoint: a file is missing ({one_line(error)})"
        ) from error
    except HFValidationError as error:
        raise ModelError(
            f"{checkpoint_id} is not a Hugging Face id: {error}; expected owner/name"
        ) from error
    except Exception as error:  # HTTP and disk errors; see `_ask`
        raise ModelError(
            f"{checkpoint_id} cannot be downloaded from the Hub: {first_line(error)}"
        ) from error
