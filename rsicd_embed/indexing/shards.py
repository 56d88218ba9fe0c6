"""Parts of one embedding job: each of N processes embeds its shard, and `import` joins them.

An image belongs to a shard by a hash of its id, so that processes need not talk to each other. A
part is a row file, `part-00003-of-00016.parquet`, and a JSON file beside it that is written last:
a part without one is not complete.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from rsicd_embed import rowfile
from rsicd_embed.datasets.base import Skipped, Source
from rsicd_embed.datasets.spooled_examples import collect
from rsicd_embed.embedder.base import Embedder, provenance
from rsicd_embed.errors import ArgumentError, DatasetError, StoreError
from rsicd_embed.files import (
    FileEntry,
    storage_errors,
    sync_folder,
    verify,
    write_file,
)
from rsicd_embed.indexing.ingest import Progress, Summary, ingest
from rsicd_embed.stores.base import open_store

_FORMAT = 1


@dataclass(frozen=True)
class Shard:
    """One of several shards of a job's images.

    Attributes:
        number: from 0, as array indexes of Slurm and of Kubernetes jobs are.
        of: number of shards.
    """

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Reads `3/16`.

        Raises:
            ArgumentError: it is not such a text, or there is no such shard.
        """
        match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
        number, of = map(int, match.groups()) if match else (0, 0)
        if number >= of:
            raise ArgumentError(
                f"expected a shard such as 0/16, numbered from 0 to 15, found {text!r}"
            )
        return cls(number, of)

    @property
    def name(self) -> str:
        """Name of the part's files, without a suffix."""
        return f"part-{self.number:05}-of-{self.of:05}"

    def has(self, id_: str) -> bool:
        """Whether an image belongs to the shard."""
        digest = hashlib.sha256(id_.encode()).digest()
        return int.from_bytes(digest[:8], "big") % self.of == self.number

    def select(self, sources: Sequence[Source]) -> list[Source]:
        """The shard of each source. What a source could not read is reported by shard 0."""
        selected = []
        for source in sources:
            chosen = (example for example in source.examples if self.has(example.id))
            own = collect(chosen, source.schema)
            rows = source.rows and source.rows.of(own)
            source = replace(source, examples=own, rows=rows)
            if self.number:
                source = replace(source, skipped=(), unread={}, notes=())
            selected.append(source)
        return selected


@dataclass(frozen=True)
class ShardPart:
    """A complete part, as its JSON file describes it.

    Attributes:
        number: number of the shard.
        of: number of shards.
        images: digest of the ids of all shards' images, which parts of one job share.
        fingerprint: fingerprint of the model.
        file: the row file.
        rows: number of its rows.
        skipped: images that could not be read, with reasons.
    """

    number: int
    of: int
    images: str
    fingerprint: str
    file: FileEntry
    rows: int
    skipped: tuple[Skipped, ...]

    @classmethod
    def read(cls, path: Path) -> ShardPart:
        """Reads a part's JSON file.

        Raises:
            DatasetError: it is damaged, or of another format version.
        """
        try:
            values: dict[str, Any] = json.loads(path.read_text("utf-8"))
            if values.pop("format") != _FORMAT:
                raise ValueError("format")
            skipped = tuple(Skipped(**skip) for skip in values.pop("skipped"))
            return cls(file=FileEntry(**values.pop("file")), skipped=skipped, **values)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise DatasetError(
                f"{path}: expected a part that embed --shard wrote, found damaged JSON; "
                "remove it and embed this shard again"
            ) from error

    def write(self, path: Path) -> None:
        """Writes the part's JSON file atomically."""
        text = json.dumps({"format": _FORMAT, **asdict(self)}, indent=1, ensure_ascii=False)
        write_file(path, lambda aside: aside.write_text(text, "utf-8"))


