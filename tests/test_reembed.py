"""`store tag`, `search --as-of`, `reembed` and `store restore` from the command line."""

from __future__ import annotations

import hashlib
import importlib
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import rsicd_embed
from rsicd_embed.errors import FingerprintError

from .conftest import picture, write_model
from .helpers import SCHEMES, rows, run

pytestmark = pytest.mark.usefixtures("load_each_model_once")


@pytest.fixture(params=SCHEMES)
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"{request.param}:{tmp_path / 'store'}"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(6):
        picture(number).save(folder / f"{number}.png")
    (folder / "manifest.csv").write_text(
        "path,label\n" + "".join(f"{n}.png,l{n}\n" for n in range(6))
    )
    return folder


@pytest.fixture
def stored(uri: str, images: Path, tiny_model: Path) -> str:
    source = str(images / "manifest.csv")
    assert run("ingest", source, "--store", uri, "--model", str(tiny_model)).status == 0
    return uri


@pytest.fixture(scope="module")
def other_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("other"), seed=5)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    yield tmp_path / "cache"


def vectors(uri: str) -> dict[str, Any]:
    with rsicd_embed.open_store(uri) as store:
        return {
            row["id"]: np.asarray(row["vector"])
            for batch in store.scan(["id", "vector"])
            for row in batch.to_pylist()
        }


def without_vectors(uri: str) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k != "vector"} for row in rows(uri).values()]


def test_a_tagged_state_is_searched_and_restored(
    stored: str, images: Path, tiny_model: Path
) -> None:
    assert run("store", "tag", "before", "--store", stored).stdout.startswith(stored)
    (images / "0.png").unlink()
    run("ingest", str(images), "--store", stored, "--model", str(tiny_model), "--prune")
    search = ("search", "boats", "--store", stored, "-k", "9", "--json")
    then = run(*search, "--as-of", "before").document
    assert len(then["hits"]) == 6
    assert len(run(*search).document["hits"]) == 5
    count = ("sql", "SELECT count(*) FROM images", "--store", stored, "--json")
    assert run(*count, "--as-of", "before").document["rows"] == [[6]]
    assert run(*count).document["rows"] == [[5]]
    assert list(run("store", "tags", "--store", stored, "--json").document["tags"]) == ["before"]
    assert run("store", "restore", "before", "--store", stored).status == 0
    assert run(*search).document["hits"] == then["hits"]
    assert run("store", "untag", "before", "--store", stored).status == 0
    assert run("store", "tags", "--store", stored).stdout == ""
    assert "no version 'before'; tags: none" in run(*search, "--as-of", "before").error


def test_another_model_and_back(
    stored: str, tiny_model: Path, other_model: Path, own_cache: Path
) -> None:
    before, attributes = vectors(stored), without_vectors(stored)
    done = run("reembed", "--store", stored, "--model", str(other_model), "--json").document
    assert (done["rows"], done["embedded"], done["skipped"]) == (6, 6, [])
    assert not list((own_cache / "rsicd-embed" / "reembed").iterdir())
    now = vectors(stored)
    assert now.keys() == before.keys()
    assert all(np.abs(now[id_] - before[id_]).max() > 1e-3 for id_ in now)
    assert without_vectors(stored) == attributes
    assert run("info", "--store", stored, "--json").document["model"] == str(other_model)
    assert run("search", "boats", "--store", stored).status == 0
    with pytest.raises(FingerprintError):
        rsicd_embed.open_store(stored, embedder=rsicd_embed.load_embedder(tiny_model))
    assert (
        run("reembed", "--store", stored, "--model", str(other_model), "--json").document["tag"]
        is None
    )
    assert run("store", "restore", done["tag"], "--store", stored).status == 0
    back = vectors(stored)
    assert all((back[id_] == before[id_]).all() for id_ in before)


def test_rows_with_nan(stored: str, other_model: Path) -> None:
    """NaN differs from itself, but the rows are unchanged."""
    with rsicd_embed.open_store(stored) as store:
        columns = pa.schema([("cloud", pa.list_(pa.float64()))])
        values = pa.array([[math.nan, 1.0]] * 6, columns.field(0).type)
        store.rewrite_attributes(  # type: ignore[attr-defined]
            lambda batch: pa.record_batch([values[: len(batch)]], columns), columns
        )
    done = run("reembed", "--store", stored, "--model", str(other_model), "--json").document
    assert (done["rows"], done["embedded"]) == (6, 6)


def test_an_interrupted_run_continues(
    stored: str, images: Path, other_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = vectors(stored)
    reembed = ("reembed", "--store", stored, "--model", str(other_model), "--json")
    hidden = images / "5.png"
    hidden.rename(images / "away")
    failed = run(*reembed)
    assert "1 images of the store cannot be read" in failed.error
    assert "Nothing was switched" in failed.error
    assert vectors(stored).keys() == before.keys()
    assert run("info", "--store", stored, "--json").document["model"] != str(other_model)
    (images / "away").rename(hidden)
    # A column that is dropped before the run continues does not come back.
    assert run("store", "drop-column", "label", "--store", stored).status == 0
    done = run(*reembed).document
    assert (done["rows"], done["embedded"], done["unchanged"]) == (6, 1, 5)
    assert "label" not in without_vectors(stored)[0]


def test_rows_without_an_image_are_dropped_only_on_request(
    stored: str, images: Path, other_model: Path
) -> None:
    (images / "5.png").unlink()
    reembed = ("reembed", "--store", stored, "--model", str(other_model), "--json")
    done = run(*reembed, "--drop-unreadable").document
    assert done["rows"] == 5
    assert [Path(skipped["uri"]).name for skipped in done["skipped"]] == ["5.png"]


@pytest.mark.parametrize("name", ["7.png", "5.png"])
def test_rows_written_meanwhile_are_kept(
    name: str,
    stored: str,
    images: Path,
    tiny_model: Path,
    other_model: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Rows that another process writes between embedding and the switch, new or changed ones."""
    module = importlib.import_module("rsicd_embed.indexing.reembed")
    ingest, calls = module.ingest, []

    def slow(*arguments: Any, **options: Any) -> Any:
        done = ingest(*arguments, **options)
        calls.append(done)
        if len(calls) == 1:
            picture(7).save(images / name)
            late = run("ingest", str(images), "--store", stored, "--model", str(tiny_model))
            assert late.status == 0
        return done

    monkeypatch.setattr(module, "ingest", slow)
    done = run("reembed", "--store", stored, "--model", str(other_model), "--json").document
    assert len(calls) == 2
    assert done["rows"] == (7 if name == "7.png" else 6)
    digest = hashlib.sha256((images / name).read_bytes()).hexdigest()
    with rsicd_embed.open_store(stored) as store:
        rows = store.scan(["id", "sha256"]).read_all().to_pylist()
    assert digest in [row["sha256"] for row in rows]
    assert len(run("store", "tags", "--store", stored, "--json").document["tags"]) == 1


def test_a_store_of_a_models_earlier_version_names_the_command(
    uri: str, images: Path, tiny_model: Path, other_model: Path, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_model, model)
    source = str(images / "manifest.csv")
    assert run("ingest", source, "--store", uri, "--model", str(model)).status == 0
    shutil.copytree(other_model, model, dirs_exist_ok=True)
    error = run("search", "a port", "--store", uri, "--model", str(model)).error
    assert "vectors of an earlier version of model" in error
    command = f"rsicd-embed reembed --store {uri} --model {model}"
    assert error.endswith(f"or embed the images again: {command}")
    assert run(*command.split()[1:]).status == 0
    assert run("search", "a port", "--store", uri, "--model", str(model)).status == 0
