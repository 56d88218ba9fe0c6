"""Training data from one or several datasets: weights, splits, augmented captions."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from rsicd_embed.errors import DatasetError
from rsicd_embed.train.input.training_data import training_source, weighted

from ..conftest import picture
from ..helpers import manifest


def dataset(folder: Path, **splits: list[str]) -> Path:
    """A Karpathy-style folder whose images are captioned with the folder's name."""
    folder.mkdir()
    entries = []
    for split, names in splits.items():
        for name in names:
            picture(len(entries)).save(folder / name)
            sentences = [{"raw": f"{folder.name} {name}"}]
            entries.append({"filename": name, "split": split, "sentences": sentences})
    (folder / "dataset_x.json").write_text(json.dumps({"images": entries}))
    return folder


@pytest.fixture
def first(tmp_path: Path) -> Path:
    return dataset(tmp_path / "one", train=["1.png", "2.png"], val=["3.png"], test=["4.png"])


@pytest.fixture
def second(tmp_path: Path) -> Path:
    return dataset(tmp_path / "two", train=["1.png"])


def test_ids_of_a_single_dataset(first: Path) -> None:
    data = training_source([(first, 1.0)])
    assert [e.id for e in data.train] == ["1.png", "2.png"]
    assert data.weights == (1.0, 1.0)
    assert [e.id for e in data.val] == ["3.png"]


def test_several_datasets_have_weights_and_prefixed_ids(first: Path, second: Path) -> None:
    data = training_source([weighted(str(first)), weighted(f"{second}=0.5")])
    assert [e.id for e in data.train] == ["one/1.png", "one/2.png", "two/1.png"]
    assert data.weights == (1.0, 1.0, 0.5)
    assert [e.id for e in data.val] == ["one/3.png"]  # the other has no val split
    assert data.names == ("one", "two")


def test_without_val_training_images_are_held_out(second: Path, tmp_path: Path) -> None:
    names = [f"{i}.png" for i in range(12)]
    three = dataset(tmp_path / "three", train=names, test=["a.png", "b.png"])
    line = {"filename": "images/0.png", "captions": ["new"]}
    (three / "textaug_train.jsonl").write_text(json.dumps(line) + "\n")
    with pytest.warns(UserWarning, match=r"three: there is no split 'val'; 1 of 12 train images"):
        data = training_source([(three, 1.0)])
    assert len(data.train) == len(data.weights) == 11
    (example,) = data.val
    assert sorted([example.id, *(e.id for e in data.train)]) == sorted(names)  # and no test image
    # The same image is held out of a manifest, also beside other datasets.
    rows = [{"path": name, "caption": "x", "split": "train"} for name in names]
    for paths in ([manifest(tmp_path / "m.jsonl", *rows)], [three, second]):
        with pytest.warns(UserWarning, match="of 12 train images"):
            data = training_source(
                [(path, 1.0) for path in paths], augmented_captions=three in paths
            )
        assert [Path(e.id).name for e in data.val] == [example.id]


def test_augmented_captions_apply_to_train(first: Path, second: Path) -> None:
    for split, name in (("train", "1.png"), ("valid", "3.png")):
        line = {"filename": f"images/{name}", "captions": ["new", "newer"]}
        (first / f"textaug_{split}_x.jsonl").write_text(json.dumps(line) + "\n")
    data = training_source([(first, 1.0), (second, 1.0)], augmented_captions=True)
    assert [e.captions for e in data.train] == [("new", "newer"), ("one 2.png",), ("two 1.png",)]
    assert [e.captions for e in data.val] == [("one 3.png",)]
    plain = training_source([(first, 1.0)])
    assert plain.train[0].captions == ("one 1.png",)
    with pytest.raises(DatasetError, match=r"two: expected textaug_\*\.jsonl"):
        (second / "3.png").touch()
        entries = json.loads((second / "dataset_x.json").read_text())["images"]
        entries.append({**entries[0], "filename": "3.png", "split": "val"})
        (second / "dataset_x.json").write_text(json.dumps({"images": entries}))
        training_source([(second, 1.0)], augmented_captions=True)


@pytest.mark.parametrize("text", ["x=", "x=none", "x=0", "x=-1", "x=nan", "x=inf"])
def test_invalid_weights(text: str) -> None:
    with pytest.raises(DatasetError, match=f"PATH=WEIGHT with a weight above 0, found '{text}'"):
        weighted(text)


def test_a_path_may_have_an_equals_sign(tmp_path: Path) -> None:
    folder = tmp_path / "year=2020"
    folder.mkdir()
    assert weighted(str(folder)) == (folder, 1.0)
    assert weighted(f"{folder}=2") == (folder, 2.0)
    assert math.isclose(weighted("x=1e-1")[1], 0.1)


def test_unusable_datasets(first: Path, second: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="found none"):
        training_source([])
    with pytest.raises(
        DatasetError, match=r"two: expected images in the split 'val', or at least two"
    ):
        training_source([(second, 1.0)])
    empty = dataset(tmp_path / "empty", val=["1.png"], test=["2.png"])
    with pytest.raises(DatasetError, match=r"empty: .* split 'train', found test, val"):
        training_source([(first, 1.0), (empty, 1.0)])
    with pytest.raises(DatasetError, match=r"same id 'one/1\.png'; give each dataset once"):
        training_source([(first, 1.0), (first, 2.0)])
    (tmp_path / "deeper").mkdir()
    twin = dataset(tmp_path / "deeper" / "one", train=["2.png"], val=["9.png"])
    with pytest.raises(DatasetError, match=r"one/2\.png and .*deeper/one/2\.png have the same id"):
        training_source([(first, 1.0), (twin, 1.0)])
    entries = json.loads((first / "dataset_x.json").read_text())["images"]
    entries[1]["sentences"] = [{"raw": "  "}]
    (first / "dataset_x.json").write_text(json.dumps({"images": entries}))
    with pytest.raises(DatasetError, match=r"one: 2\.png: expected a caption, found none"):
        training_source([(first, 1.0)])
