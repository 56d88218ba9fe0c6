"""Invalid or empty sources, stores and queries: no traceback, and nothing is created."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import rsicd_embed

from .helpers import SCHEMES, run

pytestmark = pytest.mark.usefixtures("load_each_model_once")


# ------------------------------------------------------------------ sources


def test_invalid_sources(uri: str, tiny_model: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    texts = tmp_path / "texts"
    texts.mkdir()
    (texts / "a.txt").write_text("a")
    table = tmp_path / "m.csv"
    table.write_text("")
    for source, message in [
        (empty, "found nothing"),
        (texts, "found 1 other file;"),
        (tmp_path / "absent", "found nothing at"),
        (table, "cannot be read as csv"),
    ]:
        error = run("ingest", source, "--store", uri, "--model", tiny_model, "--json").error
        assert message in error
        assert str(source) in error
    assert not (tmp_path / "store").exists()


def test_manifest_with_missing_files(uri: str, tiny_model: Path, pictures: Path) -> None:
    table = pictures / "m.jsonl"
    paths = ["a.png", "gone.png", "nul\0.png", "ftp://example.org/a.png"]
    table.write_text("".join(json.dumps({"path": path}) + "\n" for path in paths))
    outcome = run("ingest", table, "--store", uri, "--model", tiny_model, "--json")
    assert outcome.document["embedded"] == 1
    reasons = [item["reason"] for item in outcome.document["skipped"]]
    assert reasons == [
        "cannot be read: No such file or directory",
        "cannot be read: embedded null byte",
        "no such file: expected a path or an address of s3://, gs://, az:// or http(s)://; "
        "download the file and give its path",
    ]


# ------------------------------------------------------------------ stores


@pytest.mark.parametrize(
    ("store", "message"),
    [
        ("tiles", "expected a store URI"),
        ("", "expected a store URI"),
        ("exact:", "expected a store URI"),
        (":tiles", "expected a store URI"),
        ("lancedb:", "expected a store URI"),
        ("lancedb:tiles#", "expected a store URI"),
        ("chroma:tiles", "with a known scheme, found 'chroma:tiles'"),
        ("exact:tiles#a", "exact stores have no tables"),
        ("nmslib:s3://bucket/tiles", "expected a local folder"),
        ("exact:a.png", "is a file"),
        ("nmslib:a.png", "is a file"),
        ("lancedb:a.png", "is a file"),
        ("exact:a.png/below", "is a file"),
    ],
)
def test_invalid_store_uris(
    store: str, message: str, tiny_model: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(pictures)
    before = sorted(pictures.rglob("*"))
    assert message in run("ingest", pictures, "--store", store, "--model", tiny_model).error
    assert message in run("search", "port", "--store", store).error
    assert message in run("info", "--store", store).error
    assert sorted(pictures.rglob("*")) == before


@pytest.mark.parametrize("scheme", SCHEMES)
def test_reading_never_creates_a_store(scheme: str, tmp_path: Path) -> None:
    store = f"{scheme}:{tmp_path / 'absent'}"
    for arguments in (["search", "port"], ["info"]):
        error = run(*arguments, "--store", store).error
        assert error.startswith(f"error: no store at {store}")
        assert f"rsicd-embed ingest SOURCE --store {store}" in error
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------ queries


@pytest.mark.parametrize("scheme", SCHEMES)
def test_empty_store(scheme: str, tiny_model: Path, tmp_path: Path) -> None:
    store = f"{scheme}:{tmp_path / 'store'}"
    embedder = rsicd_embed.load_embedder(tiny_model)
    rsicd_embed.open_store(store, embedder=embedder).close()
    outcome = run("search", "port", "--store", store, "--json")
    assert (outcome.status, outcome.document["hits"]) == (0, [])
    assert run("info", "--store", store, "--json").document["rows"] == 0


@pytest.mark.filterwarnings("default:1 of 1 texts are longer")
@pytest.mark.parametrize("scheme", SCHEMES)
def test_invalid_queries(scheme: str, tiny_model: Path, pictures: Path, tmp_path: Path) -> None:
    store = f"{scheme}:{tmp_path / 'store'}"
    run("ingest", pictures, "--store", store, "--model", tiny_model)
    for where in ("colour = 'red'", "width >", "width = 'wide'", "1", "", "true; drop table x"):
        error = run("search", "port", "--store", store, "--where", where).error
        assert len(error) < 400, error
    image = run("search", "--image", tmp_path / "gone.png", "--store", store).error
    assert "gone.png" in image
    assert "No such file" in image
    everything = run("search", "port", "--store", store, "-k", 10**9, "--json")
    assert len(everything.document["hits"]) == 5
    for text in ("", " \n"):
        assert run("search", text, "--store", store).status == 2
    for text in ("x" * 10_000, "ü 🛰 \n"):
        assert len(run("search", text, "--store", store, "--json").document["hits"]) == 5
