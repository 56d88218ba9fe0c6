"""Ingest of folders: labels from folder names, unsupported images, linked folders."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import rsicd_embed
from rsicd_embed import indexing
from rsicd_embed.datasets import folder

from .conftest import picture
from .helpers import Counting, counts, ingest, manifest, rows, run

pytestmark = pytest.mark.usefixtures("load_each_model_once")


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    """Two classes in two splits."""
    root = tmp_path / "classes"
    for number, name in enumerate(["Train/beach", "Train/port", "Test/beach", "Test/port"]):
        (root / name).mkdir(parents=True)
        picture(number).save(root / name / f"{number}.png")
    return root


IDS = ["Test/beach/2.png", "Test/port/3.png", "Train/beach/0.png", "Train/port/1.png"]
LABELS = {
    "Test/beach/2.png": ("beach", "test"),
    "Test/port/3.png": ("port", "test"),
    "Train/beach/0.png": ("beach", "train"),
    "Train/port/1.png": ("port", "train"),
}


def stored_labels(uri: str) -> dict[str, tuple[object, object]]:
    return {id_: (row["label"], row["split"]) for id_, row in sorted(rows(uri).items())}


def test_class_folders_fill_label_and_split(each_uri: str, classes: Path, tiny_model: Path) -> None:
    command = ("ingest", classes, "--store", each_uri, "--model", tiny_model)
    outcome = run(*command, "--json")
    assert outcome.document["embedded"] == 4
    assert outcome.document["notes"] == [
        f"{classes}: labels are the names of the images' folders (2 classes: beach, port)",
        f"{classes}: splits are the names of the top folders (Test, Train)",
    ]
    assert outcome.stderr.splitlines() == [f"note: {x}" for x in outcome.document["notes"]]
    assert stored_labels(each_uri) == LABELS
    again = run(*command, "--json").document
    assert (again["embedded"], again["updated"], again["unchanged"]) == (0, 0, 4)
    hits = run("search", "x", "--store", each_uri, "--where", "label = 'port'", "--json")
    assert {hit["id"] for hit in hits.document["hits"]} == {IDS[1], IDS[3]}


def test_one_split_of_class_folders(uri: str, classes: Path, tiny_model: Path) -> None:
    run("ingest", classes, "--store", uri, "--model", tiny_model, "--split", "training")
    assert sorted(rows(uri)) == IDS[2:]


def test_a_store_without_labels_gets_them_and_keeps_its_vectors(
    embedder: Counting, each_uri: str, classes: Path
) -> None:
    with rsicd_embed.open_store(each_uri, embedder=embedder) as store:
        indexing.ingest([folder.load(classes)], embedder, store)  # as in versions without labels
    assert "label" not in rows(each_uri)[IDS[0]]
    embedder.taken()
    assert counts(ingest(embedder, each_uri, classes)) == (0, 4, 0, 0, 0)
    assert embedder.taken() == 0
    assert stored_labels(each_uri) == LABELS


def test_stored_values_take_precedence_over_folder_names(
    embedder: Counting, each_uri: str, classes: Path
) -> None:
    entries = [
        {"path": IDS[0], "label": "sand", "split": None},
        {"path": IDS[1], "label": None, "split": "holdout"},
    ]
    ingest(embedder, each_uri, manifest(classes / "m.jsonl", *entries))
    assert counts(ingest(embedder, each_uri, classes)) == (2, 2, 0, 0, 0)
    expected = {**LABELS, IDS[0]: ("sand", "test"), IDS[1]: ("port", "holdout")}
    assert stored_labels(each_uri) == expected
    picture(9).save(classes / IDS[0])  # its label is kept when the image changes
    assert counts(ingest(embedder, each_uri, classes)) == (1, 0, 3, 0, 0)
    assert stored_labels(each_uri) == expected


def test_a_column_of_another_type_is_left_alone(
    embedder: Counting, each_uri: str, classes: Path
) -> None:
    entry = {"path": IDS[0], "label": ["x"]}
    ingest(embedder, each_uri, manifest(classes / "m.jsonl", entry))
    summary = ingest(embedder, each_uri, classes)
    assert counts(summary) == (3, 1, 0, 0, 0)
    assert summary.notes[-1] == (
        f"{classes}: the column 'label' of the store has type list<item: string>, so folder "
        "names are not written to it"
    )
    assert stored_labels(each_uri)[IDS[0]] == (["x"], "test")
    assert stored_labels(each_uri)[IDS[1]] == (None, "test")


def test_folders_by_year_get_no_labels(embedder: Counting, uri: str, tmp_path: Path) -> None:
    for number in (2021, 2022):
        (tmp_path / "years" / str(number)).mkdir(parents=True)
        picture(number).save(tmp_path / "years" / str(number) / "a.png")
    ingest(embedder, uri, tmp_path / "years")
    assert all("label" not in row for row in rows(uri).values())


def test_a_file_of_vectors_has_the_labels_too(
    classes: Path, tiny_model: Path, file: Path, uri: str
) -> None:
    embedded = run("embed", classes, "--model", tiny_model, "-o", file)
    assert f"note: {classes}: labels are" in embedded.stderr
    run("import", file, "--store", uri)
    assert stored_labels(uri) == LABELS


def test_unsupported_images_are_counted(uri: str, pictures: Path, tiny_model: Path) -> None:
    for name in ("a.xbm", "b.XBM", "sub/c.psd", "a.txt", "a.tfw", ".d.psd"):
        (pictures / name).write_bytes(b"x")
    command = ("ingest", pictures, "--store", uri, "--model", tiny_model)
    outcome = run(*command, "--json")
    assert (outcome.document["unread"], outcome.document["skipped"]) == ({".xbm": 2, ".psd": 1}, [])
    assert outcome.stderr == "3 files were not read: 2 .xbm, 1 .psd\n"
    assert run(*command, "--strict").status == 0


def test_linked_folders_are_ingested_and_pruned_by_their_link(
    embedder: Counting, each_uri: str, pictures: Path, tmp_path: Path
) -> None:
    (tmp_path / "root").mkdir()
    link = tmp_path / "root" / "link"
    link.symlink_to(pictures)
    picture(7).save(tmp_path / "root" / "own.png")
    assert counts(ingest(embedder, each_uri, tmp_path / "root")) == (6, 0, 0, 0, 0)
    assert rows(each_uri)["link/a.png"]["uri"] == f"{link}/a.png"
    (pictures / "a.png").unlink()
    summary = ingest(embedder, each_uri, tmp_path / "root", prune=True)
    assert counts(summary) == (0, 0, 5, 1, 0)
    pictures.rename(tmp_path / "unmounted")  # files behind a broken link may come back
    summary = ingest(embedder, each_uri, tmp_path / "root", prune=True)
    assert counts(summary) == (0, 0, 1, 0, 1)
    assert "cannot be followed" in summary.skipped[0].reason
    link.unlink()
    assert counts(ingest(embedder, each_uri, tmp_path / "root", prune=True)) == (0, 0, 1, 4, 0)
    assert sorted(rows(each_uri)) == ["own.png"]


def test_prune_of_an_emptied_folder(
    each_uri: str, pictures: Path, tiny_model: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    picture(8).save(other / "z.png")
    command = ("--store", each_uri, "--model", tiny_model, "--json")
    assert run("ingest", pictures, other, *command).document["embedded"] == 6
    for name in ["a.png", "b.png", "c.jpg", "d.tif", "sub/e.png"]:
        (pictures / name).unlink()
    assert "expected images" in run("ingest", pictures, *command).error
    assert len(rows(each_uri)) == 6
    outcome = run("ingest", pictures, "--prune", *command)
    assert (outcome.status, outcome.document["removed"]) == (0, 5)
    assert outcome.stderr == (
        f"note: {pictures} has no images; the rows of its former images are removed\n"
    )
    assert sorted(rows(each_uri)) == ["z.png"]
    (other / "z.png").unlink()
    assert run("ingest", other, "--prune", *command).document["removed"] == 1
    assert rows(each_uri) == {}
    other.rmdir()
    assert "found nothing at" in run("ingest", other, "--prune", *command).error


def test_prune_of_one_split_of_an_emptied_folder(uri: str, classes: Path, tiny_model: Path) -> None:
    command = ("ingest", classes, "--store", uri, "--model", tiny_model, "--json")
    run(*command)
    for name in IDS:
        (classes / name).unlink()
    assert run(*command, "--prune", "--split", "test").document["removed"] == 4


def test_a_folder_with_hugging_face_metadata(uri: str, pictures: Path, tiny_model: Path) -> None:
    (pictures / "dataset_info.json").write_text(json.dumps({"splits": {"train": {}}}))
    outcome = run("ingest", pictures, "--store", uri, "--model", tiny_model)
    assert outcome.stdout.startswith("5 embedded, ")
    assert outcome.stderr == (
        f"note: {pictures / 'dataset_info.json'} lists no images with captions\n"
    )
