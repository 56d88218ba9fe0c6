"""WebDataset tars: images, each with its caption, class and attributes in members beside it."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, cast

from rsicd_embed.datasets import manifest
from rsicd_embed.datasets.base import Example, Skipped, Source, plain_path, with_etag
from rsicd_embed.datasets.text import parse_json
from rsicd_embed.errors import DatasetError, RemoteError, one_line
from rsicd_embed.files import temporary_folder
from rsicd_embed.images import SUFFIXES as IMAGE_SUFFIXES
from rsicd_embed.images import TarMember
from rsicd_embed.remote import RemoteFile, is_remote

SUFFIX = ".tar"
_BUFFER_BYTES = 8 << 20  # size of one request
_MOST_TEXT_BYTES = 1 << 20
_MOST_PADDING_BYTES = 1 << 20  # after the end, up to a multiple of 10 KiB by default
_CAPTIONS, _CLASS, _ATTRIBUTES = (".txt", ".caption"), ".cls", ".json"


@dataclass
class _Sample:
    """The members of a tar that share the name before their first dot."""

    images: list[TarMember] = field(default_factory=list)
    values: dict[str, Any] = field(default_factory=dict)


@dataclass
class TarIndex:
    """The images of one tar.

    Attributes:
        examples: images whose samples have no values.
        rows: one JSON object for each image otherwise.
        skipped: members that cannot be used.
        etag: ETag of a remote tar.
        complete: whether the tar was read to its end.
    """

    examples: list[Example] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    etag: str = ""
    complete: bool = True


def load(address: str, root: Path | str | None = None, name: str | None = None) -> Source:
    """Reads the members of an uncompressed tar; a remote one is read once from end to end.

    An image's id is the tar's name and its own, such as `tiles-0007.tar/000123.jpg`. Members with
    the same name up to the first dot belong to one sample: `.txt` has its captions, one per line,
    `.cls` its class, and `.json` further attributes.

    Args:
        address: path or URL.
        root: the source's root; the tar by default.
        name: beginning of the ids; the tar's name by default.

    Raises:
        DatasetError: it cannot be read, is compressed, or has no images.
    """
    if not is_remote(address):
        address = str(plain_path(Path(address)))
    name = name or PurePosixPath(address).name
    index = read_index(address, name)
    if not index.rows and not index.examples:
        why = "".join(f"; {skipped.reason}" for skipped in index.skipped[:1])
        raise DatasetError(f"{address}: expected a tar of images, found none in it{why}")
    source = _with_values(index, address) if index.rows else Source("", tuple(index.examples))
    source = replace(
        source,
        root=root or (address if is_remote(address) else Path(address)),
        skipped=(*index.skipped, *source.skipped),
        complete=index.complete,
    )
    return with_etag(source, index.etag)


def read_index(address: str, name: str) -> TarIndex:
    """Lists the images of a tar.

    Raises:
        DatasetError: it cannot be read, or is compressed.
    """
    index = TarIndex()
    samples: dict[str, _Sample] = {}
    try:
        with _opened(address, index) as tar:
            for member in _members(tar):
                _add(tar, member, address, samples, index)
    except tarfile.TarError as error:
        why = f"truncated or damaged tar: {one_line(error, limit=200)}; its end is left out"
        index.skipped.append(Skipped(address, why))
        index.complete = False
    except (OSError, RemoteError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise DatasetError(f"{address}: {reason or error}") from error
    has_values = any(sample.values for sample in samples.values())
    plain: dict[str, Example] = {}  # the last of repeated members
    for sample in samples.values():
        for image in sample.images:
            id_ = f"{name}/{image.name.removeprefix('./')}"
            if has_values:
                index.rows.append({**sample.values, "uri": str(image), "id": id_})
            else:
                plain[id_] = Example(id_, str(image))
    index.examples += plain.values()
    return index


def _opened(address: str, index: TarIndex) -> tarfile.TarFile:
    try:
        if not is_remote(address):
            return tarfile.open(address, "r:")
        file = RemoteFile(address)
        index.etag = file.object.etag
        buffered = io.BufferedReader(cast(io.RawIOBase, file), _BUFFER_BYTES)
        return tarfile.open(fileobj=buffered, mode="r:")
    except tarfile.TarError as error:
        raise DatasetError(
            f"{address}: expected an uncompressed tar, found another format "
            f"({one_line(error, limit=100)}); unpack it, or pack it without compression"
        ) from error


def _members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """The members up to the end.

    Raises:
        TarError: the tar is damaged or truncated, or continues after its end.
    """
    for member in iter(tar.next, None):
        tar.members.clear()  # type: ignore[attr-defined]  # tarfile keeps all of them
        yield member
    assert tar.fileobj is not None
    tar.fileobj.seek(tar.offset)
    block = tar.fileobj.read(tarfile.BLOCKSIZE)
    # tarfile ends at any block that is no header.
    if len(block) < tarfile.BLOCKSIZE or block.strip(tarfile.NUL):
        raise tarfile.ReadError(f"expected a header at byte {tar.offset:,}, found {_shown(block)}")
    if tar.fileobj.read(_MOST_PADDING_BYTES).strip(tarfile.NUL):
        raise tarfile.ReadError(
            f"expected its end at byte {tar.offset:,}, found more; unpack tars joined by cat with "
            "tar --ignore-zeros"
        )


def _shown(block: bytes) -> str:
    return "other data" if block.strip(tarfile.NUL) else "the end of the file"


def _add(
    tar: tarfile.TarFile,
    member: tarfile.TarInfo,
    address: str,
    samples: dict[str, _Sample],
    index: TarIndex,
) -> None:
    path = PurePosixPath(member.name)
    suffix = path.suffix.lower()
    if not member.isreg() or member.sparse is not None or path.name.startswith("."):
        return
    key = str(path.with_name(path.name.partition(".")[0]))
    shown = f"{address}#member={member.name}"
    try:
        member.name.encode()
    except UnicodeEncodeError:
        named = shown.encode("utf-8", "backslashreplace").decode()
        index.skipped.append(Skipped(named, "expected a UTF-8 file name"))
        return
    if suffix in IMAGE_SUFFIXES:
        image = TarMember(address, member.name, member.offset_data, member.size)
        samples.setdefault(key, _Sample()).images.append(image)
    elif suffix in (*_CAPTIONS, _CLASS, _ATTRIBUTES):
        try:
            values = _values(_text(tar, member), suffix)
        except ValueError as error:
            index.skipped.append(Skipped(shown, one_line(error, limit=200)))
            return
        samples.setdefault(key, _Sample()).values.update(values)


def _text(tar: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    if member.size > _MOST_TEXT_BYTES:
        raise ValueError(f"expected at most {_MOST_TEXT_BYTES:,} bytes of text")
    file = tar.extractfile(member)
    return file.read().decode("utf-8-sig") if file else ""


def _values(text: str, suffix: str) -> dict[str, Any]:
    if suffix in _CAPTIONS:
        lines = [" ".join(line.split()) for line in text.splitlines()]
        return {"captions": [line for line in lines if line]}
    if suffix == _CLASS:
        return {"label": text.strip()} if text.strip() else {}
    values = parse_json(text)
    if not isinstance(values, dict):
        raise ValueError(f"expected a JSON object, found {type(values).__name__}")
    json.dumps(values, ensure_ascii=False).encode()  # lone surrogates are no text
    return values


def _with_values(index: TarIndex, address: str) -> Source:
    """A source with the values of the samples as typed columns, by the rules of manifests."""
    with temporary_folder() as folder:
        path = folder / "samples.jsonl"
        with path.open("w", encoding="utf-8") as file:
            for row in index.rows:
                file.write(f"{json.dumps(row)}\n")
        return manifest.latest(address, manifest.read(path, address))
