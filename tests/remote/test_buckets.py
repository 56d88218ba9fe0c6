"""Ingest from buckets: the same rows as from local files, and nothing read twice."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import rsicd_embed
from rsicd_embed.datasets.base import ETAG
from rsicd_embed.datasets.sources import open_source
from rsicd_embed.images import read_rgb
from rsicd_embed.testing.embedders import picture

from ..helpers import IDS, Counting, counts, encoded, rows, run
from .faulty_s3 import SECRET, FaultyS3


def ingest(embedder: Counting, uri: str, *sources: str, **options: bool) -> tuple[int, ...]:
    with rsicd_embed.open_store(uri, embedder=embedder) as store:
        opened = rsicd_embed.open_sources(sources)
        return counts(rsicd_embed.ingest(opened, embedder, store, **options))


def images(*numbers: int) -> dict[str, bytes]:
    return {f"{number}.png": encoded(picture(number)) for number in numbers}


def tar_of(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return out.getvalue()


def table_of(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    cells = [{"bytes": data, "path": name} for name, data in files.items()]
    table = pa.table({"image": cells, "captions": [[f"a {name}"] for name in files]})
    pq.write_table(table, out, row_group_size=2)
    return out.getvalue()


@pytest.fixture
def no_reads(s3: FaultyS3) -> None:
    s3.requests.clear()


def reads(s3: FaultyS3, bucket: str) -> int:
    """Number of objects that were read since the last call."""
    count = sum(
        number
        for (method, path), number in s3.requests.items()
        if method == "GET" and path.startswith(f"/{bucket}/") and path.rpartition("/")[2]
    )
    s3.requests.clear()
    return count


def test_folder(
    s3: FaultyS3, bucket: str, pictures: Path, embedder: Counting, uri: str, tmp_path: Path
) -> None:
    s3.put(bucket, pictures)
    url = f"s3://{bucket}"
    assert ingest(embedder, uri, url) == (5, 0, 0, 0, 0)
    other = f"exact:{tmp_path / 'local'}"
    assert ingest(embedder, other, str(pictures)) == (5, 0, 0, 0, 0)
    remote, local = rows(uri), rows(other)
    assert list(remote) == list(local) == IDS
    for id_ in IDS:
        assert remote[id_]["vector"] == local[id_]["vector"]
        assert remote[id_]["sha256"] == local[id_]["sha256"]
        assert remote[id_]["uri"] == f"{url}/{id_}"
    # Unchanged objects are known by their ETag.
    reads(s3, bucket)
    embedder.taken()
    assert ingest(embedder, uri, url) == (0, 0, 5, 0, 0)
    assert (embedder.taken(), reads(s3, bucket)) == (0, 0)
    # A changed one is read and embedded, one with a new ETag for the same bytes only read.
    s3.client.put_object(Bucket=bucket, Key="a.png", Body=encoded(picture(77)))
    assert ingest(embedder, uri, url) == (1, 0, 4, 0, 0)
    assert (embedder.taken(), reads(s3, bucket)) == (1, 1)
    s3.client.delete_object(Bucket=bucket, Key="sub/e.png")
    assert ingest(embedder, uri, url) == (0, 0, 4, 0, 0)
    assert ingest(embedder, uri, url, prune=True) == (0, 0, 4, 1, 0)
    assert sorted(rows(uri)) == IDS[:-1]
    assert SECRET.encode() not in b"".join(
        path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()
    )


def test_prune_keeps_rows_of_other_sources(
    s3: FaultyS3, bucket: str, embedder: Counting, uri: str
) -> None:
    s3.put(bucket, {f"in/{name}": data for name, data in images(1, 2).items()})
    assert ingest(embedder, uri, f"s3://{bucket}") == (2, 0, 0, 0, 0)
    # The same images under other ids; the old rows' objects still exist.
    assert ingest(embedder, uri, f"s3://{bucket}/in", prune=True) == (2, 0, 0, 0, 0)
    s3.client.delete_object(Bucket=bucket, Key="in/1.png")
    assert ingest(embedder, uri, f"s3://{bucket}/in", prune=True) == (0, 0, 1, 2, 0)
    assert set(rows(uri)) == {"in/2.png", "2.png"}


def test_class_folders(s3: FaultyS3, bucket: str) -> None:
    files = {f"train/{c}/{n}.png": encoded(picture(n)) for n in (1, 2) for c in ("port", "farm")}
    s3.put(bucket, files)
    source = open_source(f"s3://{bucket}/")
    assert {(e.label, e.split) for e in source.examples} == {("port", "train"), ("farm", "train")}
    assert source.schema.names == ["label", "split", ETAG]


def test_manifest_of_objects_and_relative_paths(
    s3: FaultyS3, bucket: str, embedder: Counting, uri: str
) -> None:
    lines = [
        {"path": "../images/1.png", "lon": 1.5},
        {"path": f"s3://{bucket}/images/2.png", "lon": 2.5},
        {"path": "gone.png", "lon": 0},
    ]
    files = {f"images/{name}": data for name, data in images(1, 2).items()}
    files["lists/tiles.jsonl"] = "".join(f"{json.dumps(line)}\n" for line in lines).encode()
    s3.put(bucket, files)
    url = f"s3://{bucket}/lists/tiles.jsonl"
    assert ingest(embedder, uri, url) == (2, 0, 0, 0, 1)
    stored = rows(uri)
    assert stored["../images/1.png"]["uri"] == f"s3://{bucket}/images/1.png"
    assert [row["lon"] for row in stored.values()] == [1.5, 2.5]
    embedder.taken()
    assert ingest(embedder, uri, url) == (0, 0, 2, 0, 1)  # by conditional requests
    assert embedder.taken() == 0


@pytest.mark.parametrize("kind", ["tar", "parquet"])
def test_tars_and_tables(
    s3: FaultyS3, bucket: str, embedder: Counting, uri: str, tmp_path: Path, kind: str
) -> None:
    pack = tar_of if kind == "tar" else table_of
    name = f"shards/train-0.{kind}"
    s3.put(bucket, {name: pack(images(1, 2, 3))})
    url = f"s3://{bucket}/{name}"
    assert ingest(embedder, uri, url) == (3, 0, 0, 0, 0)
    stored = rows(uri)
    assert list(stored) == [f"train-0.{kind}/{number}.png" for number in (1, 2, 3)]
    for number, row in zip((1, 2, 3), stored.values(), strict=True):
        assert read_rgb(row["uri"]).tobytes() == picture(number).convert("RGB").tobytes()
        if kind == "parquet":
            assert row["captions"] == [f"a {number}.png"]
    embedder.taken()
    assert ingest(embedder, uri, url) == (0, 0, 3, 0, 0)
    # The same from a local file.
    path = tmp_path / f"train-0.{kind}"
    path.write_bytes(pack(images(1, 2, 3)))
    assert ingest(embedder, uri, str(path)) == (0, 3, 0, 0, 0)
    assert embedder.taken() == 0
    assert read_rgb(rows(uri)[f"train-0.{kind}/2.png"]["uri"]).size == picture(2).size
    # An image that is no longer in it is removed with --prune.
    s3.client.put_object(Bucket=bucket, Key=name, Body=pack(images(1, 3)))
    other = f"{uri}-pruned"
    path.write_bytes(pack(images(1, 2, 3)))
    assert ingest(embedder, other, str(path)) == (3, 0, 0, 0, 0)
    path.write_bytes(pack(images(1, 3)))
    removed = ingest(embedder, other, str(path), prune=True)
    assert removed[3] == 1
    assert list(rows(other)) == [f"train-0.{kind}/1.png", f"train-0.{kind}/3.png"]


def test_folder_of_tars(s3: FaultyS3, bucket: str, embedder: Counting, uri: str) -> None:
    s3.put(bucket, {"d/a.TAR": tar_of(images(1)), "d/b.parquet": table_of(images(2))})
    assert ingest(embedder, uri, f"s3://{bucket}/d") == (2, 0, 0, 0, 0)
    assert list(rows(uri)) == ["a.TAR/1.png", "b.parquet/2.png"]
    s3.client.delete_object(Bucket=bucket, Key="d/a.TAR")
    assert ingest(embedder, uri, f"s3://{bucket}/d", prune=True) == (0, 0, 1, 1, 0)


def test_command_line(
    s3: FaultyS3, bucket: str, pictures: Path, tiny_model: Path, uri: str
) -> None:
    s3.put(bucket, pictures)
    url = f"s3://{bucket}"
    outcome = run("ingest", url, "--store", uri, "--model", tiny_model, "--json")
    assert outcome.document["embedded"] == 5
    vectors = Path(uri.removeprefix("exact:")).with_name("vectors.parquet")
    embedded = run("embed", url, "-o", vectors, "--model", tiny_model, "--json")
    assert embedded.document["embedded"] == 5
    page = vectors.with_name("hits.html")
    search = run(
        "search", "a port", "--store", uri, "--model", tiny_model, "--format", "html", "-o", page
    )
    assert search.status == 0, search.stderr
    assert page.read_text("utf-8").count("data:image/jpeg") == 5
    patches = run("find", "a port", f"{url}/a.png", "--model", tiny_model, "--json", "-k", "1")
    assert patches.document["image"] == f"{url}/a.png"
    assert run("reembed", "--store", uri, "--model", tiny_model).status == 0


@pytest.mark.parametrize(
    "key",
    ["a b.png", "a+b%20c.png", "ü/木.png", "a#b?c.png", "q'\"&.png", "x#member=y&range=1,2.png"],
)
def test_odd_keys(s3: FaultyS3, bucket: str, embedder: Counting, uri: str, key: str) -> None:
    s3.put(bucket, {key: encoded(picture(1))})
    assert ingest(embedder, uri, f"s3://{bucket}") == (1, 0, 0, 0, 0)
    assert ingest(embedder, uri, f"s3://{bucket}") == (0, 0, 1, 0, 0)
    assert read_rgb(rows(uri)[key]["uri"]).size == picture(1).size


def test_a_key_that_cannot_be_expressed_is_listed(
    s3: FaultyS3, bucket: str, embedder: Counting, uri: str
) -> None:
    good = {f"{folder}/1.png": encoded(picture(1)) for folder in ("a", "z")}
    s3.put(bucket, {**good, "m/..": b"", "m/1.png": encoded(picture(2))})
    with rsicd_embed.open_store(uri, embedder=embedder) as store:
        summary = rsicd_embed.ingest(rsicd_embed.open_sources([f"s3://{bucket}"]), embedder, store)
    assert summary.embedded == 2
    assert [item.uri for item in summary.skipped] == [f"s3://{bucket}/m/"]
    assert "not listed: expected no empty parts" in summary.skipped[0].reason
