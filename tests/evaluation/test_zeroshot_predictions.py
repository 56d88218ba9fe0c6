"""Predictions from a file: CLIP-rsicd's published ones, and invalid files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rsicd_embed.datasets.base import Example
from rsicd_embed.errors import DatasetError
from rsicd_embed.evaluation import dataset
from rsicd_embed.evaluation.metrics import Bootstrap
from rsicd_embed.evaluation.zeroshot import read_predictions, report

CLASSES = ("a", "b", "c")
EXAMPLES = [Example(f"{i}.png", f"{i}.png") for i in range(2)]
LABELS = np.array([0, 1])
GOOD = "0.png\ta\ta\t.9\tb\t.1\n1.png\tb\tc\t.5\tb\t.5\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "predictions.tsv"


def test_ranks_are_positions_in_the_file(file: Path) -> None:
    file.write_text(GOOD)
    predicted = read_predictions(file, EXAMPLES, LABELS, CLASSES)
    assert predicted.depth == 2
    assert predicted.outcome.ranks.tolist() == [1, 2]
    assert predicted.outcome.predicted.tolist() == [0, 2]


def test_a_byte_order_mark_is_ignored(file: Path) -> None:
    file.write_text(GOOD, "utf-8-sig")
    assert read_predictions(file, EXAMPLES, LABELS, CLASSES).depth == 2


def test_a_class_that_is_not_listed_is_ranked_last(file: Path) -> None:
    file.write_text("1.png\tb\ta\t.9\tc\t.1\n0.png\ta\tb\t.9\tc\t.1\n")
    predicted = read_predictions(file, EXAMPLES, LABELS, CLASSES)
    assert predicted.outcome.ranks.tolist() == [3, 3]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "found an empty file"),
        ("0.png\ta\n", r"line 1: expected image, class, and pairs"),
        ("0.png\ta\ta\n", "line 1: expected image, class, and pairs"),
        ("0.png\ta\ta\tmuch\n", "line 1: expected image, class, and pairs"),
        ("9.png\ta\ta\t1\n", r"line 1: 9\.png is not one of the 2 images"),
        ("0.png\tb\ta\t1\n", r"line 1: expected the class 'a' for 0\.png, found 'b'"),
        ("0.png\ta\tz\t1\n", "line 1: 'z' is not one of the 3 classes"),
        ("0.png\ta\ta\t.1\tb\t.9\n", r"line 1: expected falling scores, found \.1, \.9"),
        ("0.png\ta\ta\tnan\tb\t.9\n", r"line 1: expected falling scores, found nan, \.9"),
        ("0.png\ta\ta\t.9\ta\t.1\n", "line 1: expected each class once"),
        (GOOD + "0.png\ta\ta\t1\n", r"line 3: 0\.png occurs twice"),
        ("0.png\ta\ta\t1\n", r"expected predictions for 2 images, found 1; 1\.png is missing"),
    ],
)
def test_invalid_files(file: Path, text: str, message: str) -> None:
    file.write_text(text)
    with pytest.raises(DatasetError, match=message):
        read_predictions(file, EXAMPLES, LABELS, CLASSES)


def test_a_file_that_is_not_text(file: Path) -> None:
    with pytest.raises(DatasetError, match="cannot be read as text"):
        read_predictions(file, EXAMPLES, LABELS, CLASSES)
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DatasetError, match="cannot be read as text"):
        read_predictions(file, EXAMPLES, LABELS, CLASSES)


def test_the_published_baseline(rsicd: Path) -> None:
    """Scores of CLIP-rsicd's published predictions of the CLIP that was not fine-tuned."""
    opened = dataset.open_set(rsicd)
    _, examples = opened.split("test")
    chosen = dataset.labelled(opened, examples)
    wanted = [examples[row] for row in chosen.rows]
    path = rsicd / "published_baseline_predictions.tsv"
    predicted = read_predictions(path, wanted, chosen.labels, chosen.classes)
    assert (len(wanted), len(chosen.classes), predicted.depth) == (1027, 30, 10)
    metrics = report(predicted.outcome, Bootstrap())["metrics"]
    assert {name: round(value, 3) for name, value in metrics.items()} == {
        "top1": 0.575,
        "top3": 0.743,
        "top5": 0.822,
        "top10": 0.931,
    }
