"""Labels and splits from folder names, for ingest and eval."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsicd_embed.datasets import classes, splits
from rsicd_embed.datasets.base import Example, Source
from rsicd_embed.datasets.sources import open_source, open_sources
from rsicd_embed.errors import DatasetError
from rsicd_embed.evaluation.dataset import labelled, open_set

from ..helpers import manifest


def images(folder: Path, *names: str) -> Path:
    """Creates empty files named like images."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def columns(source: Source) -> dict[str, tuple[str | None, str | None]]:
    return {example.id: (example.label, example.split) for example in source.examples}


CAPITALS = ["Test/beach/1.png", "Test/port/2.png", "Train/beach/3.png", "Train/port/4.png"]


def test_split_folders_are_not_classes(tmp_path: Path) -> None:
    opened = open_set(images(tmp_path, *CAPITALS))
    name, examples = opened.split(None)
    assert (name, [example.id for example in examples]) == ("test", CAPITALS[:2])
    assert labelled(opened, examples).classes == ("beach", "port")
    assert [len(opened.split(split)[1]) for split in ("train", "Training", "all")] == [2, 2, 4]


@pytest.mark.parametrize(
    "name",
    ["train", "TRAINING", "restval", "Val", "valid", "validation", "dev", "test", "Testing"],
)
def test_one_list_of_split_names(tmp_path: Path, name: str) -> None:
    """For class folders, manifests and `--split`, in `eval` and `ingest`."""
    expected = splits.plain(name)
    folder = images(tmp_path / "folder", f"{name}/beach/1.png", f"{name}/port/2.png")
    labels = {f"{name}/beach/1.png": "beach", f"{name}/port/2.png": "port"}
    assert columns(classes.load(folder)) == columns(open_source(folder))
    assert columns(open_source(folder)) == {id_: (label, expected) for id_, label in labels.items()}
    rows = manifest(tmp_path / "m.jsonl", {"path": "a.png", "split": name})
    assert open_set(rows).split(expected)[0] == expected
    for source in (folder, rows):
        for wanted in (name.lower(), name.upper(), expected):
            (opened,) = open_sources([source], split=wanted)
            assert opened.examples


def test_two_spellings_of_a_split_are_merged(tmp_path: Path) -> None:
    rows = [{"path": f"{i}.png", "split": name} for i, name in enumerate(["Test", "test", "dev"])]
    opened = open_set(manifest(tmp_path / "m.jsonl", *rows))
    assert [len(opened.split(name)[1]) for name in (None, "TEST", "val")] == [2, 2, 1]


def test_splits_beside_classes_are_refused_by_eval(tmp_path: Path) -> None:
    images(tmp_path, *CAPITALS, "river/5.png")
    with pytest.raises(DatasetError, match="found the splits Test, Train beside river; move"):
        open_set(tmp_path)
    assert open_source(tmp_path).schema.names == []
    (tmp_path / "river" / "5.png").unlink()  # a folder without images is not part of the dataset
    assert len(open_set(tmp_path).examples) == 4


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["beach/1.png", "port/2.png"], [("beach", None), ("port", None)]),
        (["class_0/1.png", "class_1/2.png"], [("class_0", None), ("class_1", None)]),
        (["train/1.png", "val/2.png"], [(None, "train"), (None, "val")]),
        (["train/images/1.png", "val/images/2.png"], [(None, "train"), (None, "val")]),
        (["train/A/1.png", "train/label/1.png"], [(None, "train"), (None, "train")]),
        (["海滩/1.png", "港口/2.png"], [("海滩", None), ("港口", None)]),
    ],
)
def test_labels_and_splits_for_ingest(
    tmp_path: Path, names: list[str], expected: list[tuple[str | None, str | None]]
) -> None:
    source = open_source(images(tmp_path, *names))
    assert list(columns(source).items()) == list(zip(names, expected, strict=True))
    assert source.schema.names == list(source.inferred)
    assert source.notes


@pytest.mark.parametrize(
    "names",
    [
        ["1.png", "2.png"],
        ["beach/1.png", "beach/2.png"],
        ["2021/1.png", "2022/2.png"],
        ["2021-05/1.png", "2021-jun/2.png"],
        ["2021/05/1.png", "2021/06/2.png"],
        ["S2A_20210504T103021/1.png", "S2B_20210604T103021/2.png"],
        ["images/1.png", "masks/2.png"],
        ["site/beach/1.png", "site/port/2.png"],
        ["beach/1.png", "port/2.png", "3.png"],
        ["beach/1.png", "port/2.png", "port/old/3.png"],
        ["beach/train/1.png", "port/train/2.png"],
    ],
)
def test_doubtful_folder_names_give_no_labels(tmp_path: Path, names: list[str]) -> None:
    source = open_source(images(tmp_path, *names))
    assert set(columns(source).values()) == {(None, None)}
    assert (source.schema.names, source.inferred) == ([], ())


def test_the_summary_reports_the_origin_of_labels(tmp_path: Path) -> None:
    assert open_source(images(tmp_path, *CAPITALS)).notes == (
        f"{tmp_path}: labels are the names of the images' folders (2 classes: beach, port)",
        f"{tmp_path}: splits are the names of the top folders (Test, Train)",
    )
    images(tmp_path, "Test/overview.png")
    assert open_source(tmp_path).notes[0] == (
        f"{tmp_path}: no labels from folder names: not all images are directly in a class folder, "
        "such as Test/overview.png (1 of 5)"
    )
    years = images(tmp_path / "years", "2021/1.png", "2022/2.png")
    assert open_source(years).notes == (
        f"{years}: no labels from folder names: '2021' does not look like a class; "
        "a manifest can give them",
    )
    assert open_source(images(tmp_path / "flat", "a.png", "b/c.png")).notes == ()


