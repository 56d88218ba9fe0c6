"""`rsicd-embed ingest`: its output, failures and interruption."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import rsicd_embed

from .conftest import picture
from .helpers import IDS, rows, run

pytestmark = pytest.mark.usefixtures("load_each_model_once")


def test_skipped_images_are_listed_and_the_run_succeeds(
    uri: str, pictures: Path, tiny_model: Path
) -> None:
    (pictures / "b.png").write_text("no picture")
    ingest = ("ingest", pictures, "--store", uri, "--model", tiny_model)
    outcome = run(*ingest, "--json")
    assert (outcome.status, outcome.document["embedded"]) == (0, 4)
    (skipped,) = outcome.document["skipped"]
    assert skipped["uri"] == str(pictures / "b.png")
    assert skipped["reason"].startswith("not an image")
    assert outcome.stderr == f"skipped {skipped['uri']}: {skipped['reason']}\n"
    plain = run(*ingest)
    assert plain.stdout.startswith("0 embedded, 0 updated, 4 unchanged, 0 removed, 1 skipped in ")
    assert plain.stdout.endswith(f"; 4 rows in {uri}\n")
    assert plain.stderr == outcome.stderr


def test_strict_fails_and_keeps_embedded_rows(uri: str, pictures: Path, tiny_model: Path) -> None:
    (pictures / "b.png").write_text("no picture")
    outcome = run("ingest", pictures, "--store", uri, "--model", tiny_model, "--strict", "--json")
    assert outcome.error.startswith(f"error: {pictures / 'b.png'}: not an image")
    assert sorted(rows(uri)) == ["a.png"]


def test_prune(stored: str, pictures: Path, tiny_model: Path) -> None:
    (pictures / "b.png").unlink()
    ingest = ("ingest", pictures, "--store", stored, "--model", tiny_model, "--json")
    assert run(*ingest).document["removed"] == 0
    assert run(*ingest, "--prune").document["removed"] == 1
    assert sorted(rows(stored)) == ["a.png", "c.jpg", "d.tif", "sub/e.png"]


def test_several_sources_and_small_batches(
    uri: str, pictures: Path, tiny_model: Path, tmp_path: Path
) -> None:
    picture(8).save(tmp_path / "z.png")
    outcome = run(
        "ingest", pictures, tmp_path / "z.png", "--store", uri, "--model", tiny_model,
        "--batch-size", 1, "--json",
    )  # fmt: skip
    assert outcome.document["embedded"] == 6
    assert sorted(rows(uri)) == [*IDS, "z.png"]


def test_rsicd_like_folder_keeps_captions(uri: str, pictures: Path, tiny_model: Path) -> None:
    entry = {"filename": "a.png", "split": "test", "sentences": [{"raw": "a port ."}]}
    (pictures / "dataset_x.json").write_text(json.dumps({"images": [entry]}))
    run("ingest", pictures, "--store", uri, "--model", tiny_model)
    (hit,) = run("search", "port", "--store", uri, "--json").document["hits"]
    assert (hit["captions"], hit["split"], hit["label"]) == (["a port ."], "test", None)


def test_profile_names_the_slowest_stage(pictures: Path, tiny_model: Path, tmp_path: Path) -> None:
    store = f"exact:{tmp_path / 'store'}"
    ingest = ("ingest", pictures, "--store", store, "--model", tiny_model, "--json", "--profile")
    outcome = run(*ingest)
    stages = outcome.document["stages"]
    assert list(stages) == ["read", "decode", "resize", "embed", "write", "index"]
    assert 0 < sum(stages.values()) < 10 * outcome.document["seconds"]
    lines = outcome.stderr.splitlines()
    assert [line.split()[0] for line in lines[:-1]] == list(stages)
    assert lines[-1].startswith("limited by ")
    assert "read" in run(*ingest).document["stages"]  # nothing to embed


def test_ingest_refuses_another_model(
    stored: str, pictures: Path, tiny_model: Path, other_model: Path
) -> None:
    before = rows(stored)
    outcome = run("ingest", pictures, "--store", stored, "--model", other_model)
    assert f"contains vectors of model '{tiny_model}'" in outcome.error
    assert rows(stored) == before


def test_interruption_says_how_to_continue(
    uri: str, pictures: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedder = rsicd_embed.load_embedder(tiny_model, batch_size=2)
    embed, calls = embedder.embed_pixels, []

    def interrupt(pixels: np.ndarray) -> np.ndarray:
        calls.append(len(pixels))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return embed(pixels)

    ingest = (
        "ingest", pictures, "--store", uri, "--model", tiny_model, "--batch-size", 2, "--json",
    )  # fmt: skip
    with monkeypatch.context() as patch:
        patch.setattr(embedder, "embed_pixels", interrupt)
        outcome = run(*ingest)
    assert (outcome.status, outcome.stdout) == (130, "")
    assert outcome.stderr == "interrupted; run the same command again to continue\n"
    assert sorted(rows(uri)) == IDS[:2]
    again = run(*ingest).document
    assert (again["embedded"], again["unchanged"]) == (3, 2)


def test_no_readable_image_is_an_error(
    uri: str, pictures: Path, tiny_model: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "note.jpg").write_text("no picture")
    outcome = run("ingest", broken, "--store", uri, "--model", tiny_model)
    assert (outcome.status, outcome.stdout.startswith("0 embedded, ")) == (1, True)
    assert outcome.stderr.splitlines()[-1].startswith("error: expected images, found none")
    assert run("ingest", pictures, broken, "--store", uri, "--model", tiny_model).status == 0
    assert (
        run("ingest", broken, "--store", uri, "--model", tiny_model).status == 0
    )  # the store has rows


def test_replaced_row_is_reported(
    stored: str, pictures: Path, tiny_model: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    picture(7).save(other / "a.png")
    outcome = run("ingest", other, "--store", stored, "--model", tiny_model)
    assert outcome.status == 0
    (line,) = outcome.stderr.splitlines()
    assert line.startswith("warning: 1 image replaced the rows of others with the same ids: ")
    assert f"{other / 'a.png'} that of {pictures / 'a.png'}; " in line
