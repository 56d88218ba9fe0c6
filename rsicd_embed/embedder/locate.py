"""What `--model` takes → a directory with a checkpoint."""

from __future__ import annotations

import difflib
import os
import queue
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rsicd_embed import plugins
from rsicd_embed.embedder.clip import weight_files
from rsicd_embed.embedder.layout import CLIP, CheckpointLayout
from rsicd_embed.errors import ModelError, RsicdEmbedError, first_line, one_line

BUNDLED = "bundled"
_BUNDLED_DIRECTORY = Path(__file__).parent / "bundled"
_HUB_ID = re.compile(r"(?P<repo>[\w][\w.-]*/[\w.-]+)(@(?P<revision>[\w./-]+))?")
# No repository is called like a file of a model.
_FILE = re.compile(r".*\.(pt|pth|bin|ckpt|safetensors|msgpack|npz|onnx|json|zip)", re.IGNORECASE)


@dataclass(frozen=True)
class Located:
    """A checkpoint's directory, and the name by which it is found again."""

    directory: Path
    name: str


def locate(model: str | Path | None, layout: CheckpointLayout = CLIP) -> Located:
    """Finds a model: None or "bundled", a directory, or a Hugging Face id with `@revision`.

    Only what is written like an id, `owner/name`, is looked for on the Hub.

    Raises:
        ModelError: it is none of these, or cannot be fetched; directories of similar names and
            the model directory in a run's folder are pointed out.
    """
    if model is None or str(model) == BUNDLED:
        return Located(_BUNDLED_DIRECTORY, BUNDLED)
    text = str(model)
    if not text.strip():
        raise ModelError("expected a model, found an empty name; leave --model out for the bundled")
    path = Path(text).expanduser()
    if path.is_dir():
        _refuse_other_folder(path)
        return Located(path, str(path.resolve()))
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
    """Folders that are easily taken for a model's.

    Raises:
        ModelError: it is one of them; the message says what to give instead.
    """
    if (path / "config.json").exists():
        return
    if (path / "run.json").is_file():
        best = path / "best"
        advice = f"give {best}" if best.is_dir() else "it has no best model yet: train on"
        raise ModelError(
            f"expected a model directory, found the folder of a training run: {path}; {advice}"
        )
    if (path / "manifest.json").is_file() or any(path.glob("*.lance")) or path.suffix == ".lance":
        raise ModelError(
            f"expected a model directory, found the folder of a store: {path}; "
            "give it to --store, and leave --model out for the model that made the store"
        )


def _description(text: str, path: Path, layout: CheckpointLayout) -> str:
    """What there is instead of a model, and what to do."""
    if path.exists():
        beside = (path.parent / layout.settings[0]).is_file()
        return f"a file: {text}" + (f"; give its folder, {path.parent}" if beside else "")
    scheme, colon, _ = text.partition(":")
    if colon and scheme in plugins.names(plugins.STORES):
        return (
            f"the URI of a store: {text}; give it to --store, and leave --model out for the "
            "model that made the store"
        )
    return f"no such directory: {text}{_suggestion(path)}"


def _suggestion(path: Path) -> str:
    """`; did you mean models/clip?`, if there are directories of such a name; else nothing."""
    missing = next((one for one in (path, *path.parents) if one.parent.is_dir()), path)
    try:
        names = [one.name for one in missing.parent.iterdir() if one.is_dir()]
    except OSError:
        return ""
    if missing.parent == path.parent == Path():
        names.append(BUNDLED)
    rest = path.relative_to(missing)
    near = [
        str(missing.with_name(name) / rest)
        for name in difflib.get_close_matches(missing.name, names)
        if name == BUNDLED or (missing.with_name(name) / rest).is_dir()
    ]
    return f"; did you mean {' or '.join(near)}?" if near else ""


# Without a network, a mistyped path should fail at once; the Hub's own setting comes first.
_PATIENCE_S = 2.5


class _UnreachableError(Exception):
    """The Hub does not answer."""


def download(repo: str, revision: str | None, layout: CheckpointLayout) -> Path:
    """The local directory of a repository's checkpoint; fetches only the files that are needed.

    With HF_HUB_OFFLINE set, without a network, or where the Hub fails, what is in the cache is
    used. The Hub is asked once, for at most 2.5 s or HF_HUB_ETAG_TIMEOUT, before anything else.

    Raises:
        ModelError: no network and not cached, no such repository or revision, gated, or files
            missing, all of which are named.
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
                f"{checkpoint_id} is no {layout.kind} checkpoint: expected "
                f"{', '.join(missing)} in the repository, found none"
            )
        paths = {name: fetch(name) for name in layout.used(has)}
        if weight_files.INDEX in paths:
            for shard in weight_files.shard_names(paths[weight_files.INDEX]):
                fetch(shard)
    return paths[layout.settings[0]].parent


def _ask(repo: str, revision: str | None, name: str) -> Exception | None:
    """Why the Hub does not give a file; None where it would.

    Asked once, without the retries of the Hub's library; on a thread, as no time limit applies to
    the resolution of a host's name.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import HfHubHTTPError

    url = hf_hub_url(repo, name, revision=revision)  # refuses what is no id
    patience_s = float(os.environ.get("HF_HUB_ETAG_TIMEOUT") or _PATIENCE_S)
    answers: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()

    def ask() -> None:
        try:
            get_hf_file_metadata(url, timeout=patience_s)
            answers.put(None)
        except HfHubHTTPError as error:
            answers.put(error)
        except Exception as error:  # of the HTTP client, which depends on the library's version
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
            f"{checkpoint_id} is gated: accept its terms on the Hub, and log in"
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
            f"({first_line(error)}); connect, or give a local directory"
        ) from error
    except EntryNotFoundError as error:
        raise ModelError(
            f"{checkpoint_id} is no {kind} checkpoint: a file is missing ({one_line(error)})"
        ) from error
    except HFValidationError as error:
        raise ModelError(
            f"{checkpoint_id} is no Hugging Face id: {error}; write owner/name"
        ) from error
    except Exception as error:  # HTTP and disk errors; see `_ask`
        raise ModelError(
            f"{checkpoint_id} cannot be fetched from the Hub: {first_line(error)}"
        ) from error
