"""`rsicd-embed store drop-column`."""

from __future__ import annotations

from pathlib import Path

from .helpers import content, manifest, rows, run


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
