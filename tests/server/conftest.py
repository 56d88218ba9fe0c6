"""A store of generated images, and in-process servers for it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import rsicd_embed
from rsicd_embed.embedder.loading import load_for_a_query
from rsicd_embed.server.engine import Engine
from tests.conftest import picture

from .browsing import SCREENS, SIZES, opened_without_images, seen_on_map, served
from .map_tiles import write_tiles

LABELS = ("port", 'it\'s "odd"', "river")


@dataclass(frozen=True)
class Archive:
    """Images with attributes, in a store."""

    uri: str
    folder: Path
    ids: tuple[str, ...]
    model: Path | None


def make_archive(
    folder: Path, model: Path | None, scheme: str = "exact", count: int = 12
) -> Archive:
    """Creates images, some in a subfolder, and a store of them with labels and coordinates."""
    pictures = folder / "pictures"
    (pictures / "sub").mkdir(parents=True)
    rows: list[dict[str, Any]] = []
    for i in range(count):
        name = f"{'sub/' if i % 3 == 0 else ''}{i}.png"
        picture(i, (60 + i, 50)).save(pictures / name)
        row = {"path": name, "id": name, "label": LABELS[i % 3], "year": 2000 + i}
        rows.append(
            row | {"lon": 37.0 * i % 360 - 180, "lat": 23.0 * i % 170 - 85, "cloudy": i % 2 == 0}
        )
    rows[-1]["label"] = None
    manifest = pictures / "m.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    uri = f"{scheme}:{folder / 'store'}"
    embedder = load_for_a_query(model)
    with rsicd_embed.open_store(uri, embedder=embedder) as store:
        rsicd_embed.ingest(rsicd_embed.open_sources([manifest]), embedder, store)
    return Archive(uri, pictures, tuple(row["path"] for row in rows), model)


def engine_of(archive: Archive) -> Engine:
    """Creates an engine whose backend needs no compilation."""
    return Engine(archive.uri, load_for_a_query)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Archive:
    """An archive that tests must not change."""
    return make_archive(tmp_path_factory.mktemp("archive"), tiny_model)


@pytest.fixture
def own_archive(tmp_path: Path, tiny_model: Path) -> Archive:
    """An archive that a test may change."""
    return make_archive(tmp_path / "own", tiny_model)


@pytest.fixture(scope="module")
def serve() -> Iterator[Callable[[Archive], Any]]:
    """A function that starts an in-process server and returns its client."""
    from contextlib import ExitStack

    from starlette.testclient import TestClient

    from rsicd_embed.server.api import create_app
    from rsicd_embed.server.middleware import LOOPBACK
    from rsicd_embed.server.service import Service

    with ExitStack() as stack:

        def start(archive: Archive, **options: Any) -> TestClient:
            access = options.pop("access", LOOPBACK)
            app = create_app(Service(engine_of(archive), threads=2, **options), access)
            return stack.enter_context(
                TestClient(app, "http://localhost", raise_server_exceptions=False)
            )

        yield start


@pytest.fixture(scope="module")
def client(archive: Archive, serve: Callable[[Archive], Any]) -> Any:
    """A client of a server for `archive`."""
    return serve(archive)


@pytest.fixture(scope="module")
def tiles(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Archive:
    """A store of 8 by 5 tiles of a scene, with footprints and without files."""
    folder = tmp_path_factory.mktemp("map")
    uri = f"exact:{folder / 'store'}"
    return Archive(uri, folder, write_tiles(uri, tiny_model), tiny_model)


@pytest.fixture(scope="module")
def map_address(tiles: Archive) -> Iterator[str]:
    """The address of a server for `tiles`."""
    with served(tiles.uri, "--backend", "numpy") as address:
        yield address


@pytest.fixture(params=SCREENS)
def map_page(request: pytest.FixtureRequest, browser: Any, map_address: str) -> Iterator[Any]:
    """The page of that server."""
    with opened_without_images(browser, map_address, "", SIZES[request.param]) as page:
        seen_on_map(page, "40 images in view")
        yield page