def write_shard(
    sources: Sequence[Source],
    embedder: Embedder,
    folder: Path,
    shard: Shard,
    *,
    strict: bool = False,
    column_types: Mapping[str, str] | None = None,
    progress: Progress = lambda done: None,
) -> Summary:
    """Embeds a shard of the sources into a part in `folder`, which is created.

    An interrupted run continues where it stopped. A complete part is not embedded again.

    Raises:
        ImageError: an image is unreadable, if `strict`.
        StoreError: the folder cannot be written, or has a part of another model or of other images.
    """
    images = _digest(example.id for source in sources for example in source.examples)
    path, model = folder / f"{shard.name}.json", provenance(embedder)
    if path.exists():
        part = ShardPart.read(path)
        if (part.images, part.fingerprint) != (images, model.fingerprint):
            raise StoreError(
                f"{path} is a part of another model or other images; choose another folder"
            )
        _verify(folder, part)
        return Summary(unchanged=part.rows, skipped=list(part.skipped))
    own = shard.select(sources)
    ids = pa.array([example.id for source in own for example in source.examples], pa.string())
    rows_path, unfinished = folder / f"{shard.name}.parquet", folder / f".{shard.name}"
    with storage_errors(f"cannot write {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
        with open_store(f"exact:{unfinished}", model) as store:
            summary = ingest(
                own,
                embedder,
                store,
                strict=strict,
                column_types=column_types,
                progress=progress,
            )
            reader = store.scan()
            # Images that were removed since an interrupted run are left out.
            batches = (batch.filter(pc.is_in(batch["id"], value_set=ids)) for batch in reader)
            written = rowfile.write(rows_path, batches, reader.schema, model)
        entry = FileEntry(rows_path.name, written.bytes, written.sha256)
        part = ShardPart(
            number=shard.number,
            of=shard.of,
            images=images,
            fingerprint=model.fingerprint,
            file=entry,
            rows=written.rows,
            skipped=tuple(summary.skipped),
        )
        part.write(path)
        sync_folder(folder)
        shutil.rmtree(unfinished, ignore_errors=True)
    return summary


def row_files(folder: Path) -> list[Path]:
    """The row files of a job's parts, which are checked; empty if the folder has no parts.

    Raises:
        DatasetError: a part is missing, belongs to another job, or is damaged.
    """
    parts = [ShardPart.read(path) for path in sorted(folder.glob("part-*-of-*.json"))]
    if not parts:
        return []
    first = parts[0]
    for part in parts:
        if part.of != first.of:
            raise DatasetError(
                f"{folder}: expected the parts of one job, found parts of {first.of} and of "
                f"{part.of}; use one folder per job"
            )
        if part.images != first.images:
            raise DatasetError(
                f"{folder}: part {part.number} was made from another list of images than part "
                f"{first.number}; the sources have changed: embed all parts again"
            )
    missing = sorted(set(range(first.of)) - {part.number for part in parts})
    if missing:
        listed = ", ".join(map(str, missing[:5])) + (", …" if len(missing) > 5 else "")
        raise DatasetError(
            f"{folder}: expected {first.of} parts, found {len(parts)}; missing: {listed}; "
            f"complete them with rsicd-embed embed … --shard {missing[0]}/{first.of} -o {folder}"
        )
    return [_verify(folder, part) for part in parts]


def _verify(folder: Path, part: ShardPart) -> Path:
    described = f"{Path(part.file.name).stem}.json"
    remedy = f"remove {described} and embed shard {part.number}/{part.of} again"
    try:
        return verify(folder, part.file, remedy)
    except FileNotFoundError:
        raise DatasetError(
            f"{folder}: expected {part.file.name} beside {described}, found none; {remedy}"
        ) from None


def _digest(ids: Iterable[str]) -> str:
    """A digest of ids that does not depend on their order."""
    digest = hashlib.sha256()
    for id_ in sorted(ids):
        digest.update(hashlib.sha256(id_.encode()).digest())
    return digest.hexdigest()
