"""RSICD-like folders: a dataset_*.json with images."""

from __future__ import annotations

import codecs
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from rsicd_embed.datasets import captioned, captions
from rsicd_embed.datasets.classes import readable
from rsicd_embed.datasets.sources import open_source
from rsicd_embed.errors import DatasetError

from ..conftest import picture


def entry(name: str, split: str | None = "train", *captions: str) -> dict[str, Any]:
    return {
        "filename": name,
        "split": split,
        "sentences": [{"raw": caption} for caption in captions],
    }


def write(folder: Path, *entries: dict[str, Any], images: str = "images") -> Path:
    (folder / images).mkdir(parents=True, exist_ok=True)
    for number, entry in enumerate(entries):
        picture(number).save(folder / images / entry["filename"])
    (folder / "dataset_x.json").write_text(json.dumps({"images": entries, "dataset": "x"}))
    return folder


def test_captions_splits_and_labels(tmp_path: Path) -> None:
    write(
        tmp_path,
        entry("beach_1.jpg", "train", " a  beach \n here . ", "", "sand ."),
        entry("00012.jpg", "test"),
        entry("port_3.jpg", None),
    )
    source = open_source(tmp_path)
    assert source.root == tmp_path / "images"
    assert source.schema == captioned.SCHEMA
    beach, number, port = source.examples
    assert beach.captions == ("a beach here .", "sand .")
    assert [example.label for example in source.examples] == ["beach", None, "port"]
    assert (number.captions, number.split, port.split) == ((), "test", None)
    assert beach.path == tmp_path / "images" / "beach_1.jpg"
    assert source.split("train") == (beach,)
    assert source.split("val") == ()


def test_a_repeated_image_keeps_all_captions(tmp_path: Path) -> None:
    entries = [
        entry("a_1.jpg", "train", "a port", "a port"),
        entry("b_2.jpg", "train", "a river"),
        entry("a_1.jpg", None, "many boats", "a port"),
    ]
    write(tmp_path, *entries)
    first, second = open_source(tmp_path).examples
    assert (first.id, first.captions, first.split) == (
        "a_1.jpg",
        ("a port", "a port", "many boats"),
        "train",
    )
    assert second.captions == ("a river",)
    entries[2]["split"] = "test"
    write(tmp_path, *entries)
    with pytest.raises(
        DatasetError, match=r"json: a_1\.jpg: expected one split, found test, train"
    ):
        open_source(tmp_path)


@pytest.mark.parametrize(
    "damaged",
    [
        entry("a_1.jpg", "train", "half \ud800"),
        entry("a_1.jpg", "\udc00"),
        {**entry("a_1.jpg"), "filename": "\ud83d.jpg"},
    ],
)
def test_a_lone_surrogate_is_refused(tmp_path: Path, damaged: dict[str, Any]) -> None:
    write(tmp_path, entry("a_1.jpg"))
    (tmp_path / "dataset_x.json").write_text(json.dumps({"images": [damaged]}))
    with pytest.raises(DatasetError, match=r"json: .*\.jpg: expected .* in Unicode, found surrog"):
        open_source(tmp_path)


def test_another_encoding_is_reported_in_a_short_line(tmp_path: Path) -> None:
    write(tmp_path, entry("a_1.jpg", "train", "x" * 5000))
    path = tmp_path / "dataset_x.json"
    text = json.dumps({"images": [entry("a_1.jpg", "train", "caf\xe9")]}, ensure_ascii=False)
    path.write_bytes(b"\n" + text.encode("latin-1") + b" " * 5000)
    with pytest.raises(
        DatasetError, match="expected UTF-8, found the byte 0xe9 in line 2;"
    ) as caught:
        open_source(tmp_path)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("blank", [" ", None])
def test_a_blank_class_becomes_none(tmp_path: Path, blank: str | None) -> None:
    write(tmp_path, entry("a_1.jpg"), entry("b_2.jpg"))
    (tmp_path / "labels.json").write_text(json.dumps({"a_1.jpg": blank, "b_2.jpg": "port"}))
    assert [e.label for e in open_source(tmp_path).examples] == [None, "port"]


