"""Images and classes of a dataset that are evaluated, and errors if there are none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rsicd_embed.datasets import classes
from rsicd_embed.datasets.base import Example
from rsicd_embed.errors import DatasetError
from rsicd_embed.evaluation import dataset
from rsicd_embed.evaluation.dataset import EvalSet, class_labels, labelled, open_set, with_captions
from tests.evaldata import captioned, class_folder, colour
from tests.helpers import manifest


def example(name: str, label: object = None, split: str | None = None, **more: object) -> Example:
    return Example(name, name, {"label": label, "split": split, **more})


def eval_set(*examples: Example, by_file_name: bool = False) -> EvalSet:
    return EvalSet("toy", examples, by_file_name)


def test_one_folder_per_class(tmp_path: Path) -> None:
    opened = open_set(class_folder(tmp_path / "toy", images=2))
    assert opened.name == "toy"
    name, examples = opened.split(None)
    assert (name, len(examples)) == ("all", 6)
    chosen = labelled(opened, examples)
    assert chosen.classes == ("desert", "forest", "sea")
    assert chosen.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert [e.id for e in examples][:2] == ["desert/0.png", "desert/1.png"]


def test_one_folder_per_split(tmp_path: Path) -> None:
    opened = open_set(class_folder(tmp_path, images=1, splits=("train", "test")))
    name, examples = opened.split(None)
    assert (name, [e.id for e in examples]) == (
        "test",
        ["test/desert/0.png", "test/forest/0.png", "test/sea/0.png"],
    )
    assert len(opened.split("all")[1]) == 6
    with pytest.raises(DatasetError, match=r"expected a split 'val', found test, train \(and all"):
        opened.split("val")


def test_a_split_of_a_dataset_without_splits(tmp_path: Path) -> None:
    opened = open_set(class_folder(tmp_path, images=1))
    with pytest.raises(DatasetError, match="expected a split 'test', found none; omit --split"):
        opened.split("test")


def test_stray_images_are_reported(tmp_path: Path) -> None:
    class_folder(tmp_path, images=1)
    stray = colour(tmp_path / "preview.png", (0, 0, 0))
    (skipped,) = open_set(tmp_path).skipped
    assert (skipped.uri, skipped.reason) == (str(stray), "not in a class folder")


def test_a_class_without_images(tmp_path: Path) -> None:
    class_folder(tmp_path, images=1)
    (tmp_path / "airport").mkdir()
    with pytest.raises(
        DatasetError, match=r"expected images of the class 'airport' in .*airport, f"
    ):
        classes.load(tmp_path)
    class_folder(tmp_path / "split", images=1, splits=("train", "test"))
    (tmp_path / "split" / "test" / "airport").mkdir()
    with pytest.raises(DatasetError, match=r"expected images of the class 'airport' in .*test"):
        classes.load(tmp_path / "split")


def test_folders_that_are_not_a_dataset(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="found nothing at"):
        open_set(tmp_path / "nowhere")
    with pytest.raises(DatasetError, match=r"expected images .* found nothing"):
        open_set(tmp_path)
    colour(tmp_path / "beach_1.png", (0, 0, 0))
    with pytest.raises(DatasetError, match="found 1 images and no class folders; sort them"):
        open_set(tmp_path)


def test_one_class_or_none() -> None:
    single = eval_set(example("a", "port"), example("b", "port"))
    with pytest.raises(DatasetError, match="at least two classes, found only 'port'"):
        labelled(single, single.examples)
    none = eval_set(example("a"), example("b", ""))
    with pytest.raises(DatasetError, match="at least two classes, found no labels"):
        labelled(none, none.examples)


def test_classes_are_those_of_all_splits() -> None:
    opened = eval_set(
        example("a", "port", "train"), example("b", "river", "test"), example("c", None, "test")
    )
    chosen = labelled(opened, opened.split("test")[1])
    assert (chosen.classes, chosen.labels.tolist()) == (("port", "river"), [1])
    assert (chosen.left_out, chosen.rule) == (1, dataset.EVERY_LABEL)
    unlabelled = eval_set(*opened.examples, example("d", None, "val"))
    with pytest.raises(DatasetError, match="expected labelled images, found none among 1"):
        labelled(unlabelled, unlabelled.split("val")[1])


def test_file_names_with_classes_restrict_the_labelled_images() -> None:
    named = [example("port_1.jpg", "port"), example("river_2.jpg", "river")]
    numbered = [example("3.jpg", "port"), example("park_4.jpg", "river")]
    labels = class_labels([*named, *numbered], by_file_name=True)
    assert labels == ["port", "river", None, None]
    assert class_labels(numbered, by_file_name=True) == ["port", "river"]
    opened = eval_set(*named, *numbered, by_file_name=True)
    chosen = labelled(opened, opened.examples)
    assert (chosen.left_out, chosen.rule) == (2, dataset.BY_FILE_NAME)
    every = labelled(eval_set(*named, *numbered), opened.examples)
    assert (every.left_out, every.rule) == (0, dataset.EVERY_LABEL)


def test_several_classes_of_an_image_are_an_error(tmp_path: Path) -> None:
    rows = ({"path": f"{i}.png", "label": label} for i, label in enumerate([["a", "b"], ["a"]]))
    opened = dataset.open_set(manifest(tmp_path / "m.jsonl", *rows))
    with pytest.raises(DatasetError, match=r"0\.png: expected one class, found \['a', 'b'\]"):
        labelled(opened, opened.examples)


def test_a_manifest_with_numbers_as_labels(tmp_path: Path) -> None:
    for i in range(2):
        colour(tmp_path / f"{i}.png", (i, i, i))
    path = manifest(tmp_path / "m.jsonl", *({"path": f"{i}.png", "label": i} for i in range(2)))
    opened = open_set(path)
    assert labelled(opened, opened.examples).classes == ("0", "1")


def test_captions(tmp_path: Path) -> None:
    opened = open_set(captioned(tmp_path, images=1, splits=("test",)))
    assert with_captions(opened, opened.examples).tolist() == [0, 1, 2]
    some = eval_set(example("a"), example("b", captions=["a port"]), example("c", captions=[]))
    assert with_captions(some, some.examples).tolist() == [1]
    with pytest.raises(DatasetError, match="expected captions, found none for 1 images"):
        with_captions(some, some.examples[:1])
    text = eval_set(example("a", captions="a port"))
    with pytest.raises(DatasetError, match="a: expected a list of captions, found 'a port'"):
        with_captions(text, text.examples)


def test_the_protocol_on_rsicd(rsicd: Path) -> None:
    opened = open_set(rsicd)
    for split, images in (("train", 7946), ("val", 1027), ("test", 1027)):
        chosen = labelled(opened, opened.split(split)[1])
        assert (len(chosen.rows), len(chosen.classes)) == (images, 30)
    every = open_set(rsicd, every_label=True)
    assert len(labelled(every, every.split("test")[1]).classes) == 31


def test_invalid_json(tmp_path: Path) -> None:
    (tmp_path / "dataset_x.json").write_text(json.dumps({"images": []}))
    with pytest.raises(DatasetError, match="expected images, found none"):
        open_set(tmp_path)
