"""Captions from manifests: columns, rows, splits and malformed ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from rsicd_embed.datasets import captions
from rsicd_embed.datasets.base import Source
from rsicd_embed.errors import DatasetError

from ..helpers import manifest

ROWS = [
    {"path": "a.png", "caption": " a  port ", "split": "train", "label": "port"},
    {"path": "b.png", "caption": "a desert", "split": "valid", "label": "desert"},
    {"path": "a.png", "caption": "many boats", "split": "train", "label": "port"},
    {"path": "a.png", "caption": "many boats", "split": "train", "label": "port"},
    {"path": "c.png", "caption": "a river", "split": "Test", "label": None},
]


def written(folder: Path, kind: str, rows: list[dict[str, Any]] = ROWS) -> Path:
    path = folder / f"rows.{kind}"
    if kind == "jsonl":
        return manifest(path, *rows)
    table = pa.Table.from_pylist(rows)
    if kind == "csv":
        pyarrow.csv.write_csv(table, path)
    else:
        pyarrow.parquet.write_table(table, path)
    return path


def karpathy(folder: Path, splits: list[Any]) -> None:
    """A dataset_*.json with images of these splits."""
    entries = [
        {"filename": f"{i}.png", "split": split, "sentences": [{"raw": "x"}]}
        for i, split in enumerate(splits)
    ]
    (folder / "dataset_x.json").write_text(json.dumps({"images": entries}))
    for entry in entries:
        (folder / entry["filename"]).touch()


def described(source: Source) -> dict[str, Any]:
    return {e.id: (e.captions, e.split, e.label or None) for e in source.examples}


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_rows_of_one_image_are_joined(tmp_path: Path, kind: str) -> None:
    source = captions.load(written(tmp_path, kind))
    assert described(source) == {
        "a.png": (("a port", "many boats"), "train", "port"),
        "b.png": (("a desert",), "val", "desert"),
        "c.png": (("a river",), "test", None),
    }
    assert source.examples[0].path == tmp_path / "a.png"
    assert captions.load(tmp_path) == source  # the only manifest in a folder


def test_lists_of_captions(tmp_path: Path) -> None:
    rows = [{"image": "a.png", "captions": ["x", "", "y"], "split": "train"}]
    assert captions.load(manifest(tmp_path / "m.jsonl", *rows)).examples[0].captions == ("x", "y")
    # Duplicates within one row are kept, as in RSICD; duplicates from other rows are not.
    rows = [{"image": "a.png", "captions": own, "split": "train"} for own in ("xx", "xy")]
    rows = [{**row, "captions": list(row["captions"])} for row in rows]
    joined = captions.load(manifest(tmp_path / "m.jsonl", *rows)).examples[0].captions
    assert joined == ("x", "x", "y")


def test_without_splits_a_fixed_part_becomes_val(tmp_path: Path) -> None:
    rows = [{"path": f"{i}.png", "caption": "x"} for i in range(400)]
    path = tmp_path / "m.jsonl"
    with pytest.warns(UserWarning, match=r"m\.jsonl: there is no split 'val'; \d+ of 400 train"):
        val = {e.id for e in captions.load(manifest(path, *rows)).split("val")}
    assert 5 < len(val) < 40  # 20 expected
    more = [*rows[::-1], {"path": "new.png", "caption": "x"}]
    with pytest.warns(UserWarning, match="of 401 train images"):
        source = captions.load(manifest(path, *more))
    assert {e.id for e in source.split("val")} - {"new.png"} == val
    assert len(source.split("train")) + len(source.split("val")) == 401
    with pytest.warns(UserWarning, match="1 of 3 train images, chosen by a hash"):
        few = captions.load(manifest(path, *rows[:3]))
    assert len(few.split("val")) == 1
    assert [e.split for e in captions.load(manifest(path, rows[0])).examples] == ["train"]


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet", "json"])
def test_common_names_of_splits(tmp_path: Path, kind: str) -> None:
    names = ["Train", "training", "restval", "valid", "validation ", "dev", "TEST", "testing"]
    rows = [{"path": f"{i}.png", "caption": "x", "split": name} for i, name in enumerate(names)]
    if kind == "json":
        karpathy(tmp_path, names)
    source = captions.load(tmp_path if kind == "json" else written(tmp_path, kind, rows))
    assert [e.split for e in source.examples] == [*["train"] * 3, *["val"] * 3, *["test"] * 2]


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet", "json"])
def test_a_misspelt_split_is_refused(tmp_path: Path, kind: str) -> None:
    names = ["train", "trian", "val"]
    rows = [{"path": f"{i}.png", "caption": "x", "split": name} for i, name in enumerate(names)]
    if kind == "json":
        karpathy(tmp_path, names)
    path = tmp_path if kind == "json" else written(tmp_path, kind, rows)
    complaint = r"1\.png: expected a split of train, val, test \(or training, .*\), found 'trian'"
    with pytest.raises(DatasetError, match=complaint):
        captions.load(path)
    assert captions.read(path).examples[1].split == "trian"  # eval accepts any name


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet", "json"])
def test_images_without_a_split_among_others_are_reported(tmp_path: Path, kind: str) -> None:
    names = ["train", None, "val", "" if kind == "json" else " "]
    rows = [{"path": f"{i}.png", "caption": "x", "split": name} for i, name in enumerate(names)]
    if kind == "json":
        karpathy(tmp_path, names)
    path = tmp_path if kind == "json" else written(tmp_path, kind, rows)
    with pytest.warns(UserWarning, match=r"2 of 4 images have no split, such as 1\.png; they are"):
        source = captions.load(path)
    assert [e.split for e in source.examples] == ["train", None, "val", None]


def test_rows_of_one_image_may_leave_values_blank(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text("path,caption,split,label\na.png,x,train,\na.png,y, ,port\nb.png,z,val, \n")
    assert described(captions.load(path)) == {
        "a.png": (("x", "y"), "train", "port"),
        "b.png": (("z",), "val", None),
    }


def row(**more: Any) -> dict[str, Any]:
    return {"path": "a.png", "split": "train", **more}


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        ([row(caption={"x": 5})], r"m\.jsonl: a\.png: expected captions as text, found {'x': 5}"),
        ([row(captions=["x", [5]])], r"m\.jsonl.*line 1: column 'captions'"),
        ([row(captions=[["x"]])], r"a\.png: expected captions as text, found \['x'\]"),
        ([row(text="x")], "expected a column named captions or caption, found split, text"),
        ([row(caption="x"), row(caption="y", split="val")], "expected one split, found train, val"),
        ([row(caption="x", id="1"), row(caption="x", id="1", path="b.png")], "expected one file"),
    ],
)
def test_malformed_manifests_are_refused(
    tmp_path: Path, rows: list[dict[str, Any]], complaint: str
) -> None:
    with pytest.raises(DatasetError, match=complaint):
        captions.load(manifest(tmp_path / "m.jsonl", *rows))


def test_sources_without_captions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="found nothing at"):
        captions.load(tmp_path / "none")
    with pytest.raises(DatasetError, match=r"one manifest with captions.*found none"):
        captions.load(tmp_path)
    (tmp_path / "textaug_train.jsonl").touch()
    picture = tmp_path / "a.png"
    picture.touch()
    with pytest.raises(DatasetError, match=r"expected a folder or a manifest.*found .*a\.png"):
        captions.load(picture)
    for name in ("one.csv", "two.csv"):
        (tmp_path / name).write_text("path,caption\na.png,x\n")
    with pytest.raises(DatasetError, match=r"found one\.csv, two\.csv; pass the manifest itself"):
        captions.load(tmp_path)
    karpathy = tmp_path / "dataset_x.json"
    entry = {"filename": "a.png", "split": "train", "sentences": [{"raw": 5}]}
    karpathy.write_text(json.dumps({"images": [entry]}))
    with pytest.raises(DatasetError, match=r"dataset_x\.json: .*a\.png has the caption 5, which"):
        captions.load(tmp_path)
