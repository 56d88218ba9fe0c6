"""The embedding function in LanceDB's own API."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pyarrow as pa
import pytest
from lancedb.embeddings import EmbeddingFunctionConfig, get_registry
from lancedb.pydantic import LanceModel, Vector

import rsicd_embed.lancedb
from rsicd_embed.embedder.loading import load_embedder
from rsicd_embed.errors import FingerprintError, ImageError, ModelError
from rsicd_embed.stores.base import open_store
from rsicd_embed.testing.stores import MADE_BY, batch, stored
from tests.conftest import picture, write_model
from tests.helpers import manifest, run, runs_well


@pytest.fixture
def model(tmp_path: Path, tiny_model: Path) -> Path:
    return shutil.copytree(tiny_model, tmp_path / "model")


@pytest.fixture
def function(model: Path) -> Any:
    return get_registry().get(rsicd_embed.lancedb.ALIAS).create(model=str(model))


def new_table(function: Any, folder: Path) -> Any:
    class Tile(LanceModel):  # type: ignore[misc]
        uri: str = function.SourceField()
        label: str
        vector: Vector(function.ndims()) = function.VectorField()  # type: ignore[valid-type]

    return lancedb.connect(folder).create_table("tiles", schema=Tile)


def tiles(pictures: Path) -> list[dict[str, str]]:
    paths = sorted(p for p in pictures.rglob("*") if p.is_file())
    return [{"uri": str(p), "label": "odd" if i % 2 else "even"} for i, p in enumerate(paths)]


def test_add_and_search(function: Any, model: Path, pictures: Path, tmp_path: Path) -> None:
    table = new_table(function, tmp_path / "db")
    rows = tiles(pictures)
    table.add(rows)
    ours = load_embedder(model)
    vectors = np.stack(table.to_arrow()["vector"].to_pylist())
    np.testing.assert_allclose(vectors, ours.embed_images([r["uri"] for r in rows]), atol=1e-5)
    scores = (ours.embed_texts(["a desert"]) @ vectors.T)[0]
    hits = table.search("a desert").distance_type("cosine").limit(3).to_list()
    assert [hit["uri"] for hit in hits] == [rows[i]["uri"] for i in np.argsort(-scores)[:3]]
    odd = table.search("a desert").distance_type("cosine").where("label = 'odd'").to_list()
    assert {hit["label"] for hit in odd} == {"odd"}
    same = table.search(picture(0)).distance_type("cosine").limit(1).to_list()
    assert same[0]["uri"] == rows[0]["uri"]


def test_reopened_table_has_its_model(function: Any, pictures: Path, tmp_path: Path) -> None:
    new_table(function, tmp_path / "db").add(tiles(pictures))
    code = (
        "import lancedb, rsicd_embed.lancedb, sys;"
        f"t = lancedb.connect({str(tmp_path / 'db')!r}).open_table('tiles');"
        "config = t.embedding_functions['vector'].function;"
        "assert 'jax' not in sys.modules;"
        "print(config.fingerprint, len(t.search('a desert').limit(2).to_list()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.split() == [function.fingerprint, "2"], done.stderr


def test_changed_model_of_the_same_name_is_refused(
    function: Any, model: Path, pictures: Path, tmp_path: Path
) -> None:
    new_table(function, tmp_path / "db").add(tiles(pictures))
    shutil.rmtree(model)
    write_model(model, seed=9)
    table = lancedb.connect(tmp_path / "db").open_table("tiles")
    with pytest.raises(FingerprintError, match="weights"):
        table.search("a desert").limit(1).to_list()
    # LanceDB reads rows through Arrow's C interface, which only keeps the message.
    with pytest.raises(RuntimeError, match=r"FingerprintError: .*weights"):
        table.add(tiles(pictures))


def test_kinds_of_image_input(function: Any, pictures: Path) -> None:
    path = pictures / "a.png"
    forms = [str(path), path.as_uri(), path.read_bytes(), picture(0), path, None]
    vectors = function.compute_source_embeddings(forms)
    assert vectors[-1] is None
    for vector in vectors[:-1]:
        np.testing.assert_allclose(vector, vectors[0], atol=1e-6)
    column = pa.chunked_array([[str(path)], [None]])
    assert function.compute_source_embeddings(column)[1] is None


def test_invalid_images(function: Any, tmp_path: Path) -> None:
    for wrong in ("http://127.0.0.1/a.png", str(tmp_path / "none.png"), 5):
        with pytest.raises(ImageError):
            function.compute_source_embeddings([wrong])
    with pytest.raises(ModelError):
        get_registry().get("rsicd-clip").create(model=str(tmp_path / "none"))


def test_errors_pass_through_lancedb(function: Any, tmp_path: Path) -> None:
    table = new_table(function, tmp_path / "db")
    # LanceDB reads rows through Arrow's C interface, which only keeps the message.
    with pytest.raises(RuntimeError, match=r"none\.png .*cannot be read"):
        table.add([{"uri": str(tmp_path / "none.png"), "label": "x"}])


def test_model_changes_after_the_function_is_created(function: Any, model: Path) -> None:
    shutil.rmtree(model)
    write_model(model, seed=9)
    with pytest.raises(FingerprintError, match="earlier version of model"):
        function.compute_query_embeddings("a desert")


def test_bytes_in_a_table(function: Any, pictures: Path, tmp_path: Path) -> None:
    schema = pa.schema(
        [pa.field("image", pa.binary()), pa.field("vector", pa.list_(pa.float32(), 64))]
    )
    config = EmbeddingFunctionConfig(
        source_column="image", vector_column="vector", function=function
    )
    table = lancedb.connect(tmp_path / "db").create_table(
        "t", schema=schema, embedding_functions=[config]
    )
    table.add([{"image": (pictures / "a.png").read_bytes()}])
    assert table.count_rows() == 1
    assert abs(np.linalg.norm(table.to_arrow()["vector"][0].as_py()) - 1) < 1e-5


def test_model_is_loaded_once(
    model: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LanceDB instantiates the function twice for each `add`."""
    from rsicd_embed.embedder import loading
    from rsicd_embed.embedder.clip import parts

    calls: list[object] = []
    load, read = loading.load_clip, parts.read
    monkeypatch.setattr(loading, "load_clip", lambda *a, **o: calls.append("load") or load(*a, **o))
    monkeypatch.setattr(parts, "read", lambda path: calls.append("read") or read(path))
    make = get_registry().get(rsicd_embed.lancedb.ALIAS).create
    table = new_table(make(model=str(model)), tmp_path / "db")
    for _ in range(3):
        table.add(tiles(pictures)[:1])
    assert calls == ["read", "load", "read"]  # loading reads it a second time


