"""The public API: the version, unknown names, and the `repr` of objects."""

from __future__ import annotations

import tomllib
from importlib import metadata
from pathlib import Path

import pytest

import rsicd_embed
from rsicd_embed.stores.base import Versioned

from .helpers import SCHEMES, filled, run

PROJECT = Path(__file__).parents[1] / "pyproject.toml"


def test_version_matches_the_project() -> None:
    version = tomllib.loads(PROJECT.read_text())["project"]["version"]
    assert rsicd_embed.__version__ == version
    assert run("--version").stdout.split()[-1] == version


def test_version_without_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", absent)
    assert rsicd_embed.__version__ == "0+unknown"


def test_unknown_names_raise() -> None:
    with pytest.raises(AttributeError, match="no attribute 'ingests'"):
        _ = rsicd_embed.ingests
    assert all(hasattr(rsicd_embed, name) for name in rsicd_embed.__all__)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_store_repr(scheme: str, tmp_path: Path) -> None:
    uri = filled(f"{scheme}:{tmp_path / 'store'}")
    with rsicd_embed.open_store(uri) as store:
        name, made_by = type(store).__name__, store.provenance
        rest = f"dim {made_by.dim}, model {made_by.model!r}>"
        assert repr(store) == f"<{name} {uri}: {len(store)} rows, {rest}"
        assert isinstance(store, Versioned)
        store.tag("first")
        assert repr(store.as_of("first")).startswith(f"<{name} {uri} as of first: ")
    assert repr(store) == f"<{name} {uri}: closed or not readable, {rest}"


def test_embedder_repr(tiny_model: Path) -> None:
    embedder = rsicd_embed.load_embedder(tiny_model, batch_size=3, backend="numpy")
    text = repr(embedder)
    assert text.startswith(f"<ClipEmbedder '{tiny_model}': dim {embedder.dim}, ")
    assert text.endswith(" px, numpy float32, batches of 3>")


def test_source_repr(pictures: Path) -> None:
    (pictures / "m.csv").write_text("path,label\na.png,port\nb.png,beach\n")
    folder, manifest = rsicd_embed.open_sources([pictures])[0], pictures / "m.csv"
    assert repr(folder) == f"<Source {pictures}: 5 images, columns: none>"
    (table,) = rsicd_embed.open_sources([manifest])
    assert repr(table).startswith(f"<Source {table.root}: 2 images, columns: label ")
