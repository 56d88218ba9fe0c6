"""The documentation site: built in strict mode, complete, and without requests to other sites."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from scripts import build_docs, http_api_page, import_graph
from tests.server.browsing import patient_page

pytest.importorskip("zensical", reason="needs the docs dependency group")


@pytest.fixture(scope="module")
def site() -> Path:
    build_docs.build()  # exits where a check fails
    return build_docs.SITE


@pytest.mark.slow
def test_it_has_every_page(site: Path) -> None:
    pages = {path.stem for path in site.glob("*.html")}
    assert pages >= {
        "index", "quickstart", "sources", "pictures", "search", "stores", "models", "serving",
        "training", "evaluation", "benchmarks", "troubleshooting", "cli", "python-api", "http-api",
        "recorded-runs", "write-a-store", "write-an-embedder", "architecture", "design-decisions",
        "contributing", "security", "changelog",
    }  # fmt: skip


@pytest.mark.slow
def test_references_are_generated(site: Path) -> None:
    commands = (site / "cli.html").read_text(encoding="utf-8")
    assert "rsicd-embed bench ann" in commands
    assert "--store" in commands
    python = (site / "python-api.html").read_text(encoding="utf-8")
    assert 'id="rsicd_embed.stores.RowStore.search"' in python
    http = (site / "http-api.html").read_text(encoding="utf-8")
    assert "POST /api/search" in http
    assert "import_graph" not in (site / "architecture.html").read_text(encoding="utf-8")
    picture = (site / "images" / "imports.svg").read_text(encoding="utf-8")
    assert "server" in picture


@pytest.mark.slow
def test_examples_are_included(site: Path) -> None:
    page = (site / "write-a-store.html").read_text(encoding="utf-8")
    assert "ArrowStore" in page
    assert "include:" not in page


@pytest.mark.slow
@pytest.mark.parametrize("name", ["index", "stores", "python-api", "http-api", "architecture"])
def test_a_browser_loads_nothing_from_elsewhere(site: Path, browser: Any, name: str) -> None:
    requested: list[str] = []
    with patient_page(browser) as page:
        page.on("request", lambda request: requested.append(request.url))
        page.goto((site / f"{name}.html").as_uri())
        page.wait_for_load_state("load")
    assert len(requested) > 2
    assert [url for url in requested if not url.startswith(("file:", "data:", "blob:"))] == []


def write(site: Path, name: str, body: str) -> None:
    (site / name).write_text(f"<html><body>{body}</body></html>", encoding="utf-8")


def test_mistakes_are_found(tmp_path: Path) -> None:
    write(tmp_path, "a.html", '<h1 id="top">A</h1><a href="b.html#here">b</a>')
    write(tmp_path, "b.html", '<p id="here"></p><img src="missing.png"><a href="a.html#no">a</a>')
    assert build_docs.broken_links(tmp_path) == [
        "b.html: broken link missing.png", "b.html: broken link a.html#no",
    ]  # fmt: skip
    write(
        tmp_path,
        "c.html",
        '<script src="https://cdn.example/x.js"></script><a href="https://example.org">x</a>'
        '<link rel="stylesheet" href="//fonts.example/y.css">',
    )
    (tmp_path / "c.css").write_text('@import "https://fonts.example/z.css";')
    assert build_docs.external_requests(tmp_path) == [
        "c.html: loads https://cdn.example/x.js",
        "c.html: loads //fonts.example/y.css",
        "c.css: loads https://fonts.example/z.css",
    ]
    write(tmp_path, "python-api.html", '<h2 id="rsicd_embed.ingest"></h2>')
    missing = build_docs.undocumented_names(tmp_path)
    assert "rsicd_embed.open_store: not in the Python reference; has it a docstring?" in missing
    assert not any(line.startswith("rsicd_embed.ingest:") for line in missing)


def test_the_picture_shows_the_arrows_of_the_code() -> None:
    graph = import_graph.import_graph()
    assert "stores.base" in graph["stores"]
    assert "embedder" not in graph["stores"]
    assert "stores" not in graph["embedder"]
    height = {part: n for n, parts in enumerate(import_graph.layers(graph)) for part in parts}
    assert all(height[part] > height[other] for part in graph for other in graph[part])
    picture = import_graph.svg(graph)
    arrows = {(a, b) for a, others in import_graph.reduced(graph).items() for b in others}
    assert picture.count("<path d=") == len(arrows) + 1  # and the tip of an arrow
    for part, other in arrows:
        assert f"<title>{part} imports {other}</title>" in picture
    with pytest.raises(ValueError, match="no cycle"):
        import_graph.layers({"a": {"b"}, "b": {"a"}})


def test_the_page_of_the_http_api_has_every_operation() -> None:
    document = http_api_page.openapi_document()
    page = http_api_page.page(document)
    for path, methods in document["paths"].items():
        for method in methods:
            assert f"## `{method.upper()} {path}`" in page
    for name in document["components"]["schemas"]:
        assert name.startswith("Body_") or f"### {name}\n" in page
    assert json.dumps(document)  # it is the document that the server sends
