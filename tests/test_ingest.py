"""Ingest: rows that are embedded, updated or left unchanged."""

from __future__ import annotations

import importlib
import math
import os
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

import rsicd_embed
from rsicd_embed.curation.corrections import LabelColumns, LabelState, set_label

from .conftest import picture
from .helpers import IDS, Counting, counts, ingest, manifest, rows
from .other_writer import before_the_lock


def test_a_second_run_embeds_nothing(embedder: Counting, each_uri: str, pictures: Path) -> None:
    assert counts(ingest(embedder, each_uri, pictures)) == (5, 0, 0, 0, 0)
    assert embedder.taken() == 5
    before = rows(each_uri)
    assert sorted(before) == IDS
    assert counts(ingest(embedder, each_uri, pictures)) == (0, 0, 5, 0, 0)
    assert embedder.taken() == 0
    assert rows(each_uri) == before


def test_rows_have_uri_hash_and_size(embedder: Counting, each_uri: str, pictures: Path) -> None:
    summary = ingest(embedder, each_uri, pictures)
    stored = rows(each_uri)
    expected = embedder.embed_images([pictures / id_ for id_ in IDS])
    vectors = np.array([stored[id_]["vector"] for id_ in IDS], np.float32)
    np.testing.assert_allclose(vectors, expected, atol=1e-6)
    assert stored["sub/e.png"]["uri"] == str(pictures / "sub" / "e.png")
    assert (stored["a.png"]["width"], stored["a.png"]["height"]) == (40, 36)
    assert len({row["sha256"] for row in stored.values()}) == 5
    assert summary.images_per_s == pytest.approx(5 / summary.seconds)


def test_only_a_changed_file_is_embedded_again(
    embedder: Counting, each_uri: str, pictures: Path
) -> None:
    ingest(embedder, each_uri, pictures)
    before = rows(each_uri)
    embedder.taken()
    picture(99).save(pictures / "b.png")
    assert counts(ingest(embedder, each_uri, pictures)) == (1, 0, 4, 0, 0)
    assert embedder.taken() == 1
    after = rows(each_uri)
    assert {id_ for id_ in IDS if after[id_] != before[id_]} == {"b.png"}


def test_a_touched_file_is_not_embedded_again(
    embedder: Counting, each_uri: str, pictures: Path
) -> None:
    ingest(embedder, each_uri, pictures)
    os.utime(pictures / "a.png", (1, 1))
    assert counts(ingest(embedder, each_uri, pictures)) == (0, 0, 5, 0, 0)


def test_a_moved_folder_is_followed_without_embedding(
    embedder: Counting, each_uri: str, pictures: Path
) -> None:
    ingest(embedder, each_uri, pictures)
    embedder.taken()
    moved = pictures.rename(pictures.with_name("moved"))
    assert counts(ingest(embedder, each_uri, moved)) == (0, 5, 0, 0, 0)
    assert embedder.taken() == 0
    assert {row["uri"] for row in rows(each_uri).values()} == {str(moved / id_) for id_ in IDS}


def test_new_attributes_are_written_without_embedding(
    embedder: Counting, each_uri: str, pictures: Path
) -> None:
    ingest(embedder, each_uri, pictures)
    embedder.taken()
    table = manifest(pictures / "m.jsonl", {"path": "a.png", "label": "port", "cloud": 0.5})
    assert counts(ingest(embedder, each_uri, table)) == (0, 1, 0, 0, 0)
    assert counts(ingest(embedder, each_uri, table)) == (0, 0, 1, 0, 0)
    manifest(table, {"path": "a.png", "label": "beach", "cloud": None})
    assert counts(ingest(embedder, each_uri, table)) == (0, 1, 0, 0, 0)
    assert embedder.taken() == 0
    stored = rows(each_uri)
    assert (stored["a.png"]["label"], stored["a.png"]["cloud"]) == ("beach", None)
    assert stored["b.png"]["label"] is None


def write_first(monkeypatch: pytest.MonkeyPatch, uri: str, **values: Any) -> None:
    """Lets another writer set values of all rows just before an ingest writes to existing ones."""
    with rsicd_embed.open_store(uri) as store:
        kind = type(store)

    def after_another(write: Callable[..., Any]) -> Callable[..., Any]:
        def patched(store: Any, *arguments: Any) -> Any:
            with rsicd_embed.open_store(uri) as other:
                table = other.scan().read_all()
                for name, value in values.items():
                    column = pa.array([value] * len(table))
                    if name in table.column_names:
                        table = table.drop_columns([name])
                    table = table.append_column(name, column)
                other.upsert(table.to_batches())
            return write(store, *arguments)

        return patched

    for name in ("rewrite_attributes", "merge"):
        monkeypatch.setattr(kind, name, after_another(getattr(kind, name)))


def add_checked(send: Callable[..., None], uri: str) -> None:
    with rsicd_embed.open_store(uri) as other:
        row = other.scan().read_all().slice(0, 1)
        columns = {"id": ["a.png"], "vector": row["vector"], "uri": ["elsewhere"], "checked": [7]}
        other.upsert(pa.table(columns).to_batches())


