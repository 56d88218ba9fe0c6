"""RSICD, UCM and Sydney in their published form: small samples, and the real UCM."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from rsicd_embed.datasets import captions
from rsicd_embed.datasets.sources import open_source
from rsicd_embed.evaluation.dataset import labelled, open_set, with_captions
from rsicd_embed.images import read_rgb
from rsicd_embed.train.input.training_data import training_source

from ..conftest import picture


def written(folder: Path, name: str, images: str, files: dict[str, str]) -> Path:
    """A folder with `images` by name and split, each with five sentences, in Karpathy's form."""
    (folder / images).mkdir(parents=True)
    entries: list[dict[str, Any]] = []
    for i, (file, split) in enumerate(files.items()):
        picture(i).save(folder / images / file)
        sentences = [
            {"tokens": ["a", f"{j}"], "raw": f"a {j} .", "imgid": i, "sentid": 5 * i + j}
            for j in range(5)
        ]
        ids = [sentence["sentid"] for sentence in sentences]
        entries.append(
            {"filename": file, "imgid": i, "sentences": sentences, "sentids": ids, "split": split}
        )
    (folder / f"dataset_{name}.json").write_text(json.dumps({"images": entries, "dataset": name}))
    return folder


def rsicd_like(folder: Path) -> Path:
    files = {
        "port_1.jpg": "train",
        "00012.jpg": "train",
        "beach_3.jpg": "val",
        "port_4.jpg": "test",
    }
    written(folder, "rsicd", "RSICD_images", files)
    (folder / "txtclasses_rsicd").mkdir()
    for label, names in {
        "port": "port_1.jpg\nport_4.jpg\n",
        "beach": "00012.jpg\nbeach_3.jpg\n",
    }.items():
        (folder / "txtclasses_rsicd" / f"{label}.txt").write_text(names)
    return folder


def ucm_like(folder: Path) -> Path:
    """It has no val."""
    files = {f"{i}.jpg": "test" if i == 3 else "train" for i in range(1, 5)}
    written(folder, "ucm", "imgs", files)
    labels = {name: "river" if i % 2 else "harbor" for i, name in enumerate(files)}
    (folder / "labels.json").write_text(json.dumps(labels))
    return folder


def sydney_like(folder: Path) -> Path:
    """It has no classes, and is in TIFF."""
    splits = ["train", "train", "val", "test"]
    return written(
        folder, "Sydney", "imgs", {f"{i + 1}.tif": split for i, split in enumerate(splits)}
    )


MADE = {"rsicd": rsicd_like, "ucm": ucm_like, "sydney": sydney_like}


@pytest.mark.parametrize("name", MADE)
@pytest.mark.filterwarnings("ignore:.*there is no split 'val'")
def test_each_is_read_for_search_training_and_evaluation(name: str, tmp_path: Path) -> None:
    folder = MADE[name](tmp_path / name)
    source = open_source(folder)
    assert len(source.examples) == 4
    for example in source.examples:
        assert example.captions == tuple(f"a {j} ." for j in range(5))
        assert read_rgb(example.path).size == picture(0).size
    data = training_source([(folder, 1.0)])
    test = {example.id for example in source.split("test")}
    assert len(test) == 1
    assert len(data.train) == 2
    assert {example.id for example in (*data.train, *data.val)} == {
        e.id for e in source.examples
    } - test
    opened = open_set(folder)
    split, examples = opened.split(None)
    assert split == "test"
    assert with_captions(opened, examples).tolist() == [0]
    if name != "sydney":
        chosen = labelled(opened, examples)
        assert [chosen.classes[example] for example in chosen.labels] == [examples[0].label]


def test_several_datasets_need_only_one_val(tmp_path: Path) -> None:
    data = training_source([(make(tmp_path / name), 1.0) for name, make in MADE.items()])
    assert Counter(example.id.split("/")[0] for example in data.train) == {
        "rsicd": 2,
        "ucm": 3,
        "sydney": 2,
    }
    assert [example.id for example in data.val] == ["rsicd/beach_3.jpg", "sydney/3.tif"]


def test_the_real_ucm(ucm: Path) -> None:
    source = open_source(ucm)
    assert Counter(example.split for example in source.examples) == {"train": 1890, "test": 210}
    assert Counter(Counter(example.label for example in source.examples).values()) == {100: 21}
    assert {len(example.captions) for example in source.examples} == {5}
    with pytest.warns(UserWarning, match=r"there is no split 'val'; 94 of 1,890 train images"):
        data = training_source([(ucm, 1.0)])
    assert (len(data.train), len(data.val)) == (1796, 94)
    assert {example.label for example in data.val} == {example.label for example in source.examples}
    test = {example.id for example in source.split("test")}
    assert not test & {example.id for example in (*data.train, *data.val)}
    assert captions.load(ucm).split("train") == source.split("train")
