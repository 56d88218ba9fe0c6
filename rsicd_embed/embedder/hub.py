"""Checkpoints of the Hugging Face Hub, through its cache, pinned to a revision if asked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from rsicd_embed.embedder import training_words
from rsicd_embed.embedder.clip import checkpoint
from rsicd_embed.errors import ModelError, RsicdEmbedError


@dataclass(frozen=True)
class Layout:
    """What a checkpoint of one kind is made of.

    Attributes:
        kind: its name, for messages.
        example: the id of one, for messages.
        settings: files that it has; the first lies in the checkpoint's folder.
        vocabularies: sets of files, of which it has one, where there are any.
        optional: files that it may have.
        weights: files, of which it has one, where there are any; the first that is there is taken.
    """

    kind: str
    example: str
    settings: tuple[str, ...]
    vocabularies: tuple[tuple[str, ...], ...]
    optional: tuple[str, ...]
    weights: tuple[str, ...]


CLIP = Layout(
    kind="CLIP",
    example="openai/clip-vit-base-patch32",
    settings=("config.json", "preprocessor_config.json"),
    vocabularies=(("tokenizer.json",), ("vocab.json", "merges.txt")),
    optional=("tokenizer_config.json", training_words.FILE),
    weights=checkpoint.FILES,
)

# A CLIP's towers, without what they weigh.
CLIP_SHAPE = replace(CLIP, settings=("config.json",), vocabularies=(), optional=(), weights=())


def download(repo: str, revision: str | None = None, layout: Layout = CLIP) -> Path:
    """The local directory of a repository's checkpoint; fetches only the files that are needed.

    With HF_HUB_OFFLINE set, or without a network, what is in the cache is used.

    Raises:
        ModelError: no network and not cached, no such repository or revision, gated, or files
            missing.
    """
    from huggingface_hub import (
        _CACHED_NO_EXIST,
        hf_hub_download,
        try_to_load_from_cache,
    )
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    what = repo + (f"@{revision}" if revision else "")
    unreachable: list[Exception] = []

    def fetch(name: str) -> Path:
        return Path(hf_hub_download(repo, name, revision=revision))

    def fetch_if_there(*names: str) -> bool:
        try:
            for name in names:
                # Without a network, asking again for what is known to be absent takes 20 s.
                if try_to_load_from_cache(repo, name, revision=revision) is _CACHED_NO_EXIST:
                    return False
                fetch(name)
        except EntryNotFoundError as error:  # the cache alone cannot tell why
            if isinstance(error, LocalEntryNotFoundError):
                unreachable.append(error)
            return False
        return True

    def absent(names: tuple[str, ...]) -> Exception:
        if unreachable:
            return unreachable[0]
        return ModelError(
            f"{what} has none of {', '.join(names)}: it is no {layout.kind} checkpoint"
        )

    with _hub_errors(what, layout.kind):
        config, *_ = [fetch(name) for name in layout.settings]
        sets = layout.vocabularies
        if sets and not any(fetch_if_there(*names) for names in sets):
            raise absent(sum(sets, ()))
        for name in layout.optional:
            fetch_if_there(name)
        found = next((n for n in layout.weights if fetch_if_there(n)), None)
        if found is None and layout.weights:
            raise absent(layout.weights)
        if found == checkpoint.INDEX:
            for shard in checkpoint.shard_names(config.parent / found):
                fetch(shard)
    return config.parent


@contextmanager
def _hub_errors(what: str, kind: str) -> Iterator[None]:
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
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
        raise ModelError(f"{what} is gated: accept its terms on the Hub, and log in") from error
    except RevisionNotFoundError as error:
        raise ModelError(f"{what}: the repository has no such revision; name another") from error
    except RepositoryNotFoundError as error:
        raise ModelError(
            f"{what} is neither a directory here nor a model on the Hub; check the name, or log in"
        ) from error
    except LocalEntryNotFoundError as error:
        raise ModelError(
            f"{what} is not a directory here, and the Hugging Face Hub cannot be reached; "
            "connect, or give a local directory"
        ) from error
    except EntryNotFoundError as error:
        reason = " ".join(str(error).split())
        raise ModelError(f"{what} is no {kind} checkpoint: a file is missing ({reason})") from error
    except HFValidationError as error:
        raise ModelError(f"{what} is no Hugging Face id: {error}; write owner/name") from error
    except (HfHubHTTPError, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelError(f"{what} cannot be fetched from the Hub: {reason}") from error
