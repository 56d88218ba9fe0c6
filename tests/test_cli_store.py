"""`rsicd-embed store`: delete, copy, rename, restore and drop-column."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import rsicd_embed

from .helpers import SCHEMES, content, manifest, rows, run

pytestmark = pytest.mark.usefixtures("load_each_model_once")


def test_drop_column(each_uri: str, tiny_model: Path, pictures: Path) -> None:
    source = manifest(
        pictures / "m.jsonl",
        {"path": "a.png", "label": "port", "cloud": 0.5, "geo": {"x": 1}},
        {"path": "b.png", "label": None, "cloud": None, "geo": None},
    )
    run("ingest", source, "--store", each_uri, "--model", tiny_model)
    done = run("store", "drop-column", "cloud", "geo", "--store", each_uri)
    assert done.status == 0
    assert (
        "dropped cloud, geo; columns: id, vector, uri, sha256, width, height, label" in done.stdout
    )
    assert [row["label"] for _, row in sorted(rows(each_uri).items())] == ["port", None]
    # Ingesting the manifest again restores the column.
    again = run("ingest", source, "--store", each_uri, "--model", tiny_model, "--json").document
    assert (again["embedded"], again["updated"]) == (0, 1)
    assert rows(each_uri)["a.png"]["geo"] == {"x": 1}
    dropped = run("store", "drop-column", "geo", "--store", each_uri, "--json").document
    fixed = ["id", "vector", "uri", "sha256", "width", "height"]
    assert dropped["dropped"] == ["geo"]
    assert sorted(dropped["columns"]) == sorted([*fixed, "label", "cloud"])


def test_another_scheme(each_uri: str, tiny_model: Path, pictures: Path) -> None:
    """The error names the scheme that opens the folder."""
    run("ingest", pictures, "--store", each_uri, "--model", tiny_model)
    scheme, _, path = each_uri.partition(":")
    right, wrong = ("lancedb", "exact") if scheme == "lancedb" else ("exact", "lancedb")
    error = run("info", "--store", f"{wrong}:{path}").error
    assert f"open it as {right}:{path}" in error


def test_drop_column_refused(stored: str) -> None:
    before = content(stored)
    outcome = run("store", "drop-column", "labl", "--store", stored)
    assert outcome.error.startswith("error: no column 'labl'; columns that can be dropped: ")
    outcome = run("store", "drop-column", "sha256", "--store", stored)
    assert "column 'sha256' cannot be dropped: every store has it" in outcome.error
    assert run("store", "drop-column", "--store", stored).status == 2
    assert content(stored) == before


def test_later_manifest_with_other_object_type(
    each_uri: str, tiny_model: Path, pictures: Path
) -> None:
    """Refused before anything is embedded; the suggested remedy works."""
    options = ("--store", each_uri, "--model", tiny_model)
    first = manifest(pictures / "m.jsonl", {"path": "a.png", "properties": {"cloud": 1, "x": {}}})
    later = manifest(pictures / "n.jsonl", {"path": "b.png", "properties": {"x": {"y": "text"}}})
    assert run("ingest", first, *options).status == 0
    refused = run("ingest", later, *options).error
    assert f"{later}: row 1: expected struct<cloud: int64> in column 'properties'" in refused
    assert "found {'x': {'y': 'text'}}" in refused
    assert "rsicd-embed store drop-column" in refused
    assert set(rows(each_uri)) == {"a.png"}
    assert run("store", "drop-column", "properties", "--store", each_uri).status == 0
    assert run("ingest", later, *options).status == 0
    assert rows(each_uri)["b.png"]["properties"] == {"x": {"y": "text"}}


def test_delete(each_uri: str, tiny_model: Path, pictures: Path) -> None:
    run("ingest", pictures, "--store", each_uri, "--model", tiny_model)
    before = rows(each_uri)
    delete = ("store", "delete", "--store", each_uri, "--where", "id LIKE '%.png'")
    dry = run(*delete, "--id", "c.jpg", "--id", "nobody", "--dry-run", "--json").document
    assert dry == {
        "deleted": 0, "ids": ["a.png", "b.png", "c.jpg", "sub/e.png"], "unknown": ["nobody"],
        "rows": 5, "dry_run": True,
    }  # fmt: skip
    assert rows(each_uri) == before
    assert "would delete 3 rows; 5 rows" in run(*delete, "--dry-run").stdout
    done = run(*delete, "--id", "c.jpg", "--id", "nobody")
    assert "deleted 4 rows; 1 row in the store" in done.stdout
    assert "no row with the id 'nobody'" in done.stderr
    assert rows(each_uri) == {"d.tif": before["d.tif"]}
    assert run("store", "delete", "--store", each_uri).status == 2
    assert "no column labl" in run("store", "delete", "--store", each_uri, "--where", "labl").error


def test_copy_to_every_scheme(stored: str, tmp_path: Path) -> None:
    for scheme in SCHEMES:
        target = f"{scheme}:{tmp_path / scheme / 'copy'}"
        document = run("store", "copy", target, "--store", stored, "--json").document
        assert (document["rows"], document["copy"]) == (5, target)
        assert rows(target) == rows(stored)
        search = ("search", "port", "--json", "--store")
        assert run(*search, target).document["hits"] == run(*search, stored).document["hits"]
        assert "exists and has 5 rows" in run("store", "copy", target, "--store", stored).error


def test_a_copy_does_not_replace_rows_written_meanwhile(
    stored: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = f"{stored.partition(':')[0]}:{tmp_path / 'copy'}"
    with rsicd_embed.open_store(stored) as source:
        row, kind = source.scan(where="id = 'a.png'").read_all(), type(source)
    replace = kind.replace  # type: ignore[attr-defined]

    def write_first(store: Any, *arguments: Any) -> Any:
        with rsicd_embed.open_store(target) as other:
            other.upsert(row.to_batches())
        return replace(store, *arguments)

    monkeypatch.setattr(kind, "replace", write_first)
    assert "exists and has 1 rows" in run("store", "copy", target, "--store", stored).error
    assert list(rows(target)) == ["a.png"]


def test_rename(each_uri: str, tiny_model: Path, pictures: Path, tmp_path: Path) -> None:
    run("ingest", pictures, "--store", each_uri, "--model", tiny_model)
    run("store", "tag", "first", "--store", each_uri)
    before, target = rows(each_uri), f"{each_uri.partition(':')[0]}:{tmp_path / 'new' / 'name'}"
    if each_uri.startswith("lancedb"):
        target = f"{each_uri}#other"
    assert run("store", "rename", target, "--store", each_uri).status == 0
    assert rows(target) == before
    assert list(run("store", "tags", "--store", target, "--json").document["tags"]) == ["first"]
    assert "no store at" in run("store", "rename", target, "--store", each_uri).error
    run("ingest", pictures, "--store", each_uri, "--model", tiny_model)
    assert "exists; choose" in run("store", "rename", target, "--store", each_uri).error
    other = "nmslib:" if each_uri.startswith("exact") else "exact:"
    error = run("store", "rename", f"{other}{tmp_path / 'x'}", "--store", each_uri).error
    assert "use rsicd-embed store copy" in error
    unusable = f"{each_uri}#other name"
    assert run("store", "rename", unusable, "--store", each_uri).status == 1
    assert rows(each_uri) == rows(target) == before


def test_restore_says_what_it_leaves(each_uri: str, tiny_model: Path, pictures: Path) -> None:
    run("ingest", pictures / "a.png", "--store", each_uri, "--model", tiny_model)
    run("store", "tag", "first", "--store", each_uri)
    run("ingest", pictures, "--store", each_uri, "--model", tiny_model)
    restore = ("store", "restore", "first", "--store", each_uri)
    unknown = run("store", "restore", "other", "--store", each_uri, "--tag-left", "second")
    assert "no version 'other'; tags: first" in unknown.error
    text = run(*restore, "--tag-left", "second").stdout
    assert "restored first, 1 row" in text
    assert "replaced: 5 rows" in text and "4 with ids that first lacks (tagged second)" in text
    document = run("store", "restore", "second", "--store", each_uri, "--json").document
    assert (document["rows"], document["left"]["rows"]) == (5, 1)
    assert (document["left"]["ids_not_restored"], document["left"]["tag"]) == (0, None)
