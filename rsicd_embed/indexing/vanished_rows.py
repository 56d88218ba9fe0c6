"""Rows whose image is elsewhere by now, or nowhere."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, compress
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from rsicd_embed.datasets.base import Source, plain_path
from rsicd_embed.datasets.spooled_examples import Digests
from rsicd_embed.errors import RemoteError, RemoteMissingError
from rsicd_embed.images import container_of, file_of
from rsicd_embed.indexing.reconcile import KnownRows
from rsicd_embed.parallel import ordered_map
from rsicd_embed.records import all_of, any_of, sql_literal, with_ids
from rsicd_embed.remote import THREADS, head, is_remote
from rsicd_embed.stores.base import ConditionalDeleter, VectorStore


class MovedRows:
    """Rows whose image is now there under another id as well."""

    def __init__(self) -> None:
        self._moved: dict[str, str] = {}

    def add(self, known: KnownRows) -> None:
        """Adds the rows found for a batch."""
        self._moved |= known.moved

    def notes(self, sources: Sequence[Source]) -> list[str]:
        """A message about the rows that are in no source."""
        if self._moved:
            for source in sources:
                for example in source.examples:
                    self._moved.pop(example.id, None)
        if not self._moved:
            return []
        old, new = next(iter(self._moved.items()))
        return [
            f"{len(self._moved):,} images were in the store under other ids and are now there "
            f"twice, such as {old!r} as {new!r}; remove the old rows in Python with "
            "store.delete(ids)"
        ]


def remove_vanished(store: VectorStore, sources: Sequence[Source], blank: Sequence[str]) -> int:
    """Removes vanished rows, unless another process gave them a new uri meanwhile.

    Args:
        store: the store.
        sources: see `_vanished`.
        blank: ids of further rows to remove.

    Returns:
        The number of rows removed.
    """
    gone = _vanished(store, sources)
    if not gone or not isinstance(store, ConditionalDeleter):
        return store.delete([*gone, *blank])
    uris = ", ".join(map(sql_literal, dict.fromkeys(gone.values())))
    conditions = [all_of([with_ids(gone), f"uri IN ({uris})"])]
    return len(store.delete_where(any_of([*conditions, *([with_ids(blank)] if blank else [])])))


def _vanished(store: VectorStore, sources: Sequence[Source]) -> dict[str, str]:
    """Rows below a source's root that are in no source and whose image no longer exists: id → uri.

    An image is gone if its file is, or if the tar or table that a source has read in whole does not
    have it any more. Eight bytes are kept for each id and uri, so a row whose hash coincides with
    another's stays.
    """
    roots = [_Root(source.root) for source in sources]
    examples = [source.examples for source in sources]
    present = Digests(example.id for example in chain.from_iterable(examples))
    whole = [source.examples for source in sources if source.complete]
    containers = {
        file for example in chain.from_iterable(whole) if (file := container_of(example.file))
    }
    inside = Digests(example.uri for example in chain.from_iterable(whole if containers else []))
    gone: dict[str, str] = {}
    objects: list[tuple[str, str]] = []
    replaced: list[tuple[str, str, str | None]] = []
    with store.scan(["id", "uri", "sha256"]) as reader:
        for batch in reader:
            absent = batch.filter(pa.array(~present.have(batch["id"].to_pylist())))
            columns = (absent[name].to_pylist() for name in ("id", "uri", "sha256"))
            for id_, uri, sha256 in zip(*columns, strict=True):
                file = file_of(uri) if uri else ""
                if not file or not any(root.contains(file) for root in roots):
                    continue
                if file in containers and file != uri:
                    if inside.have([uri])[0]:
                        replaced.append((id_, uri, sha256))
                    else:
                        gone[id_] = uri
                elif is_remote(file):
                    objects.append((id_, uri))
                elif _is_gone(Path(file)):
                    gone[id_] = uri
    files = sorted({file_of(uri) for _, uri in objects})
    lost = set(compress(files, ordered_map(_is_gone_object, files, ahead=256, threads=THREADS)))
    gone |= {id_: uri for id_, uri in objects if file_of(uri) in lost}
    return gone | _overwritten(store, replaced, present)


def _overwritten(
    store: VectorStore, rows: Sequence[tuple[str, str, str | None]], present: Digests
) -> dict[str, str]:
    """The rows (id, uri, sha256) whose uri now has another image, under a present id: id → uri."""
    if not rows:
        return {}
    uris = pa.array(list({uri for _, uri, _ in rows}))
    now: dict[str, str | None] = {}
    with store.scan(["id", "uri", "sha256"]) as reader:
        for batch in reader:
            chosen = batch.filter(pc.is_in(batch["uri"], uris))
            chosen = chosen.filter(pa.array(present.have(chosen["id"].to_pylist()), pa.bool_()))
            now.update(zip(chosen["uri"].to_pylist(), chosen["sha256"].to_pylist(), strict=True))
    return {id_: uri for id_, uri, sha256 in rows if uri in now and now[uri] != sha256}


class _Root:
    """A source's root, a path or a URL."""

    def __init__(self, root: Path | str) -> None:
        self._url = root if isinstance(root, str) else None
        self._path = None if isinstance(root, str) else plain_path(root)

    def contains(self, file: str) -> bool:
        """Whether a file is the root or below it."""
        if self._path is not None:
            return not is_remote(file) and Path(file).is_relative_to(self._path)
        return file == self._url or file.startswith(f"{self._url}/")


def is_another(uri: str, other: str) -> bool:
    """Whether a file exists at `uri` and is not the one at `other`."""
    if is_remote(uri) or is_remote(other):
        return _exists(file_of(uri)) and file_of(uri) != file_of(other)
    try:
        return not Path(file_of(uri)).samefile(file_of(other))
    except (OSError, ValueError):
        return False


def _exists(file: str) -> bool:
    if not is_remote(file):
        return Path(file).exists()
    try:
        head(file)
    except RemoteError:
        return False
    return True


def _is_gone_object(url: str) -> bool:
    """Whether a remote object certainly does not exist."""
    try:
        head(url)
    except RemoteMissingError:
        return True
    except RemoteError:
        return False
    return False


def _is_gone(path: Path) -> bool:
    """Whether a file certainly does not exist; behind a broken link it may come back."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return not any(parent.is_symlink() and not parent.exists() for parent in path.parents)
    except OSError:
        return False
    return False