@pytest.mark.parametrize("backend", ["openvino", "numpy"])
def test_engines(model: Path, pictures: Path, tmp_path: Path, backend: str) -> None:
    make = get_registry().get(rsicd_embed.lancedb.ALIAS).create
    table = new_table(make(model=str(model), backend=backend), tmp_path / "db")
    table.add(tiles(pictures)[:2])
    again = lancedb.connect(tmp_path / "db").open_table("tiles")
    assert len(again.search("a desert").distance_type("cosine").to_list()) == 2


def scores(table: Any, text: str) -> dict[str, float]:
    hits = table.search(text).distance_type("cosine").limit(9).to_list()
    return {hit["id"]: 1 - hit["_distance"] for hit in hits}


def assert_searched_by_text(uri: str, rows: int, text: str = "a desert") -> None:
    """LanceDB's own API gives the same scores as ours."""
    with open_store(uri) as store:
        hits = store.search(load_embedder(store.provenance.model).embed_texts([text])[0])
    expected = dict(zip(hits["id"].to_pylist(), hits["score"].to_pylist(), strict=True))
    assert len(expected) == rows
    table = lancedb.connect(uri.removeprefix("lancedb:")).open_table("images")
    assert scores(table, text) == pytest.approx(expected, abs=1e-5)
    ranked = [hit["id"] for hit in table.search(text).limit(9).to_list()]
    assert ranked == list(expected)


def test_tables_of_the_command_line(
    tiny_model: Path, other_model: Path, pictures: Path, tmp_path: Path
) -> None:
    """LanceDB's API works after each kind of change."""
    uri = f"lancedb:{tmp_path}/tiles"
    options = ("--store", uri, "--model", tiny_model, "--json")
    assert run("ingest", pictures, *options).document["embedded"] == 5
    assert_searched_by_text(uri, 5)
    run("store", "tag", "first", "--store", uri)
    source = manifest(pictures / "m.jsonl", {"path": "a.png", "label": "port", "cloud": 0.5})
    assert run("ingest", source, *options).document["updated"] == 1
    dropped = run("store", "drop-column", "cloud", "--store", uri, "--json").document
    assert (dropped["dropped"], dropped["columns"][-1]) == (["cloud"], "label")
    assert_searched_by_text(uri, 5)
    with open_store(uri) as store:
        store.delete(["b.png"])
        store.optimize()
    assert_searched_by_text(uri, 4)
    assert run("reembed", "--store", uri, "--model", other_model, "--json").status == 0
    assert_searched_by_text(uri, 4)
    run("store", "restore", "first", "--store", uri)
    assert_searched_by_text(uri, 5)