def test_a_name_shared_by_all_images_is_not_a_class(tmp_path: Path) -> None:
    write(tmp_path, entry("tile_1.jpg"), entry("tile_2.jpg"))
    assert [e.label for e in open_source(tmp_path).examples] == [None, None]
    (tmp_path / "labels.json").write_text(json.dumps({"tile_1.jpg": "shore"}))
    assert [e.label for e in open_source(tmp_path).examples] == ["shore", None]


def test_labels_come_from_class_lists_or_json(tmp_path: Path) -> None:
    write(tmp_path, entry("beach_1.jpg"), entry("00012.jpg"), images=".")
    lists = tmp_path / "txtclasses_x"
    lists.mkdir()
    (lists / "pond.txt").write_text("00012.jpg\nnot_there.jpg\n")
    assert [e.label for e in open_source(tmp_path).examples] == [None, "pond"]
    (tmp_path / "labels.json").write_text(json.dumps({"beach_1.jpg": "shore"}))
    assert [e.label for e in open_source(tmp_path).examples] == ["shore", None]


def test_a_missing_image_does_not_hide_the_others(tmp_path: Path) -> None:
    write(tmp_path, entry("a_1.jpg"), entry("b_2.jpg"))
    (tmp_path / "images" / "a_1.jpg").unlink()
    assert [example.id for example in open_source(tmp_path).examples] == ["a_1.jpg", "b_2.jpg"]
    (tmp_path / "images" / "b_2.jpg").unlink()
    with pytest.raises(DatasetError, match=r"and no a_1\.jpg; unpack them there"):
        open_source(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "", "{", '{"images": [{"filename": 5}]}', '{"images": [{"filename": "a_1.jpg"}, {}]}',
        '{"images": [{"filename": "a_1.jpg"}, "b_2.jpg"]}',
        '{"images": [{"filename": "a_1.jpg", "filepath": 5}]}',
        '{"images": [{"filename": "a_1.jpg", "sentences": [{"tokens": []}]}]}',
        '{"images": [{"filename": "a_1.jpg", "sentences": ["a port"]}]}',
        '{"images": [{"filename": "a_1.jpg", "sentences": [{"raw": 5}]}]}',
    ],
)  # fmt: skip
def test_malformed_json_is_refused(tmp_path: Path, text: str) -> None:
    write(tmp_path, entry("a_1.jpg"))
    (tmp_path / "dataset_x.json").write_text(text)
    with pytest.raises(DatasetError, match=r"dataset_x\.json: expected \{'images': \[") as caught:
        open_source(tmp_path)
    assert "\n" not in str(caught.value)


def test_folders_without_a_dataset_are_refused(tmp_path: Path) -> None:
    write(tmp_path, entry("a_1.jpg"))
    (tmp_path / "labels.json").write_text("[1]")
    with pytest.raises(DatasetError, match=r"labels\.json: expected"):
        open_source(tmp_path)
    (tmp_path / "labels.json").write_text("{")
    with pytest.raises(DatasetError, match=r"labels\.json: expected"):
        open_source(tmp_path)
    (tmp_path / "labels.json").unlink()
    (tmp_path / "txtclasses_x").mkdir()
    (tmp_path / "txtclasses_x" / "a.txt").write_bytes(b"\xff")
    with pytest.raises(DatasetError, match=r"a\.txt cannot be read as text"):
        open_source(tmp_path)
    (tmp_path / "dataset_x.json").write_text('{"images": []}')
    with pytest.raises(DatasetError, match="expected images, found none"):
        open_source(tmp_path)
    (tmp_path / "dataset_y.json").write_text('{"images": []}')
    with pytest.raises(DatasetError, match=r"found dataset_x\.json, dataset_y\.json; keep one"):
        open_source(tmp_path)
    assert captioned.load(tmp_path / "images") is None


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ('[{"filename": "a_1.jpg"}, {"split": "train"}]', "{'split': 'train'} without the text"),
        (
            '[{"filename": "a_1.jpg", "sentences": ["a port"]}]',
            "a_1.jpg has sentences without 'raw'",
        ),
        (r'[{"filename": "imgs\\a_1.jpg"}]', "a_1.jpg, without backslashes"),
    ],
)
def test_the_malformed_entry_is_named(tmp_path: Path, images: str, message: str) -> None:
    write(tmp_path, entry("a_1.jpg"), images="imgs")
    (tmp_path / "dataset_x.json").write_text(f'{{"images": {images}}}')
    with pytest.raises(DatasetError) as caught:
        open_source(tmp_path)
    assert message in str(caught.value)
    assert "Error(" not in str(caught.value)