@pytest.mark.parametrize(
    ("name", "split"),
    [("train2017", "train"), ("Val_images", "val"), ("images-test", "test"), ("dev2", "val")],
)
def test_split_folders_with_a_year_or_a_kind(tmp_path: Path, name: str, split: str) -> None:
    folder = images(tmp_path / "folder", f"{name}/beach/1.png", f"{name}/port/2.png")
    labels = {f"{name}/beach/1.png": "beach", f"{name}/port/2.png": "port"}
    assert columns(open_source(folder)) == {id_: (image, split) for id_, image in labels.items()}
    assert columns(classes.load(folder)) == columns(open_source(folder))
    flat = images(tmp_path / "flat", f"{name}/1.png", "train/2.png")
    assert {image.split for image in open_source(flat).examples} == {split, "train"}
    assert {image.label for image in open_source(flat).examples} == {None}


def test_a_split_beside_classes_is_not_a_class(tmp_path: Path) -> None:
    mixed = open_source(images(tmp_path, "beach/1.png", "port/2.png", "train/3.png"))
    assert {example.label for example in mixed.examples} == {None}
    assert mixed.notes == (
        f"{tmp_path}: no labels from folder names: 'train' does not look like a class; "
        "a manifest can give them",
    )


def test_eval_reports_doubtful_classes(tmp_path: Path) -> None:
    years = open_set(images(tmp_path / "years", "2021/1.png", "2022/2.png"))
    assert years.notes == (
        f"{tmp_path / 'years'}: folders that do not look like classes: 2021, 2022",
    )
    inside = open_set(images(tmp_path / "inside", "beach/train/1.png", "port/test/2.png"))
    assert inside.notes == (
        f"{tmp_path / 'inside'}: test, train below the top folders are not read as splits; "
        "FOLDER/SPLIT/CLASS is",
    )
    assert open_set(images(tmp_path / "plain", *CAPITALS)).notes == ()


def test_class_folders_label_images_regardless_of_file_names(tmp_path: Path) -> None:
    """Classes in file names are used only by RSICD's published protocol."""
    opened = open_set(images(tmp_path, "beach/beach_1.png", "beach/2.png", "port/3.png"))
    chosen = labelled(opened, opened.examples)
    assert (chosen.classes, chosen.labels.tolist()) == (("beach", "port"), [0, 0, 1])
    assert chosen.left_out == 0


def test_images_of_a_class_share_their_attributes() -> None:
    """A million images would otherwise take as many dictionaries."""
    examples = tuple(
        Example(f"{name}/{i}.png", "x") for name in ("beach", "port") for i in range(9)
    )
    source = classes.from_folder_names(Source(Path("x"), examples))
    assert len({id(example.attributes) for example in source.examples}) == 2


PATHS = st.lists(
    st.lists(st.sampled_from(["Train", "val", "beach", "port", "2021", "images"]), max_size=3),
    min_size=1,
    max_size=6,
)


@given(PATHS)
def test_labels_are_the_images_folders_or_absent(paths: list[list[str]]) -> None:
    """For any folders, all images have a label or none, and no label is a split or a year."""
    examples = tuple(
        Example("/".join([*folders, f"{number}.png"]), "x") for number, folders in enumerate(paths)
    )
    source = classes.from_folder_names(Source(Path("x"), examples))
    labels = [example.label for example in source.examples]
    assert ("label" in source.schema.names) == (None not in labels)
    assert labels in ([None] * len(paths), [folders[-1] if folders else "" for folders in paths])
    assert set(labels) in ({None}, {"beach", "port"})
    assert {example.split for example in source.examples} <= {None, "train", "val"}
    assert [example.id for example in source.examples] == [example.id for example in examples]


def test_a_manifest_column_of_another_type_wins(tmp_path: Path) -> None:
    images(tmp_path / "classes", "beach/1.png", "port/2.png")
    rows = manifest(tmp_path / "m.jsonl", {"path": "a.png", "label": ["x"]})
    for paths in ([tmp_path / "classes", rows], [rows, tmp_path / "classes"]):
        sources = {source.root: source for source in open_sources(paths)}
        classes = sources[tmp_path / "classes"]
        assert (classes.schema.names, classes.inferred) == ([], ())
        assert classes.notes[-1].endswith(
            f"the column 'label' of {tmp_path} has type list<item: string>, so folder names are "
            "not written to it"
        )
        assert sources[tmp_path].schema.field("label").type == pa.list_(pa.string())


def test_linked_class_folders_are_read(tmp_path: Path) -> None:
    images(tmp_path / "elsewhere", "beach/1.png", "port/2.png")
    root = tmp_path / "root"
    root.mkdir()
    for name in ("beach", "port"):
        (root / name).symlink_to(tmp_path / "elsewhere" / name)
    expected = {"beach/1.png": ("beach", None), "port/2.png": ("port", None)}
    assert columns(classes.load(root)) == columns(open_source(root)) == expected
    (root / "harbour").symlink_to(root / "port")
    complaint = r"class 'port' in .*, found a link to .*/port, which is read under another path, "
    with pytest.raises(DatasetError, match=complaint):
        classes.load(root)


def test_a_class_of_unsupported_images_is_reported(tmp_path: Path) -> None:
    images(tmp_path, "beach/1.png", "port/2.psd", "port/3.psd")
    with pytest.raises(DatasetError, match=r"class 'port' in .*, found 2 \.psd; add some"):
        classes.load(tmp_path)
