"""Downloads of checkpoints from the Hugging Face Hub; failures are reported in one line."""

from __future__ import annotations

import os
import queue
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rsicd_embed.embedder.clip import weight_files
from rsicd_embed.embedder.layout import CheckpointLayout, is_checkpoint
from rsicd_embed.errors import ModelError, RsicdEmbedError, first_line, one_line

# Short, so that a mistyped path fails quickly without a network; HF_HUB_ETAG_TIMEOUT overrides it.
_PATIENCE_S = 2.5

_MOST_LISTED = 12  # checkpoints in a message


class _UnreachableError(Exception):
    """The Hub does not answer."""


def download(repo: str, revision: str | None, *layouts: CheckpointLayout) -> Path:
    """Downloads the required files of a checkpoint, and returns its local directory.

    Cached files are used if HF_HUB_OFFLINE is set or the Hub cannot be reached within 2.5 s
    (HF_HUB_ETAG_TIMEOUT changes this limit).

    Args:
        repo: OWNER/NAME.
        revision: branch, tag or commit; None for the main branch.
        layouts: the first that the repository has completely is used.

    Raises:
        ModelError: the Hub cannot be reached and the model is not cached, the repository or
            revision does not exist, access is gated, files are missing, or the disk is too small.
    """
    from huggingface_hub.errors import EntryNotFoundError

    source = _Repository(repo, revision)
    first = layouts[0]
    with _hub_errors(source.name, first.kind):
        failure = _ask(repo, revision, first.settings[0])
        source.failure = None if isinstance(failure, EntryNotFoundError) else failure
        layout = next((each for each in layouts if not each.missing(source.has)), None)
        if layout is None and source.failure is not None:
            raise source.failure
        if layout is None:
            raise ModelError(
                f"{source.name} is not a {first.kind} checkpoint: expected "
                f"{', '.join(first.missing(source.has))} in the repository, found "
                f"{source.checkpoints() or 'none'}"
            )
        paths = {name: source.fetch(name) for name in layout.used(source.has)}
        if weight_files.INDEX in paths:
            for shard in weight_files.shard_names(paths[weight_files.INDEX]):
                source.fetch(shard)
    return paths[layout.settings[0]].parent


def fetch(repo: str, revision: str | None, name: str) -> Path:
    """Downloads one file of a repository; see `download`.

    Raises:
        ModelError: as `download`; a missing file is reported with the checkpoints that exist.
    """
    from huggingface_hub.errors import EntryNotFoundError

    source = _Repository(repo, revision)
    with _hub_errors(source.name, "CLIP"):
        failure = _ask(repo, revision, name)
        if isinstance(failure, EntryNotFoundError):
            raise ModelError(
                f"expected {name} in {source.name}, found {source.checkpoints() or 'no such file'}"
            )
        source.failure = failure
        if failure is not None and not source.has(name):
            raise failure
        return source.fetch(name)


class _Repository:
    """A revision of a repository: on the Hub, or its cached files after a `failure`."""

    def __init__(self, repo: str, revision: str | None) -> None:
        self._repo, self._revision = repo, revision
        self.name = repo + (f"@{revision}" if revision else "")
        self.failure: Exception | None = None

    def has(self, name: str) -> bool:
        """Whether there is such a file."""
        from huggingface_hub import try_to_load_from_cache
        from huggingface_hub.errors import EntryNotFoundError

        cached = try_to_load_from_cache(self._repo, name, revision=self._revision)
        if isinstance(cached, str) or self.failure is not None:
            return isinstance(cached, str)
        answer = _ask(self._repo, self._revision, name)
        if answer is not None and not isinstance(answer, EntryNotFoundError):
            raise answer
        return answer is None

    def fetch(self, name: str) -> Path:
        """Downloads a file unless it is cached; returns its local path."""
        from huggingface_hub import constants, hf_hub_download, hf_hub_url, try_to_load_from_cache
        from huggingface_hub import get_hf_file_metadata as metadata

        revision, offline = self._revision, self.failure is not None
        cached = try_to_load_from_cache(self._repo, name, revision=revision)
        if not offline and not isinstance(cached, str) and is_checkpoint(name):
            size = metadata(hf_hub_url(self._repo, name, revision=revision)).size or 0
            folder = Path(constants.HF_HUB_CACHE)
            existing = next(path for path in (folder, *folder.parents) if path.exists())
            free = shutil.disk_usage(existing).free
            if size > free:
                raise ModelError(
                    f"{self.name}: {name} is {size / 1e9:.1f} GB, but {folder} has only "
                    f"{free / 1e9:.1f} GB of free space; make room, or set HF_HUB_CACHE"
                )
        return Path(hf_hub_download(self._repo, name, revision=revision, local_files_only=offline))

    def checkpoints(self) -> str:
        """Lists the checkpoints of the repository, as `--model` takes them; empty without any."""
        from huggingface_hub import HfApi

        api, patience_s = HfApi(), _patience_s()
        try:  # `list_repo_files` would retry for 23 s
            info = api.model_info(self._repo, revision=self._revision, timeout=patience_s)
        except Exception:  # the list is only advice
            return ""
        names = [sibling.rfilename for sibling in info.siblings or ()]
        files = sorted(filter(is_checkpoint, names))
        shown = ", ".join(f"{self.name}:{name}" for name in files[:_MOST_LISTED])
        more = f" and {len(files) - _MOST_LISTED} more" if len(files) > _MOST_LISTED else ""
        return f"checkpoints without a config; name one of {shown}{more}" if files else ""


def _patience_s() -> float:
    return float(os.environ.get("HF_HUB_ETAG_TIMEOUT") or _PATIENCE_S)


def _ask(repo: str, revision: str | None, name: str) -> Exception | None:
    """Checks that the Hub has a file; returns the error, or None.

    There is a single request, without the library's retries. It runs on a thread because host name
    resolution has no timeout.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import HfHubHTTPError

    url = hf_hub_url(repo, name, revision=revision)  # raises an error for an invalid id
    patience_s = _patience_s()
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
