"""Captioned datasets (`dataset_*.json`) in buckets: the same rows as from local folders."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rsicd_embed.datasets.base import ETAG, Source
from rsicd_embed.datasets.sources import open_source
from rsicd_embed.errors import DatasetError
from rsicd_embed.testing.embedders import picture

from ..helpers import Counting, encoded, rows
from .faulty_s3 import FaultyS3, error
from .test_buckets import ingest


def entry(name: str, **fields: Any) -> dict[str, Any]:
    return {"filename": name, "split": "train", "sentences": [{"raw": f"a  {name}"}], **fields}


def dataset(*entries: Any, **files: bytes) -> dict[str, bytes]:
    listed = json.dumps({"images": entries}).encode()
    return {"dataset_x.json": listed, **files}


IMAGES = {f"images/{name}": encoded(picture(n)) for n, name in enumerate(("a b_1.png", "ü_2.png"))}
ENTRIES = [entry(name.partition("/")[2], split="val") for name in IMAGES]


@pytest.fixture
def both(
    s3: FaultyS3, bucket: str, tmp_path: Path
) -> Callable[[dict[str, bytes]], tuple[Source, Source]]:
    """A function that opens the same files in a bucket and in a folder."""

    def open_both(files: dict[str, bytes]) -> tuple[Source, Source]:
        s3.put(bucket, {f"d/{name}": data for name, data in files.items()})
        for name, data in files.items():
            path = tmp_path / "d" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return open_source(f"s3://{bucket}/d/"), open_source(tmp_path / "d")

    return open_both


def described(source: Source) -> list[tuple[str, str, dict[str, Any]]]:
    """Ids, files relative to the dataset, and attributes without the ETag."""
    return [
        (
            example.id,
            example.file.partition("/d/")[2],
            {name: value for name, value in example.attributes.items() if name != ETAG},
        )
        for example in source.examples
    ]


@pytest.mark.parametrize(
    "files",
    [
        dataset(*ENTRIES, **IMAGES),
        dataset(*ENTRIES, **IMAGES, **{"labels.json": b'{"\xc3\xbc_2.png": "port"}'}),
        dataset(*ENTRIES, **IMAGES, **{"txtclasses_x/farm.txt": b"a b_1.png\n"}),
        dataset(
            entry("1.png", filepath="val"), **{"val/1.png": encoded(picture(1)), "2.png": b"x"}
        ),
        dataset(*ENTRIES, entry("absent.png"), **IMAGES),
        {"dataset_info.json": b"{}", "port/1.png": encoded(picture(1))},
    ],
)
def test_same_as_local(both: Callable[..., Any], files: dict[str, bytes]) -> None:
    remote, local = both(files)
    assert described(remote) == described(local)
    names = [name for name in remote.schema.names if name != ETAG]
    assert names == local.schema.names
    assert str(remote.root).startswith("s3://")


def test_ingest(s3: FaultyS3, bucket: str, embedder: Counting, uri: str) -> None:
    s3.put(bucket, dataset(*ENTRIES, entry("absent.png"), **IMAGES))
    assert ingest(embedder, uri, f"s3://{bucket}") == (2, 0, 0, 0, 1)
    stored = rows(uri)
    row = stored["a b_1.png"]
    assert row["uri"] == f"s3://{bucket}/images/a b_1.png"
    assert (row["captions"], row["split"]) == (["a a b_1.png"], "val")
    embedder.taken()
    assert ingest(embedder, uri, f"s3://{bucket}") == (0, 0, 2, 0, 1)
    assert embedder.taken() == 0  # known by their ETags
    s3.put(bucket, dataset(ENTRIES[0]))
    s3.client.delete_object(Bucket=bucket, Key="images/ü_2.png")
    assert ingest(embedder, uri, f"s3://{bucket}", prune=True)[3] == 1


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (
            dataset(*ENTRIES, other=b"x"),
            "{url}/dataset_x.json: expected at least half of its 2 images",
        ),
        ({"dataset_x.json": b"{", **IMAGES}, "{url}/dataset_x.json: expected"),
        (dataset({"filename": 5}, **IMAGES), "{url}/dataset_x.json: expected"),
        (
            dataset(*ENTRIES, **IMAGES, **{"dataset_y.json": b'{"images": [{"filename": "a"}]}'}),
            "{url}: expected one dataset_*.json, found dataset_x.json, dataset_y.json",
        ),
        (dataset(**IMAGES), "{url}/dataset_x.json: expected images, found none"),
    ],
)
def test_refused(s3: FaultyS3, bucket: str, files: dict[str, bytes], words: str) -> None:
    s3.put(bucket, files)
    url = f"s3://{bucket}"
    with pytest.raises(DatasetError) as caught:
        open_source(url)
    assert str(caught.value).startswith(words.format(url=url)), str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unreadable_list_is_one_line(s3: FaultyS3, bucket: str) -> None:
    s3.put(bucket, dataset(*ENTRIES, **IMAGES))
    s3.fault = lambda method, path, start: (
        error(start, "403 Forbidden", "AccessDenied") if path.endswith(".json") else None
    )
    with pytest.raises(DatasetError, match=f"^s3://{bucket} cannot be read: .* denies access"):
        open_source(f"s3://{bucket}")
