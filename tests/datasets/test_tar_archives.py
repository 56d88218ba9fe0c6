"""WebDataset tars: samples, ids, values, and tars that are damaged."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from rsicd_embed.datasets.sources import open_source, open_sources
from rsicd_embed.errors import DatasetError, ImageError
from rsicd_embed.images import TarMember, container_of, file_of, read_address


def write_tar(path: Path, files: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
        folder = tarfile.TarInfo("folder")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
    return path


def test_samples(tmp_path: Path) -> None:
    path = write_tar(
        tmp_path / "t.tar",
        {
            "./0001.jpg": b"one",
            "./0001.txt": b"a port\n\n many  boats \n",
            "./0001.cls": b"port",
            "./0001.json": b'{"lon": 1.5, "sha256": "x", "uri": "http://h/1.jpg", "tile": "007"}',
            "sub/0002.seg.PNG": b"two",
            "sub/0002.json": b'{"lon": 2}',
            "0003.jpg": b"three",
            "0003.json": b"[1]",
            ".hidden.jpg": b"no",
            "readme.md": b"no",
        },
    )
    source = open_source(path)
    assert [e.id for e in source.examples] == [
        "t.tar/0001.jpg",
        "t.tar/sub/0002.seg.PNG",
        "t.tar/0003.jpg",
    ]
    first = source.examples[0].attributes
    assert first == {"captions": ["a port", "many boats"], "label": "port", "lon": 1.5} | {
        "tile": "007"
    }
    assert [e.attributes["lon"] for e in source.examples] == [1.5, 2.0, None]
    assert [read_address(e.uri) for e in source.examples] == [b"one", b"two", b"three"]
    assert [(s.uri, s.reason) for s in source.skipped] == [
        (f"{path}#member=0003.json", "expected a JSON object, found list")
    ]
    assert source.root == path
    assert file_of(source.examples[0].uri) == container_of(source.examples[0].uri) == str(path)


def test_plain_images_have_no_columns(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "t.tar", {f"{n}.jpg": bytes([n]) for n in range(3)})
    (source,) = open_sources([path])
    assert (len(source.examples), source.schema.names, source.rows) == (3, [], None)


def test_truncated_tars_keep_their_beginning(tmp_path: Path) -> None:
    whole = write_tar(tmp_path / "t.tar", {f"{n}.jpg": b"x" * 2000 for n in range(3)})
    whole.write_bytes(whole.read_bytes()[:4000])
    source = open_source(whole)
    assert 1 <= len(source.examples) <= 2
    assert "truncated or damaged tar" in source.skipped[0].reason
    with pytest.raises(ImageError, match="expected a tar of at least"):
        read_address(f"{whole}#member=x&range=3000,2000")


@pytest.mark.parametrize(
    ("cut", "images", "message"),
    [
        (1536, 1, "expected a header at byte 1,536, found the end of the file"),
        (1800, 1, "expected a header at byte 1,536, found other data"),
        (2048, 1, "unexpected end of data"),  # within a text
        (2500, 1, "unexpected end of data"),
        (3584, 2, "found the end of the file"),
    ],
)
def test_tars_that_end_early_are_incomplete(
    tmp_path: Path, cut: int, images: int, message: str
) -> None:
    files = {"1.jpg": b"x" * 600, "2.txt": b"x" * 500, "2.jpg": b"x" * 100}
    whole = write_tar(tmp_path / "t.tar", files)
    data = whole.read_bytes()
    assert open_source(whole).complete
    whole.write_bytes(data[:cut])
    source = open_source(whole)
    assert (len(source.examples), source.complete) == (images, False)
    assert message in source.skipped[0].reason
    whole.write_bytes(data[:100])
    with pytest.raises(DatasetError):
        open_source(whole)


def test_damaged_headers_and_joined_tars_are_incomplete(tmp_path: Path) -> None:
    whole = write_tar(tmp_path / "t.tar", {"1.jpg": b"x" * 600, "2.jpg": b"x"})
    data = whole.read_bytes()
    for changed, message in (
        (data[:1600] + b"#" + data[1601:], "expected a header at byte 1,536, found other data"),
        (data + data, "expected its end at byte 3,072, found more"),
    ):
        whole.write_bytes(changed)
        source = open_source(whole)
        assert not source.complete
        assert message in source.skipped[0].reason


def test_text_that_is_not_unicode_is_skipped(tmp_path: Path) -> None:
    files = {"1.jpg": b"x", "1.json": b'{"a": "\\ud800"}', "2.jpg": b"y", "2.json": b'{"a": 1}'}
    source = open_source(write_tar(tmp_path / "t.tar", files))
    assert [example.attributes["a"] for example in source.examples] == [None, 1]
    assert "surrogates not allowed" in source.skipped[0].reason


@pytest.mark.parametrize(
    ("mode", "content", "message"),
    [
        ("w:gz", {"1.jpg": b"x"}, "expected an uncompressed tar"),
        ("w", {"readme.md": b"x"}, "expected a tar of images, found none"),
    ],
)
def test_refused(tmp_path: Path, mode: str, content: dict[str, bytes], message: str) -> None:
    path = write_tar(tmp_path / "t.tar", content, mode)
    with pytest.raises(DatasetError, match=message):
        open_source(path)


@pytest.mark.parametrize("others", [{}, {"1.txt": b"a"}])
def test_repeated_members_keep_the_last(tmp_path: Path, others: dict[str, bytes]) -> None:
    path = write_tar(tmp_path / "t.tar", {"1.jpg": b"old", **others})
    with tarfile.open(path, "a") as tar:
        member = tarfile.TarInfo("1.jpg")
        member.size = 3
        tar.addfile(member, io.BytesIO(b"new"))
    (example,) = open_source(path).examples
    assert read_address(example.uri) == b"new"


def test_addresses() -> None:
    member = TarMember("/a/b#c.tar", "d/e&f#g.jpg", 512, 7)
    assert TarMember.parse(str(member)) == member
    assert TarMember.parse("/a/b.tar#member=x") is None
    assert container_of("/a/b.jpg") is None