def test_a_nan_split_becomes_none(tmp_path: Path) -> None:
    """As pandas writes missing values."""
    write(tmp_path, entry("a_1.jpg"))
    (tmp_path / "dataset_x.json").write_text('{"images": [{"filename": "a_1.jpg", "split": NaN}]}')
    (example,) = open_source(tmp_path).examples
    assert example.split is None


@pytest.mark.parametrize("name", ["dataset_info.json", "dataset_dict.json", "dataset.json"])
@pytest.mark.parametrize(
    "text",
    [
        '{"splits": {"train": {"name": "train"}}}', '{"splits": ["train"]}', "[]", "null",
        '{"images": 5}', '{"images": ["a.jpg"]}', '{"images": {"a": 1}}', '{"images": null}',
        '{"images": [{"file_name": "a.jpg", "id": 1}], "annotations": []}',
    ],
)  # fmt: skip
def test_unrelated_json_leaves_a_plain_folder(tmp_path: Path, name: str, text: str) -> None:
    """Hugging Face's dataset_info.json, and detection datasets with another list of images."""
    picture(0).save(tmp_path / "a.jpg")
    (tmp_path / name).write_text(text)
    source = open_source(tmp_path)
    assert [example.id for example in source.examples] == ["a.jpg"]
    assert source.notes == (f"{tmp_path / name} lists no images with captions",)
    with pytest.raises(DatasetError, match=f"or one manifest with captions .*, found {name}; pass"):
        captions.load(tmp_path)


@pytest.mark.parametrize("name", ["dataset.json", "dataset_x.json"])
def test_unrelated_json_beside_captions_is_ignored(tmp_path: Path, name: str) -> None:
    write(tmp_path, entry("a_1.jpg", "train", "a port"))
    (tmp_path / "dataset_x.json").rename(tmp_path / name)
    (tmp_path / "dataset_info.json").write_text("{}")
    (example,) = open_source(tmp_path).examples
    assert example.captions == ("a port",)


def test_the_folder_with_the_most_images_is_used(tmp_path: Path) -> None:
    entries = [entry(f"{i}.png") for i in range(4)]
    write(tmp_path, *entries, images="images")
    picture(0).save(tmp_path / "0.png")
    (tmp_path / "examples").mkdir()
    picture(0).save(tmp_path / "examples" / "0.png")
    picture(0).save(tmp_path / "examples" / "1.png")
    (tmp_path / "images" / "3.png").unlink()
    source = open_source(tmp_path)
    assert source.root == tmp_path / "images"
    assert {example.path.parent for example in source.examples} == {tmp_path / "images"}
    (tmp_path / "images" / "2.png").unlink()
    assert open_source(tmp_path).root == tmp_path / "examples"  # the first on a tie
    (tmp_path / "examples" / "1.png").unlink()
    (tmp_path / "images" / "1.png").unlink()
    complaint = r"x\.json: expected at least half of its 4 images .* found 1 in .* and no 1"
    with pytest.raises(DatasetError, match=complaint):
        open_source(tmp_path)


def coco(folder: Path, *files: str) -> Path:
    """Images in folders by year, as in Karpathy's JSON of COCO."""
    for number, file in enumerate(files):
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        picture(number).save(folder / file)
    entries = [
        entry(name, "restval", f"caption {number}") | {"filepath": year}
        for number, (year, name) in enumerate(Path(file).parts[-2:] for file in files)
    ]
    (folder / "dataset_coco.json").write_text(json.dumps({"images": entries}))
    return folder


COCO = ["train2014/beach_1.jpg", "train2014/port_2.jpg", "val2014/beach_1.jpg"]


