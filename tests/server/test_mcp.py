"""The tools for assistants, through client sessions of the official SDK."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import rsicd_embed
from rsicd_embed import Part, Query
from rsicd_embed.embedder.loading import load_for_a_query
from rsicd_embed.server.mcp_tools import create_server

from .conftest import Archive, engine_of, make_archive

mcp = pytest.importorskip("mcp")


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Archive:
    return make_archive(tmp_path_factory.mktemp("mcp"), tiny_model)


@pytest.fixture(scope="module")
def server(archive: Archive) -> Iterator[Any]:
    with engine_of(archive) as engine:
        yield create_server(engine)


def call(server: Any, tool: str, **arguments: object) -> Any:
    async def session() -> Any:
        async with mcp.Client(server) as client:
            return await client.call_tool(tool, arguments)

    return asyncio.run(session())


def document(result: Any) -> dict[str, Any]:
    assert not result.is_error, result.content[0].text
    return dict(json.loads(result.content[0].text))


def pictures(result: Any) -> list[Image.Image]:
    images = [item for item in result.content if item.type == "image"]
    return [Image.open(io.BytesIO(base64.b64decode(item.data))) for item in images]


def error(result: Any) -> str:
    assert result.is_error
    return str(result.content[0].text)


def test_session_over_standard_input_and_output(archive: Archive) -> None:
    """Everything that the command writes to standard output belongs to the protocol."""
    code = "from rsicd_embed.cli import main; main()"
    command = mcp.StdioServerParameters(
        command=sys.executable, args=["-c", code, "mcp", "--store", archive.uri]
    )

    async def session() -> tuple[Any, Any]:
        async with mcp.Client(command) as client:
            listed = await client.list_tools()
            return listed, await client.call_tool("search", {"texts": ["a port"], "k": 2})

    listed, result = asyncio.run(session())
    assert [tool.name for tool in listed.tools] == ["search", "find", "sql"]
    assert all(tool.annotations.read_only_hint for tool in listed.tools)
    assert len(document(result)["hits"]) == len(pictures(result)) == 2


def test_search_has_the_hits_and_their_pictures(server: Any, archive: Archive) -> None:
    query = Query([Part("a port"), Part("rain", weight=-0.5)], k=4, where="year > 2003")
    with rsicd_embed.open_store(archive.uri) as store:
        expected = rsicd_embed.search(query, store, load_for_a_query(archive.model))
    asked = {"texts": ["a port"], "avoid": ["rain"], "where": "year > 2003", "k": 4}
    result = call(server, "search", **asked, pictures=3, side=64)
    hits = document(result)["hits"]
    assert [hit["id"] for hit in hits] == expected["id"].to_pylist()
    assert [hit["score"] for hit in hits] == pytest.approx(expected["score"].to_pylist())
    shown = [json.loads(item.text)["id"] for item in result.content[1:] if item.type == "text"]
    assert shown == [hit["id"] for hit in hits[:3]]
    with Image.open(archive.folder / shown[0]) as original:
        assert max(pictures(result)[0].size) == min(64, max(original.size))


def test_places(server: Any, archive: Archive) -> None:
    with rsicd_embed.open_store(archive.uri) as store:
        place = store.scan(["lon", "lat"], f"id = '{archive.ids[1]}'").read_all().to_pylist()[0]
    lon, lat = place["lon"], place["lat"]
    ring = [[lon - 1, lat - 1], [lon + 1, lat - 1], [lon, lat + 1], [lon - 1, lat - 1]]
    for area in (
        {"near": f"{lon},{lat},5km"},
        {"within": f"{lon - 1},{lat - 1},{lon + 1},{lat + 1}", "contained": True},
        {"within": {"type": "Polygon", "coordinates": [ring]}},
    ):
        hits = document(call(server, "search", texts=["a port"], pictures=0, **area))["hits"]
        assert [hit["id"] for hit in hits] == [archive.ids[1]]


def test_find_returns_boxes_and_a_heat_map(server: Any, archive: Archive) -> None:
    result = call(server, "find", text="a port", id=archive.ids[1], k=2, side=128)
    found = document(result)
    assert [patch["rank"] for patch in found["patches"]] == [1, 2]
    assert (found["width"], found["height"]) == (61, 50)
    assert max(pictures(result)[0].size) == 128


def test_sql_returns_rows_and_pictures(server: Any, archive: Archive) -> None:
    query = "SELECT id, year FROM images WHERE year < 2002 ORDER BY year"
    result = call(server, "sql", query=query, pictures=1)
    assert document(result)["rows"] == [[archive.ids[0], 2000], [archive.ids[1], 2001]]
    assert len(pictures(result)) == 1
    joined = "images a JOIN images b ON a.year + 1 = b.year WHERE a.year = 2001"
    both = document(call(server, "sql", query=f"SELECT a.id, b.id, a.year FROM {joined}"))
    assert both["columns"] == ["id", "id", "year"]
    assert both["rows"] == [[archive.ids[1], archive.ids[2], 2001]]
    many = call(server, "sql", query="SELECT 1 FROM images a, images b, images c")
    assert (len(document(many)["rows"]), document(many)["truncated"]) == (200, True)


@pytest.mark.parametrize(
    ("tool", "arguments", "message"),
    [
        ("sql", {"query": "DROP TABLE images"}, "expected"),
        ("sql", {"query": "COPY images TO '/tmp/rows.csv'"}, "expected"),
        ("sql", {"query": "INSERT INTO images SELECT * FROM images"}, "expected"),
        ("sql", {"query": "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'"}, ""),
        ("sql", {"query": "SELECT * FROM '/etc/passwd'"}, ""),
        ("sql", {"query": "SELECT similarity_image('/etc/x.png') FROM images"}, "an image file"),
        (
            "sql",
            {"query": "SELECT similarity('a', not_image => 'x.png') FROM images"},
            "image file",
        ),
        ("search", {}, "at least one text, image or id to look for, found none"),
        ("search", {"texts": ["a" * 1001]}, "at most 1,000 characters, found 1,001"),
        ("search", {"texts": ["a"], "where": "nothing = 1"}, "nothing"),
        ("search", {"texts": ["a"], "within": "/etc/passwd"}, "minlon,minlat,maxlon,maxlat"),
        ("search", {"texts": ["a"], "k": 0}, "greater than or equal to 1"),
        ("search", {"texts": ["a"], "limit": 3}, "Extra inputs are not permitted"),
        ("search", {"like": ["nobody"]}, "no row with the id 'nobody'"),
        ("find", {"text": "a", "id": "../../etc/passwd"}, "no row with the id"),
        ("find", {"text": " ", "id": "1.png"}, "expected a text that is not empty"),
    ],
)
def test_refused_calls(server: Any, tool: str, arguments: dict[str, Any], message: str) -> None:
    assert message in error(call(server, tool, **arguments))


def test_replaced_file_is_not_shown(tmp_path: Path, tiny_model: Path) -> None:
    archive = make_archive(tmp_path, tiny_model, count=4)
    secret = archive.folder / "secret.png"
    Image.new("RGB", (9, 9)).save(secret)
    (archive.folder / archive.ids[1]).unlink()
    (archive.folder / archive.ids[1]).symlink_to(secret)
    with engine_of(archive) as engine:
        server = create_server(engine)
        result = call(server, "sql", query="SELECT '1.png' AS id", pictures=1)
        assert "changed since it was embedded" in result.content[1].text
        assert not pictures(result)
        assert "changed" in error(call(server, "find", text="a port", id=archive.ids[1]))
