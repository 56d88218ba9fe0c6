"""Checkpoints of the Hugging Face Hub, through its cache, pinned to a revision if asked."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rsicd_embed.embedder.clip import weight_files
from rsicd_embed.embedder.layout import CheckpointLayout
from rsicd_embed.errors import ModelError, RsicdEmbedError

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
            answers.put(_UnreachableError(_first_line(error)))

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
            f"({_first_line(error)}); connect, or give a local directory"
        ) from error
    except EntryNotFoundError as error:
        reason = " ".join(str(error).split())
        raise ModelError(
            f"{checkpoint_id} is no {kind} checkpoint: a file is missing ({reason})"
        ) from error
    except HFValidationError as error:
        raise ModelError(
            f"{checkpoint_id} is no Hugging Face id: {error}; write owner/name"
        ) from error
    except Exception as error:  # HTTP and disk errors; see `_ask`
        raise ModelError(
            f"{checkpoint_id} cannot be fetched from the Hub: {_first_line(error)}"
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
