"""Sources in buckets and on web servers: folders, images, manifests, tars and Parquet files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import PurePosixPath

import pyarrow as pa

from rsicd_embed.datasets import captioned, classes, image_tables, manifest, tar_archives
from rsicd_embed.datasets.base import ETAG, Example, Skipped, Source, with_etag
from rsicd_embed.datasets.folder import describe_unread
from rsicd_embed.datasets.spooled_examples import collect
from rsicd_embed.errors import DatasetError, RemoteError, RemoteMissingError, one_line
from rsicd_embed.files import temporary_folder
from rsicd_embed.images import SUFFIXES, UNREAD_SUFFIXES, open_table
from rsicd_embed.remote import (
    RemoteObject,
    RemoteUrl,
    fetch,
    head,
    list_objects,
    public_address,
)

_CONTAINERS = (tar_archives.SUFFIX, image_tables.SUFFIX)


def open_remote(url: str, *, allow_empty: bool = False) -> list[Source]:
    """Opens a source by its URL.

    A URL that ends in the suffix of an image, a manifest, a tar or a Parquet file is that file;
    every other one is a folder, of images, or else of tars and Parquet files.

    Args:
        url: a URL of `remote.SCHEMES`.
        allow_empty: accept a folder without images.

    Returns:
        One source, or one for each tar and Parquet file of a folder.

    Raises:
        DatasetError: it is missing, empty or malformed, or cannot be read.
    """
    with _dataset_errors(url):
        public = public_address(url)
        suffix = "" if public.endswith("/") else PurePosixPath(RemoteUrl.parse(public).path).suffix
    suffix = suffix.lower()
    with _dataset_errors(public):
        if suffix == tar_archives.SUFFIX:
            return [tar_archives.load(public)]
        if suffix == image_tables.SUFFIX:
            return [_table(public)]
        if suffix in manifest.SUFFIXES:
            return [with_etag(_manifest(public))]
        if suffix in SUFFIXES:
            described = head(public)
            name = PurePosixPath(RemoteUrl.parse(public).path).name
            return [with_etag(Source(public, (Example(name, public),)), described.etag)]
        return _folder(public.rstrip("/"), allow_empty=allow_empty)


@contextmanager
def _dataset_errors(url: str) -> Iterator[None]:
    try:
        yield
    except RemoteMissingError as error:
        raise DatasetError(f"expected a source, found nothing at {url}: {error}") from None
    except RemoteError as error:
        shown = url if "@" not in url.partition("://")[2].partition("/")[0] else "the source"
        raise DatasetError(f"{shown} cannot be read: {error}") from None


def _table(url: str, root: str | None = None, name: str | None = None) -> Source:
    """A Parquet file with images, or else a manifest."""
    try:
        schema = open_table(url)[0].schema_arrow
    except (pa.ArrowException, OSError) as error:
        raise DatasetError(f"{url} cannot be read as parquet: {one_line(error)}") from None
    if image_tables.image_column(schema) is None and root is None:
        return with_etag(_manifest(url))
    return image_tables.load(url, root, name)


def _manifest(url: str) -> Source:
    content = fetch(url)
    with temporary_folder() as folder:
        path = folder / f"manifest{PurePosixPath(RemoteUrl.parse(url).path).suffix.lower()}"
        path.write_bytes(content.data if content else b"")
        return manifest.latest(url, manifest.read(path, url))


def _folder(url: str, *, allow_empty: bool) -> list[Source]:
    listing = _Listing(url)
    if listing.metadata and (source := _captioned(url, listing)) is not None:
        return [source]
    if not len(listing.images) and listing.containers:
        return [_container(url, item) for item in listing.containers]
    if not len(listing.images):
        if listing.skipped or not allow_empty:
            raise DatasetError(
                f"expected images ({', '.join(sorted(SUFFIXES))}), tars or Parquet files in "
                f"{url}/, found {listing.without_images()}"
            )
        notes = [f"{url}/ has no images; the rows of its former images are removed"]
    else:
        notes = listing.notes()
    source = Source(
        url,
        listing.images,
        pa.schema([pa.field(ETAG, pa.string())]),
        skipped=tuple(listing.skipped),
        unread=dict(listing.unread),
        notes=tuple(notes),
    )
    return [classes.from_folder_names(source)]


def _captioned(url: str, listing: _Listing) -> Source | None:
    """A captioned dataset, if a folder has one; its JSON files are copied for the moment."""
    etags = {example.id: example.attributes[ETAG] for example in listing.images}
    folders = sorted({id_.partition("/")[0] for id_ in etags if "/" in id_})
    with temporary_folder() as folder:
        for name in listing.metadata:
            path = folder / name
            path.parent.mkdir(exist_ok=True)
            content = fetch(f"{url}/{name}")
            path.write_bytes(content.data if content else b"")
        try:
            files = captioned.ImageFiles(url, folders, etags.__contains__)
            source = captioned.describe(folder, lambda: files)
        except DatasetError as error:
            raise DatasetError(str(error).replace(str(folder), url)) from None
        if source is None:
            return None
        notes = [note.replace(str(folder), url) for note in source.notes]
    # Images that the folder lacks are read, and listed as skipped.
    examples = (
        replace(
            example,
            attributes={
                **example.attributes,
                ETAG: etags.get(example.file.removeprefix(f"{url}/"), ""),
            },
        )
        for example in source.examples
    )
    schema = source.schema.append(pa.field(ETAG, pa.string()))
    return replace(
        source,
        examples=collect(examples, schema),
        schema=schema,
        skipped=tuple(listing.skipped),
        notes=(*notes, *listing.notes()),
    )


def _container(url: str, item: RemoteObject) -> Source:
    name = item.url.removeprefix(f"{url}/")
    load = tar_archives.load if item.url.lower().endswith(tar_archives.SUFFIX) else _table
    return load(item.url, url, name)


class _Listing:
    """The objects below a folder.

    Attributes:
        images: by key, with their ETags.
        containers: tars and Parquet files.
        skipped: keys and parts that cannot be read.
        unread: number of image files in unsupported formats, by suffix.
        others: number of other files.
        metadata: names of the files that describe the images of a captioned dataset.
    """

    def __init__(self, url: str) -> None:
        self.containers: list[RemoteObject] = []
        self.skipped: list[Skipped] = []
        self.unread: Counter[str] = Counter()
        self.others = 0
        self.metadata: list[str] = []
        self._url = url
        self.images = collect(self._walk(), pa.schema([pa.field(ETAG, pa.string())]))
        if isinstance(self.images, tuple):  # providers that do not sort are rare
            self.images = tuple(sorted(self.images, key=lambda example: example.id))
        self.containers.sort(key=lambda item: item.url)

    def _walk(self) -> Iterator[Example]:
        for item in list_objects(
            self._url, lambda part, why: self.skipped.append(Skipped(part, why))
        ):
            if example := self._example(item):
                yield example

    def without_images(self) -> str:
        """Describes a folder without images."""
        parts = [describe_unread(self.unread)] if self.unread else []
        parts += [f"{self.others:,} other files"] if self.others else []
        text = " and ".join(parts) or "nothing"
        return f"{text}; {self.skipped[0].uri}: {self.skipped[0].reason}" if self.skipped else text

    def notes(self) -> list[str]:
        """Messages for the user about files that were not read."""
        notes = []
        if self.containers:
            notes.append(
                f"tars and Parquet files beside images are not read: {len(self.containers):,}, "
                f"such as {self.containers[0].url}; name them to ingest them"
            )
        return notes

    def _example(self, item: RemoteObject) -> Example | None:
        """The example of an image; other objects are counted."""
        id_ = item.url.removeprefix(f"{self._url}/")
        path = PurePosixPath(id_)
        suffix = path.suffix.lower()
        if any(part.startswith(".") for part in path.parts):
            self.others += 1
        elif suffix in SUFFIXES:
            return Example(id_, item.url, {ETAG: item.etag})
        elif suffix in _CONTAINERS:
            self.containers.append(item)
        elif suffix in UNREAD_SUFFIXES:
            self.unread[suffix] += 1
        else:
            self.others += 1
            if captioned.is_metadata(id_):
                self.metadata.append(id_)
        return None
