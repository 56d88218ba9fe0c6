"""Files of augmented captions: reading, writing and malformed files."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsicd_embed import files
from rsicd_embed.datasets import captioned
from rsicd_embed.datasets.base import Example
from rsicd_embed.datasets.captions import load_augmented, with_augmented, write_augmented
from rsicd_embed.errors import DatasetError, StoreError


def lines(path: Path, *rows: Any) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


def row(name: str, *captions: str) -> dict[str, Any]:
    return {"filename": name, "captions": list(captions)}


def examples(*ids: str) -> list[Example]:
    return [
        Example(id_, f"images/{id_}", {"captions": ["its own"], "split": "train"}) for id_ in ids
    ]


def test_names_and_captions_are_in_the_order_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "textaug_train_x.jsonl"
    lines(path, row("x_images/b_1.jpg", " two  words\n", "", "b"), row("./a_1.jpg", "a"))
    assert load_augmented(path) == {"x_images/b_1.jpg": ("two words", "b"), "a_1.jpg": ("a",)}
    assert list(load_augmented(path)) == ["x_images/b_1.jpg", "a_1.jpg"]


def test_common_folders_of_other_names_are_ignored() -> None:
    elsewhere = [{"all/one/x.jpg": ("1",), "all/two/x.jpg": ("2",)}]
    augmented = with_augmented(examples("two/x.jpg", "images/one/x.jpg"), elsewhere)
    assert [example.captions for example in augmented] == [("2",), ("1",)]


def test_captions_of_another_folder_are_not_borrowed() -> None:
    files = [{"rome/1.jpg": ("rome",)}, {"oslo/1.jpg": ("oslo",)}]
    ids = ["oslo/1.jpg", "rome/1.jpg", "paris/1.jpg"]
    augmented = with_augmented(examples(*ids), files)
    assert [example.captions for example in augmented] == [("oslo",), ("rome",), ("its own",)]
    with pytest.raises(DatasetError, match=r"such as paris/1\.jpg, found them for rome/1\.jpg"):
        with_augmented(examples("paris/1.jpg"), files, ids)
    with pytest.raises(DatasetError, match=r"1\.jpg, found oslo/1\.jpg and rome/1\.jpg; name"):
        with_augmented(examples("oslo/1.jpg"), [{"1.jpg": ("?",)}], ids)


def test_an_image_has_the_captions_of_all_files() -> None:
    (example,) = with_augmented(examples("a.jpg"), [{"a.jpg": ("1", "2")}, {"x/a.jpg": ("2", "3")}])
    assert example.captions == ("1", "2", "3")


def test_blank_lines_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "textaug.jsonl"
    path.write_text(json.dumps(row("a.jpg", "a")) + "\r\n\n  \n", encoding="utf-8")
    assert load_augmented(path) == {"a.jpg": ("a",)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a line for each image, found none"),
        ("\n\n", "expected a line for each image, found none"),
        ('{"filename": "a.jpg", "capti', "line 1: expected"),
        ("[]", "line 1: expected"),
        ('"a"', "line 1: expected"),
        ('{"filename": "a.jpg"}', "line 1: expected .*KeyError"),
        ('{"filename": 5, "captions": ["a"]}', "values of other types"),
        ('{"filename": "a.jpg", "captions": "a"}', "values of other types"),
        ('{"filename": "a.jpg", "captions": ["a", null]}', "a caption of another type"),
        ('{"filename": "a.jpg", "captions": [" "]}', "captions for a.jpg, found none"),
        (
            r'{"filename": "a.jpg", "captions": ["\ud800"]}',
            "expected captions in Unicode, found sur",
        ),
        ('{"filename": "", "captions": ["a"]}', "the name of an image file, found ''"),
        (
            '{"filename": "a.jpg", "captions": ["a"]}\n{"filename": "./a.jpg", "captions": ["b"]}',
            "line 2: expected each image once, found ./a.jpg again",
        ),
    ],
)
def test_malformed_lines_are_reported_with_their_number(
    tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "textaug.jsonl"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DatasetError, match=message):
        load_augmented(path)


def test_unreadable_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "textaug.jsonl"
    path.write_bytes(b"\xff\xfe")
    for unreadable in (path, tmp_path, tmp_path / "absent"):
        with pytest.raises(DatasetError, match="cannot be read as text"):
            load_augmented(unreadable)


texts = st.text(min_size=1).map(lambda raw: " ".join(raw.split())).filter(bool)


@given(
    st.dictionaries(
        st.from_regex(r"[a-z]{1,3}\.jpg", fullmatch=True), st.lists(texts, min_size=1), min_size=1
    )
)
def test_write_and_read_round_trip(
    tmp_path_factory: pytest.TempPathFactory, captions: dict[str, list[str]]
) -> None:
    path = tmp_path_factory.getbasetemp() / "written.jsonl"
    write_augmented(path, captions)
    assert load_augmented(path) == {name: tuple(own) for name, own in captions.items()}


def test_a_full_disk_keeps_the_existing_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "textaug.jsonl"
    write_augmented(path, {"a.jpg": ["a"]})

    def full(_: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "sync_file", full)
    with pytest.raises(StoreError, match=r"textaug\.jsonl cannot be written: .*free some space"):
        write_augmented(path, {"b.jpg": ["b"]})
    assert load_augmented(path) == {"a.jpg": ("a",)}
    assert [entry.name for entry in tmp_path.iterdir()] == ["textaug.jsonl"]


def test_examples_get_the_captions_of_their_images() -> None:
    given_captions = [{"a.jpg": ("1", "2"), "sub/b.jpg": ("3",)}]
    augmented = with_augmented(
        examples("images/a.jpg", "images/sub/b.jpg", "c.jpg"), given_captions
    )
    assert [example.captions for example in augmented] == [("1", "2"), ("3",), ("its own",)]
    assert [example.split for example in augmented] == ["train"] * 3
    assert with_augmented([], given_captions) == []


@pytest.mark.parametrize("captions", [{}, {"other.jpg": ("1",)}])
def test_captions_of_other_images_are_refused(captions: dict[str, tuple[str, ...]]) -> None:
    with pytest.raises(DatasetError, match=r"such as a\.jpg, found them for (none|other)"):
        with_augmented(examples("a.jpg"), [captions])


@pytest.mark.parametrize(
    ("split", "file"), [("train", "train"), ("val", "valid"), ("test", "test")]
)
def test_the_published_captions_match_the_splits(rsicd: Path, split: str, file: str) -> None:
    images = captioned.load(rsicd).split(split)
    published = load_augmented(rsicd / f"textaug_{file}_rsicd.jsonl")
    assert {Path(name).name for name in published} == {example.id for example in images}
    augmented = with_augmented(images, [published])
    assert all(
        set(old.captions) <= set(new.captions) for old, new in zip(images, augmented, strict=True)
    )
    assert {len(example.captions) for example in augmented} == {5}
