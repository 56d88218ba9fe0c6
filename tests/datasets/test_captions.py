"""Captions from manifests: their columns, their rows, their splits, and what is wrong with them."""

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


def told(source: Source) -> dict[str, Any]:
    return {e.id: (e.captions, e.split, e.label or None) for e in source.examples}


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_rows_of_one_image_are_joined(tmp_path: Path, kind: str) -> None:
    source = captions.load(written(tmp_path, kind))
    assert told(source) == {
        "a.png": (("a port", "many boats"), "train", "port"),
        "b.png": (("a desert",), "val", "desert"),
        "c.png": (("a river",), "test", None),
    }
    assert source.examples[0].path == tmp_path / "a.png"
    assert captions.load(tmp_path) == source  # the one manifest in a folder


def test_lists_of_captions(tmp_path: Path) -> None:
    rows = [{"image": "a.png", "captions": ["x", "", "y"], "split": "train"}]
    assert captions.load(manifest(tmp_path / "m.jsonl", *rows)).examples[0].captions == ("x", "y")


def test_without_splits_some_images_are_val_and_stay_so(tmp_path: Path) -> None:
    rows = [{"path": f"{i}.png", "caption": "x"} for i in range(400)]
    val = {e.id for e in captions.load(manifest(tmp_path / "m.jsonl", *rows)).split("val")}
    assert 5 < len(val) < 40  # 20 expected
    more = [*rows[::-1], {"path": "new.png", "caption": "x"}]
    source = captions.load(manifest(tmp_path / "m.jsonl", *more))
    assert {e.id for e in source.split("val")} - {"new.png"} == val
    assert len(source.split("train")) + len(source.split("val")) == 401
    few = captions.load(manifest(tmp_path / "m.jsonl", *rows[:3]))
    assert len(few.split("val")) == 1


def row(**more: Any) -> dict[str, Any]:
    return {"path": "a.png", "split": "train", **more}


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        ([row(caption=5)], r"m\.jsonl: a\.png: expected captions as text, found 5"),
        ([row(captions=["x", 5])], r"m\.jsonl"),
        ([row(captions=[7])], r"a\.png: expected captions as text, found 7"),
        ([row(text="x")], "expected a column named captions or caption, found split, text"),
        ([row(caption="x"), row(caption="y", split="val")], "expected one split, found train, val"),
        ([row(caption="x"), {"path": "b.png", "caption": "x"}], r"found none of b\.png"),
        ([row(caption="x", id="1"), row(caption="x", id="1", path="b.png")], "expected one file"),
    ],
)
def test_manifests_that_make_no_sense(
    tmp_path: Path, rows: list[dict[str, Any]], complaint: str
) -> None:
    with pytest.raises(DatasetError, match=complaint):
        captions.load(manifest(tmp_path / "m.jsonl", *rows))


def test_places_without_captions(tmp_path: Path) -> None:
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
    with pytest.raises(DatasetError, match=r"found one\.csv, two\.csv; give the manifest itself"):
        captions.load(tmp_path)
    karpathy = tmp_path / "dataset_x.json"
    entry = {"filename": "a.png", "split": "train", "sentences": [{"raw": 5}]}
    karpathy.write_text(json.dumps({"images": [entry]}))
    with pytest.raises(DatasetError, match=r"dataset_x\.json: .*a\.png has the caption 5, which"):
        captions.load(tmp_path)