def test_new_rows_keep_what_others_write_meanwhile(
    embedder: Counting, each_uri: str, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process adds a row of the same id with a further column."""
    ingest(embedder, each_uri, pictures / "b.png")
    before_the_lock(monkeypatch, add_checked, each_uri)
    ingest(embedder, each_uri, pictures)
    row = rows(each_uri)["a.png"]
    assert (row["uri"], row["checked"]) == (str(pictures / "a.png"), 7)


@pytest.mark.parametrize("change", ["value", "column", "move", "image"])
def test_updates_keep_what_others_write_meanwhile(
    change: str,
    embedder: Counting,
    each_uri: str,
    pictures: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table = manifest(pictures / "m.jsonl", {"path": "a.png", "label": "port"})
    ingest(embedder, each_uri, table)
    expected = rows(each_uri)["a.png"] | {"checked": True}
    if change == "value":
        manifest(table, {"path": "a.png", "label": "beach"})
        expected |= {"label": "beach"}
    elif change == "column":
        manifest(table, {"path": "a.png", "label": "port", "bounds": [1.5, None]})
        expected |= {"bounds": [1.5, None]}
    elif change == "move":
        table = pictures.rename(pictures.with_name("moved")) / table.name
        expected |= {"uri": str(table.with_name("a.png"))}
    else:
        picture(50).save(pictures / "a.png")
        expected |= {"sha256": sha256((pictures / "a.png").read_bytes()).hexdigest()}
    write_first(monkeypatch, each_uri, checked=True)
    embedded = int(change == "image")
    assert counts(ingest(embedder, each_uri, table)) == (embedded, 1 - embedded, 0, 0, 0)
    row = rows(each_uri)["a.png"]
    assert (row.pop("vector") != expected.pop("vector")) == embedded
    assert row == expected


@pytest.mark.parametrize("change", ["move", "image"])
def test_labels_of_folders_do_not_replace_those_written_meanwhile(
    change: str,
    embedder: Counting,
    each_uri: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "scenes"
    for index, name in enumerate(["beach", "forest", "port"]):
        (folder / name).mkdir(parents=True)
        for number in range(2):
            picture(10 * index + number).save(folder / name / f"{number}.png")
    ingest(embedder, each_uri, folder)
    assert {row["label"] for row in rows(each_uri).values()} == {"beach", "forest", "port"}
    if change == "move":
        folder = folder.rename(tmp_path / "moved")
    else:
        picture(50).save(folder / "port" / "0.png")
    write_first(monkeypatch, each_uri, label="corrected")
    ingest(embedder, each_uri, folder)
    assert {row["label"] for row in rows(each_uri).values()} == {"corrected"}


def test_a_changed_image_keeps_columns_of_other_sources(
    embedder: Counting, each_uri: str, pictures: Path
) -> None:
    entries = [{"path": name, "label": f"label of {name}", "lat": 1.5} for name in IDS]
    ingest(embedder, each_uri, manifest(pictures / "m.jsonl", *entries))
    before = rows(each_uri)["a.png"]
    picture(50).save(pictures / "a.png")
    picture(51).save(pictures / "new.png")
    assert counts(ingest(embedder, each_uri, pictures)) == (2, 0, 4, 0, 0)
    after = rows(each_uri)
    assert after["a.png"]["sha256"] != before["sha256"]
    assert (after["a.png"]["label"], after["a.png"]["lat"]) == ("label of a.png", 1.5)
    assert (after["new.png"]["label"], after["new.png"]["lat"]) == (None, None)


def correct_a(send: Callable[..., None], uri: str) -> None:
    with rsicd_embed.open_store(uri) as other:
        columns, state = LabelColumns("label"), LabelState("beach", 1.0, "beach")
        set_label(other, columns, "a.png", "port", state)


def test_labels_of_changed_images_that_are_corrected_meanwhile_stay(
    embedder: Counting, each_uri: str, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = [{"path": name, "label": "port"} for name in ("a.png", "b.png")]
    ingest(embedder, each_uri, manifest(pictures / "m.jsonl", *entries))
    for name in ("a.png", "b.png"):
        picture(50).save(pictures / name)
    table = manifest(pictures / "m.jsonl", *[entry | {"label": "town"} for entry in entries])
    before_the_lock(monkeypatch, correct_a, each_uri)
    assert counts(ingest(embedder, each_uri, table)) == (2, 0, 0, 0, 0)
    stored = rows(each_uri)
    assert [stored[name]["label"] for name in ("a.png", "b.png")] == ["beach", "town"]
    assert stored["a.png"]["label_probability"] == 1.0


@pytest.mark.parametrize("meanwhile", [False, True])
def test_corrected_labels_stay(
    meanwhile: bool,
    embedder: Counting,
    each_uri: str,
    pictures: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The manifest still has the labels that people corrected on the search page."""
    entries = [{"path": name, "label": "port"} for name in ("a.png", "b.png")]
    table = manifest(pictures / "m.jsonl", *entries)
    ingest(embedder, each_uri, table)

    def correct(store: Any) -> None:
        columns, state = LabelColumns("label"), LabelState("beach", 1.0, "beach")
        set_label(store, columns, "a.png", "port", state)

    if meanwhile:
        manifest(table, *[entry | {"label": "town"} for entry in entries])
        module = importlib.import_module("rsicd_embed.indexing.ingest")
        update = module.update_attributes

        def correct_first(store: Any, *arguments: Any) -> int:
            with rsicd_embed.open_store(each_uri) as other:
                correct(other)
            return int(update(store, *arguments))

        monkeypatch.setattr(module, "update_attributes", correct_first)
        assert counts(ingest(embedder, each_uri, table)) == (0, 2, 0, 0, 0)
    else:
        with rsicd_embed.open_store(each_uri) as store:
            correct(store)
        assert counts(ingest(embedder, each_uri, table)) == (0, 0, 2, 0, 0)
        manifest(table, *[entry | {"label": "town", "cloud": 0.5} for entry in entries])
        picture(50).save(pictures / "a.png")
        assert counts(ingest(embedder, each_uri, table)) == (1, 1, 0, 0, 0)
    stored = rows(each_uri)
    assert [stored[name]["label"] for name in ("a.png", "b.png")] == ["beach", "town"]
    assert stored["a.png"]["label_corrected"] == "beach"


def test_changed_images_with_computed_columns_are_reported(
    embedder: Counting, each_uri: str, pictures: Path
) -> None:
    ingest(embedder, each_uri, pictures)
    picture(50).save(pictures / "a.png")
    assert ingest(embedder, each_uri, pictures).notes == []
    names = pa.schema([("text", pa.string()), ("text_log_probability", pa.float32())])
    with rsicd_embed.open_store(each_uri) as store:
        store.rewrite_attributes(  # type: ignore[attr-defined]
            lambda rows: pa.record_batch(
                [rows["id"], pa.array([0.5] * len(rows))], names.names
            ).cast(names),
            names,
        )
    assert ingest(embedder, each_uri, pictures).notes == []
    picture(51).save(pictures / "a.png")
    summary = ingest(embedder, each_uri, pictures)
    assert summary.changed == 1
    (note,) = summary.notes
    assert note.startswith("1 changed images keep what was computed from their earlier contents")
    assert "in the columns text; " in note
    assert rows(each_uri)["a.png"]["text"] == "a.png"


def test_columns_absent_from_a_source_cause_no_update(
    embedder: Counting, each_uri: str, pictures: Path
) -> None:
    """NaN, all-null columns and empty lists cause no update either."""
    table = pictures / "m.parquet"
    columns = {"path": ["a.png", "b.png"], "cloud": [math.nan, 0.25], "note": [None, None]}
    pyarrow.parquet.write_table(pa.table(columns), table)
    lists = manifest(pictures / "n.jsonl", {"path": "c.jpg", "tags": [], "scores": [1.5, None]})
    assert counts(ingest(embedder, each_uri, [table, lists])) == (3, 0, 0, 0, 0)
    assert counts(ingest(embedder, each_uri, [table, lists])) == (0, 0, 3, 0, 0)
    assert counts(ingest(embedder, each_uri, pictures)) == (2, 0, 3, 0, 0)
    stored = rows(each_uri)
    assert math.isnan(stored["a.png"]["cloud"])
    assert stored["b.png"]["cloud"] == 0.25


def test_unchanged_objects_cause_no_update(
    embedder: Counting, each_uri: str, pictures: Path
) -> None:
    """Including NaN, and empty fields and columns, which stores drop."""
    geo = [{"cloud": math.nan, "more": [{"x": math.nan}]}, None]
    source = pictures / "m.parquet"
    pyarrow.parquet.write_table(pa.table({"path": ["a.png", "b.png"], "geo": geo}), source)
    assert counts(ingest(embedder, each_uri, source)) == (2, 0, 0, 0, 0)
    assert counts(ingest(embedder, each_uri, source)) == (0, 0, 2, 0, 0)
    listed = manifest(
        pictures / "m.jsonl",
        {"path": "a.png", "properties": {}, "geo": {"cloud": 1.5, "empty": {}, "note": None}},
        {"path": "b.png", "properties": {}, "geo": {"cloud": None, "empty": {}, "note": None}},
    )
    assert counts(ingest(embedder, each_uri, listed)) == (0, 2, 0, 0, 0)
    assert counts(ingest(embedder, each_uri, listed)) == (0, 0, 2, 0, 0)
    stored = rows(each_uri)
    assert stored["a.png"]["geo"] == {"cloud": 1.5, "more": None}
    assert stored["b.png"]["geo"] == {"cloud": None, "more": None}
    assert "properties" not in stored["a.png"]