def test_lancedb_adds_pictures_to_our_table(
    tiny_model: Path, pictures: Path, tmp_path: Path
) -> None:
    uri = f"lancedb:{tmp_path}/tiles"
    run("ingest", pictures / "a.png", "--store", uri, "--model", tiny_model)
    table = lancedb.connect(tmp_path / "tiles").open_table("images")
    table.add([{"id": "new", "uri": str(pictures / "b.png")}])
    assert_searched_by_text(uri, 2)


def test_writing_does_not_need_the_model(model: Path, pictures: Path, tmp_path: Path) -> None:
    """Only embedding needs the model."""
    uri = f"lancedb:{tmp_path}/tiles"
    run("ingest", pictures, "--store", uri, "--model", model)
    shutil.rmtree(model)
    with open_store(uri) as store:
        rows = store.scan().read_all()
        store.upsert(rows.slice(0, 2).to_batches())
        assert store.delete([rows["id"][0].as_py()]) == 1
        assert len(store) == 4
    table = lancedb.connect(tmp_path / "tiles").open_table("images")
    assert len(table.search(rows["vector"][0].as_py()).limit(9).to_list()) == 4
    with pytest.raises(ModelError):
        table.search("a desert")


def test_without_the_function(tmp_path: Path) -> None:
    """A process without the import can write; searching by text gives an error that names it."""
    uri = f"lancedb:{tmp_path}/tiles"
    code = (
        "import sys, lancedb, pyarrow as pa\n"
        "from rsicd_embed.errors import ModelError\n"
        "from rsicd_embed.stores.base import open_store\n"
        "from rsicd_embed.testing.stores.sample_rows import MADE_BY, batch\n"
        f"with open_store({uri!r}, MADE_BY) as store:\n"
        "    store.upsert([batch(['a', 'b'])]); store.upsert([batch(['b', 'c'])])\n"
        "    assert len(store) == 3\n"
        f"table = lancedb.connect({str(tmp_path / 'tiles')!r}).open_table('images')\n"
        "try:\n"
        "    table.search('a desert')\n"
        "except ModelError as error:\n"
        "    assert 'rsicd_embed.lancedb' in str(error) and 'jax' not in sys.modules\n"
        "else:\n"
        "    raise AssertionError\n"
        "import rsicd_embed.lancedb\n"
        "function = rsicd_embed.lancedb.RsicdClip\n"
        f"table = lancedb.connect({str(tmp_path / 'tiles')!r}).open_table('images')\n"
        "assert type(table.embedding_functions['vector'].function) is function\n"
        f"with open_store({uri!r}) as store:\n"
        "    store.upsert([batch(['d'])])\n"
        "assert type(lancedb.embeddings.get_registry().get('rsicd-clip')) is type(function)\n"
    )
    runs_well(code)


def test_table_of_an_earlier_version(tmp_path: Path) -> None:
    """It names no function, but can be written to and searched by vector."""
    open_store(f"lancedb:{tmp_path}", MADE_BY).close()
    database = lancedb.connect(tmp_path)
    schema = database.open_table("images").schema
    older = {key: value for key, value in schema.metadata.items() if key == b"rsicd-embed"}
    assert len(older) < len(schema.metadata)
    database.create_table("images", schema=schema.with_metadata(older), mode="overwrite")
    with open_store(f"lancedb:{tmp_path}", MADE_BY) as store:
        store.upsert([batch(["a"])])
        store.upsert([batch(["a", "b"], label=["x", "y"])])
        assert set(stored(store)) == {"a", "b"}


def test_settings(model: Path, tmp_path: Path) -> None:
    create = get_registry().get(rsicd_embed.lancedb.ALIAS).create
    with pytest.raises(ModelError, match=r"among activation, backend, .*, found btach_size"):
        create(model=str(model), btach_size=8)
    with pytest.raises(ModelError, match=r"activation among .*, found 'relu'"):
        create(model=str(model), activation="relu")
    function = create(model=str(model), activation="quick_gelu")  # as in its config
    assert function.model == f"{model}?activation=quick_gelu"