@pytest.mark.parametrize("inside", ["", "images"])
def test_images_are_below_their_file_path(tmp_path: Path, inside: str) -> None:
    """The same name in two folders is two images."""
    source = open_source(coco(tmp_path, *(str(Path(inside, file)) for file in COCO)))
    assert source.root == tmp_path / inside
    assert [(e.id, e.captions, e.label, e.split) for e in source.examples] == [
        ("train2014/beach_1.jpg", ("caption 0",), "beach", "train"),
        ("train2014/port_2.jpg", ("caption 1",), "port", "train"),
        ("val2014/beach_1.jpg", ("caption 2",), "beach", "train"),
    ]
    assert all(example.path.is_file() for example in source.examples)


def test_file_paths_are_ignored_if_images_are_in_one_folder(tmp_path: Path) -> None:
    coco(tmp_path, *COCO[1:])
    for file in COCO[1:]:
        (tmp_path / file).rename(tmp_path / Path(file).name)
    source = open_source(tmp_path)
    assert [example.id for example in source.examples] == ["port_2.jpg", "beach_1.jpg"]
    assert all(example.path.is_file() for example in source.examples)


def test_labels_by_file_name_apply_below_a_file_path(tmp_path: Path) -> None:
    coco(tmp_path, *COCO[:2])
    (tmp_path / "labels.json").write_text(json.dumps({"beach_1.jpg": "shore", "x.jpg": "sea"}))
    source = open_source(tmp_path)
    assert [example.label for example in source.examples] == ["shore", None]
    assert source.notes == (f"{tmp_path / 'dataset_coco.json'} lists no image of the classes sea",)


def test_a_byte_order_mark_is_dropped(tmp_path: Path) -> None:
    write(tmp_path, entry("beach_1.jpg"), entry("00012.jpg"), images=".")
    path = tmp_path / "dataset_x.json"
    path.write_bytes(codecs.BOM_UTF8 + path.read_bytes())
    lists = tmp_path / "txtclasses_x"
    lists.mkdir()
    (lists / "pond.txt").write_text("00012.jpg\r\n", "utf-8-sig")
    (lists / "beach.txt").write_text("beach_1.jpg\n", "utf-8-sig")
    assert [example.label for example in open_source(tmp_path).examples] == ["beach", "pond"]
    (tmp_path / "labels.json").write_text('{"00012.jpg": "sea"}', "utf-8-sig")
    assert [example.label for example in open_source(tmp_path).examples] == [None, "sea"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16le"])
def test_utf16_is_refused_with_the_command_that_converts_it(tmp_path: Path, encoding: str) -> None:
    write(tmp_path, entry("beach_1.jpg"))
    path = tmp_path / "dataset_x.json"
    path.write_text(path.read_text(), encoding)
    with pytest.raises(DatasetError, match=f"in UTF-16|found UTF-16; .* iconv -f {encoding} -t"):
        open_source(tmp_path)


def test_class_lists_may_contain_names_with_spaces(tmp_path: Path) -> None:
    write(tmp_path, entry("my beach.jpg"), entry("00012.jpg"), images=".")
    (tmp_path / "txtclasses_x").mkdir()
    (tmp_path / "txtclasses_x" / "beach.txt").write_text(" my beach.jpg \n\n")
    assert [example.label for example in open_source(tmp_path).examples] == ["beach", None]


def test_a_split_that_is_not_text_becomes_text(tmp_path: Path) -> None:
    write(tmp_path, entry("a_1.jpg") | {"split": 1, "sentences": None})
    (example,) = open_source(tmp_path).examples
    assert (example.split, example.captions) == ("1", ())


def test_readable_names() -> None:
    assert readable("denseresidential") == "dense residential area"
    assert readable("StorageTanks") == "storage tanks"
    assert readable("golf_course") == readable("GolfCourse") == "golf course"
    assert readable("forest") == "forest"
    assert readable("cafe\u0301Noir") == "caf\u00e9 noir"
    assert readable("हिन्दी_नदी") == "हिन्दी नदी"


def test_the_real_rsicd(rsicd: Path) -> None:
    source = open_source(rsicd)
    splits = Counter(example.split for example in source.examples)
    assert splits == {"train": 8734, "val": 1094, "test": 1093}
    # 30 classes from file names, and playfields, whose files are only numbered.
    assert len({captioned.label_in_name(example.id) for example in source.examples} - {None}) == 30
    assert len({example.label for example in source.examples}) == 31
    assert all(example.captions for example in source.examples)
    assert all(example.path.is_file() for example in source.examples[::500])
