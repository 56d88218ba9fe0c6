"""Folders and single files as sources."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsicd_embed.datasets import folder
from rsicd_embed.datasets.base import Example, Skipped
from rsicd_embed.datasets.sources import open_source, open_sources
from rsicd_embed.errors import DatasetError
from rsicd_embed.images import PLUGIN_SUFFIXES, SUFFIXES, UNREAD_SUFFIXES


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    return path


def test_ids_are_relative_paths_in_order(tmp_path: Path) -> None:
    for name in ["b.JPG", "a/z.png", "a/y.tif", "a.jpg", "notes.txt", ".hidden.png", ".git/x.png"]:
        touch(tmp_path / name)
    source = open_source(tmp_path)
    assert [example.id for example in source.examples] == ["a.jpg", "a/y.tif", "a/z.png", "b.JPG"]
    assert source.examples[1] == Example("a/y.tif", str(tmp_path / "a" / "y.tif"))
    assert (source.root, source.skipped, len(source.schema)) == (tmp_path, (), 0)


@pytest.mark.parametrize(
    "name",
    ["ülkü.png", "海港.jpg", "it's.png", 'a "quote".png', "two\nlines.png", "a;b'--.tif", " .png"],
)
def test_any_utf8_name_is_an_id(tmp_path: Path, name: str) -> None:
    path = touch(tmp_path / name)
    assert open_source(tmp_path).examples == (Example(name, str(path)),)
    assert open_source(path).examples == (Example(name, str(path)),)


def test_a_name_that_is_not_utf8_is_reported(tmp_path: Path) -> None:
    touch(tmp_path / "a.png")
    bad = Path(os.fsdecode(os.fsencode(tmp_path / "b") + b"\xff.png"))
    try:
        touch(bad)
    except OSError:
        pytest.skip("this file system takes only UTF-8 names")
    expected = Skipped(f"{tmp_path}/b\\xff.png", "expected a UTF-8 file name; rename it")
    source = open_source(tmp_path)
    assert [example.id for example in source.examples] == ["a.png"]
    assert source.skipped == (expected,)
    with pytest.raises(DatasetError, match=r"b\\xff\.png; rename it"):
        open_source(bad)
    (tmp_path / "a.png").unlink()
    with pytest.raises(DatasetError, match=r"found nothing; .*b\\xff\.png: expected a UTF-8"):
        open_source(tmp_path)


def test_a_folder_that_cannot_be_listed_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path / "a.png")
    touch(tmp_path / "secret" / "b.png")
    scandir = os.scandir

    def refused(path: str) -> object:
        if Path(path).name == "secret":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)
    source = folder.load(tmp_path)
    assert [example.id for example in source.examples] == ["a.png"]
    assert source.skipped == (
        Skipped(str(tmp_path / "secret"), "cannot be listed: Permission denied"),
    )


def test_a_folder_named_like_an_image_is_a_folder(tmp_path: Path) -> None:
    touch(tmp_path / "x.jpg" / "a.png")
    assert [example.id for example in open_source(tmp_path).examples] == ["x.jpg/a.png"]
    assert [example.id for example in open_source(tmp_path / "x.jpg").examples] == ["a.png"]


def test_a_linked_file_keeps_the_links_name(tmp_path: Path) -> None:
    target = touch(tmp_path / "elsewhere" / "blob")
    images = tmp_path / "images"
    images.mkdir()
    (images / "a.png").symlink_to(target)
    (images / "gone.jpg").symlink_to(tmp_path / "nothing")
    (tmp_path / "link").symlink_to(images)
    examples = open_source(tmp_path / "link").examples
    assert [example.uri for example in examples] == [
        f"{tmp_path}/link/a.png", f"{tmp_path}/link/gone.jpg",
    ]  # fmt: skip


def test_linked_folders_are_followed_once(tmp_path: Path) -> None:
    root = tmp_path / "root"
    touch(root / "real" / "a.png")
    touch(tmp_path / "elsewhere" / "b.png")
    touch(tmp_path / "elsewhere" / "sub" / "c.png")
    (root / "again").symlink_to(root / "real")  # sorted first, but does not determine the id
    (root / "one").symlink_to(tmp_path / "elsewhere")
    (root / "two").symlink_to(tmp_path / "elsewhere")
    source = folder.load(root)
    assert [(example.id, example.uri) for example in source.examples] == [
        (name, f"{root}/{name}") for name in ("one/b.png", "one/sub/c.png", "real/a.png")
    ]
    assert source.skipped == ()
    assert source.notes == (
        f"skipped linked folders: 2, such as {root}/again; they are read under another path, "
        f"or contain {root}",
    )


def test_links_through_links_and_cycles(tmp_path: Path) -> None:
    root = tmp_path / "root"
    touch(root / "a.png")
    touch(tmp_path / "far" / "b.png")
    touch(tmp_path / "farther" / "c.png")
    (root / "far").symlink_to(tmp_path / "far")
    (tmp_path / "far" / "on").symlink_to(tmp_path / "farther")
    (tmp_path / "farther" / "back").symlink_to(tmp_path / "far")
    (tmp_path / "farther" / "root").symlink_to(root)
    (root / "here").symlink_to(root)
    touch(tmp_path / "z.png")
    (root / "above").symlink_to(tmp_path)
    (root / "disk").symlink_to("/")
    (root / "self").symlink_to(root / "self")
    source = open_source(root)
    assert [example.id for example in source.examples] == ["a.png", "far/b.png", "far/on/c.png"]
    assert source.skipped == (
        Skipped(
            f"{root}/self",
            f"link to {root}/self cannot be followed: Too many levels of symbolic links",
        ),
    )
    (note,) = source.notes
    assert note.startswith("skipped linked folders: 5, ")


def test_nested_linked_folders_are_read_once(tmp_path: Path) -> None:
    """One link leads into the target of another."""
    touch(tmp_path / "out" / "in" / "a.png")
    touch(tmp_path / "out" / "b.png")
    root = tmp_path / "root"
    root.mkdir()
    (root / "1").symlink_to(tmp_path / "out" / "in")
    (root / "2").symlink_to(tmp_path / "out")
    source = open_source(root)
    assert [example.id for example in source.examples] == ["1/a.png", "2/b.png"]
    assert source.notes[0].startswith(f"skipped linked folders: 1, such as {root}/2/in")


PLACES = ["root", "root/a", "root/b", "out", "out/c", "far"]


@settings(max_examples=30)
@given(st.sets(st.tuples(st.sampled_from(PLACES), st.sampled_from([*PLACES, ""])), max_size=6))
def test_each_linked_image_is_read_once(links: set[tuple[str, str]]) -> None:
    """Cycles, several links to one folder, and links in linked folders."""
    with tempfile.TemporaryDirectory() as name:
        top = Path(name).resolve()
        for place in PLACES:
            touch(top / place / "x.png")
        for number, (place, target) in enumerate(sorted(links)):
            (top / place / f"link{number}").symlink_to(top / target)
        source = folder.load(top / "root")
        reached, waiting = set(), [top / "root"]
        while waiting:
            resolved = waiting.pop().resolve()
            if resolved not in {top, *reached}:  # `top` contains the root
                reached.add(resolved)
                waiting += [path for path in resolved.iterdir() if path.is_dir()]
        images = [example.path for example in source.examples]
        assert sorted(path.resolve() for path in images) == sorted(r / "x.png" for r in reached)
        assert {str(path) for path in images} == {f"{top}/root/{e.id}" for e in source.examples}
        assert {"x.png", "a/x.png", "b/x.png"} <= {example.id for example in source.examples}


def test_a_broken_link_is_reported(tmp_path: Path) -> None:
    touch(tmp_path / "a.png")
    (tmp_path / "2024").symlink_to(tmp_path / "unmounted")
    reason = f"link to {tmp_path}/unmounted cannot be followed: No such file or directory"
    assert open_source(tmp_path).skipped == (Skipped(f"{tmp_path}/2024", reason),)
    (tmp_path / "a.png").unlink()
    with pytest.raises(DatasetError, match=r"found nothing; .*/2024: link to .*/unmounted cannot"):
        open_source(tmp_path)


def test_images_in_unsupported_formats_are_counted(tmp_path: Path) -> None:
    for name in ["a.png", "b.xbm", "c.XBM", "sub/d.psd", ".e.psd", "a.txt", "a.tfw", "noname"]:
        touch(tmp_path / name)
    source = open_source(tmp_path)
    assert source.unread == {".xbm": 2, ".psd": 1}
    assert folder.describe_unread(source.unread) == "2 .xbm, 1 .psd"
    (tmp_path / "a.png").unlink()
    with pytest.raises(DatasetError, match=r"found 2 \.xbm, 1 \.psd and 4 other files"):
        open_source(tmp_path)


def test_supported_suffixes_are_not_unread() -> None:
    assert not SUFFIXES & UNREAD_SUFFIXES
    assert PLUGIN_SUFFIXES <= UNREAD_SUFFIXES
    for suffix in PLUGIN_SUFFIXES:
        assert folder.describe_unread({suffix: 1}) == f"1 {suffix} (install rsicd-embed[pictures])"


def test_an_empty_folder_needs_allow_empty(tmp_path: Path) -> None:
    touch(tmp_path / "note.txt")
    source = open_source(tmp_path, allow_empty=True)
    assert (source.root, source.examples) == (tmp_path, ())
    assert "has no images" in source.notes[0]
    with pytest.raises(DatasetError, match="found nothing at"):
        open_source(tmp_path / "missing", allow_empty=True)
    (tmp_path / "link").symlink_to(tmp_path / "missing")
    with pytest.raises(DatasetError, match="cannot be followed"):
        open_source(tmp_path, allow_empty=True)


@pytest.mark.parametrize("below", ["", "images"])
def test_an_unmounted_disk_is_not_an_empty_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, below: str
) -> None:
    point = tmp_path / "a disk"
    (point / below).mkdir(parents=True)
    table = touch(tmp_path / "fstab")
    monkeypatch.setattr(folder, "FSTAB", table)
    assert open_source(point / below, allow_empty=True).examples == ()
    escaped = str(point).replace(" ", "\\040")
    table.write_text(f"# disks\nUUID=1 / ext4\n/dev/sdb none swap\n\n/dev/sdc {escaped} nfs\n")
    with pytest.raises(DatasetError, match=r"disk of .*/a disk .* is not mounted; mount it first"):
        open_source(point / below, allow_empty=True)
    touch(point / below / "notes.txt")  # the folder is used without the disk
    assert open_source(point / below, allow_empty=True).examples == ()


def test_uris_have_no_parent_references(tmp_path: Path) -> None:
    """The parent of a link is the parent of its target."""
    touch(tmp_path / "real" / "a.png")
    (tmp_path / "real" / "sub").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real" / "sub")
    (example,) = open_source(tmp_path / "link" / "..").examples
    assert example.uri == f"{tmp_path}/real/a.png"


def test_folders_without_images_are_described(tmp_path: Path) -> None:
    with pytest.raises(
        DatasetError, match=r"expected images .* found nothing; image files end in .*\.jpg"
    ):
        open_source(tmp_path)
    touch(tmp_path / "notes.txt")
    touch(tmp_path / ".x.png")
    with pytest.raises(DatasetError, match="found 2 other files"):
        open_source(tmp_path)


@pytest.mark.parametrize("name", ["absent", "absent.jsonl", "x" * 300, "nul\0.png"])
def test_a_missing_source_is_reported(tmp_path: Path, name: str) -> None:
    with pytest.raises(DatasetError, match="found nothing at"):
        open_source(tmp_path / name)


def test_sources_that_give_the_same_id_to_two_images_are_refused(tmp_path: Path) -> None:
    first, two = touch(tmp_path / "1" / "a.png"), touch(tmp_path / "2" / "a.png")
    with pytest.raises(DatasetError, match=r"1/a\.png and .*2/a\.png would both get the id"):
        open_sources([first, two])
    assert len(open_sources([first, first.parent, two.parent / ".." / "1"])) == 3


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("ftp://host/a.jpg", "ftp://host/a.jpg: expected a path or an address of s3://, "),
        ("folder\\a.jpg", "found nothing at folder\\a.jpg: there is folder/a.jpg, without"),
        (
            "folder/a.JPG",
            ": there is folder/a.jpg, with its suffix in the other case; use that path",
        ),
        ("folder/b.jpg", "found nothing at folder/b.jpg"),
    ],
)
def test_missing_sources_are_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, message: str
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.jpg").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DatasetError) as caught:
        open_source(Path(path))
    assert message in str(caught.value)
