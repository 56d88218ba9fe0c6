"""STAC as sources: files, web servers, API searches, and what cannot be read."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

import rsicd_embed
from rsicd_embed import StacSelection, Tiling
from rsicd_embed.datasets import stac_sources
from rsicd_embed.datasets.base import Source
from rsicd_embed.errors import DatasetError
from rsicd_embed.images import read_picture

from ..helpers import rows, run
from .test_scenes import noise, write_scene

pytest.importorskip("rasterio")
pystac = pytest.importorskip("pystac")
# In affine, which rasterio calls.
pytestmark = pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning")

DATA = Path(__file__).parents[3] / "shared/data/geo/stac/planet-disaster"
TIFF = "image/tiff; application=geotiff; profile=cloud-optimized"


def item(name: str, assets: dict[str, dict[str, Any]], **properties: Any) -> dict[str, Any]:
    ring = [[14, 49], [15, 49], [15, 50], [14, 50], [14, 49]]
    return {
        "type": "Feature", "stac_version": "1.0.0", "id": name, "collection": "things",
        "geometry": {"type": "Polygon", "coordinates": [ring]}, "bbox": [14, 49, 15, 50],
        "properties": {"datetime": "2020-05-17T10:00:00Z", **properties}, "links": [],
        "assets": assets,
    }  # fmt: skip


def asset(href: str, *roles: str, **fields: Any) -> dict[str, Any]:
    return {"href": href, "type": TIFF, "roles": list(roles), **fields}


def catalog(kind: str = "Catalog", **links: list[str]) -> dict[str, Any]:
    listed = [{"rel": rel, "href": href} for rel, hrefs in links.items() for href in hrefs]
    return {
        "type": kind, "stac_version": "1.0.0", "id": "all", "description": "x", "links": listed,
    }  # fmt: skip


def write(path: Path, document: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))
    return path


def opened(source: Path | str, *assets: str, properties: tuple[str, ...] = ()) -> Source:
    (source_,) = rsicd_embed.open_sources(
        [source], tiling=Tiling(32), stac=StacSelection(assets, properties)
    )
    return source_


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A catalogue of two items, one of them in a child, and their scenes."""
    folder = tmp_path / "stac dir"
    for place in ("a", "below/b"):
        (folder / place).mkdir(parents=True)
        write_scene(folder / place / "v.tif", noise(64, 96))
    bands = [{"name": "B4", "common_name": "red"}, {"name": "B3"}]
    first = item(
        "a", {"visual": asset("./v.tif", "visual", **{"eo:bands": bands}),
              "data": asset("./no.tif")},
        **{"eo:cloud_cover": 7, "platform": "p1", "view:off_nadir": 2, "x": [1, 2]},
    )  # fmt: skip
    second = item(
        "b", {"visual": asset(str(folder / "below/b/v.tif"))},
        **{"datetime": None, "start_datetime": "2021-01-01T00:00:00+02:00",
           "end_datetime": "2021-01-02T00:00:00Z", "view:off_nadir": 2.5, "x": "y"},
    )  # fmt: skip
    write(folder / "a/a.json", first)
    write(folder / "below/b/b.json", second)
    links = {"item": ["./b/b.json", "../a/a.json"], "root": ["../catalog.json"]}
    write(folder / "below/catalog.json", catalog("Collection", **links))
    # The child links back, and the first item is listed twice.
    links = {"item": ["./a/a.json"], "child": ["./below/catalog.json", "./catalog.json"]}
    return write(folder / "catalog.json", catalog(**links))


def test_a_catalogue_becomes_tiles(tree: Path) -> None:
    names = ("platform", "view:off_nadir", "x")
    source = opened(tree, "visual", properties=names)
    assert source.skipped == ()
    assert len(source.examples) == 12
    first = source.examples[0]
    assert first.id == "a/visual#0,0,32,32"
    assert read_picture(first.file).image.size == (32, 32)
    told = first.attributes
    assert (told["item"], told["collection"], told["asset"]) == ("a", "things", "visual")
    assert (told["bands"], told["cloud_cover"], told["platform"]) == ("B4,B3", 7.0, "p1")
    assert told["datetime"] == datetime(2020, 5, 17, 10, tzinfo=UTC)
    assert (told["view_off_nadir"], told["x"]) == (2.0, "[1, 2]")
    assert 14.9 < told["lon"] < 15.1 and told["crs"] == "EPSG:32633"
    last = source.examples[-1].attributes
    assert last["datetime"] == datetime(2020, 12, 31, 22, tzinfo=UTC)
    assert (last.get("platform"), last["view_off_nadir"], last["x"]) == (None, 2.5, "y")
    assert str(source.schema.field("view_off_nadir").type) == "double"


def test_from_the_command_line(tree: Path, tmp_path: Path, tiny_model: Path) -> None:
    uri = f"lancedb:{tmp_path / 'st'}"
    ingest = ("ingest", tree, "--store", uri, "--model", tiny_model, "--tile", "32", "--json")
    options = ("--asset", "visual", "--property", "platform")
    assert run(*ingest, *options).document["embedded"] == 12
    assert run(*ingest, *options).document["unchanged"] == 12
    assert {row["platform"] for row in rows(uri).values()} == {"p1", None}
    search = ("search", "a port", "--store", uri, "--model", tiny_model, "--json")
    hits = run(*search, "--where", "cloud_cover < 10").document["hits"]
    assert {hit["item"] for hit in hits} == {"a"}
    plain = tmp_path / "p.json"
    plain.write_text("{}")
    assert (
        "STAC document or search for --asset"
        in run(*ingest[:1], plain, *ingest[2:], *options).error
    )
    assert run(*ingest, "--property", "uri").status == 2


def test_what_cannot_be_read_is_listed(tree: Path) -> None:
    folder = tree.parent
    write(folder / "a/a.json", item("a", {"visual": asset("./gone.tif")}))
    write(folder / "c.json", {"type": "Feature", "stac_version": "1.0.0"})
    write(folder / "d.json", item("d", {"one": asset("1.tif"), "two": asset("2.tif")}))
    (folder / "e.json").write_text("{")
    links = {"item": ["a/a.json", "c.json", "d.json", "e.json", "f.json"]}
    write(tree, catalog(**links, child=["below/catalog.json", "g.json"]))
    (source,) = rsicd_embed.open_sources([tree], tiling=Tiling(32))
    assert {example.attributes["item"] for example in source.examples} == {"b"}
    reasons = {Path(skipped.uri).name: skipped.reason for skipped in source.skipped}
    assert reasons["gone.tif"] == "cannot be read: No such file or directory"
    assert reasons["c.json"].startswith("expected a STAC item: ")
    assert reasons["d.json"] == (
        "expected one raster among its assets, found one, two; choose with --asset"
    )
    assert reasons["e.json"].startswith("cannot be read as JSON: ")
    assert (
        reasons["f.json"]
        == reasons["g.json"]
        == ("cannot be read as JSON: No such file or directory")
    )
    source = opened(tree, "analytic")
    assert not source.examples
    reasons = {Path(skipped.uri).name: skipped.reason for skipped in source.skipped}
    assert reasons["b.json"] == "expected the asset 'analytic', found visual"


def test_item_collections_and_other_json(tree: Path, tmp_path: Path) -> None:
    features = [
        json.loads((tree.parent / name).read_text()) for name in ("a/a.json", "below/b/b.json")
    ]
    features[0]["assets"]["visual"]["href"] = "stac dir/a/v.tif"
    features += [features[0], {"type": "Feature"}]
    file = write(tmp_path / "items.json", {"type": "FeatureCollection", "features": features})
    source = opened(file)
    assert {example.attributes["item"] for example in source.examples} == {"a", "b"}
    assert [skipped.reason[:20] for skipped in source.skipped] == [
        "another item has the", "expected a STAC item",
    ]  # fmt: skip
    write(file, {"type": "FeatureCollection", "features": [], "stac_version": "1.0.0"})
    with pytest.raises(DatasetError, match="expected STAC items, found none"):
        opened(file)
    for document in ({"type": "Polygon", "stac_version": "1"}, {"stac_version": "1.0.0"}):
        with pytest.raises(DatasetError, match="expected STAC, found JSON of type"):
            opened(write(file, document))
    with pytest.raises(DatasetError, match="not a column already, found 'vector'"):
        StacSelection(properties=("vector",))


class Server(BaseHTTPRequestHandler):
    """Files with ranges, an API with two pages of items, and paths that need authentication."""

    folder: Path
    searched: list[dict[str, list[str]]]

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        host = f"http://{self.headers['Host']}"
        if "private" in url.path and "sig=secret" not in url.query:
            return self.send_error(403)
        if url.path == "/api":
            return self.answer(json.dumps({
                **catalog(),
                "links": [{"rel": "self", "href": f"{host}/api"},
                          {"rel": "root", "href": f"{host}/api"},
                          {"rel": "search", "href": f"{host}/api/search",
                           "type": "application/geo+json"}],
                "conformsTo": ["https://api.stacspec.org/v1.0.0/core",
                               "https://api.stacspec.org/v1.0.0/item-search"],
            }).encode())  # fmt: skip
        if url.path == "/api/search":
            query = parse_qs(url.query)
            self.searched.append(query)
            page = int(query.get("page", ["0"])[0])
            links = [{"rel": "next", "href": f"{host}/api/search?page={page + 1}"}] * (page < 2)
            found = item(f"i{page}", {"visual": asset(f"{host}/a/v.tif")})
            return self.answer(json.dumps(
                {"type": "FeatureCollection", "features": [found], "links": links}
            ).encode())  # fmt: skip
        file = self.folder / url.path.replace("private", "a").strip("/")
        if not file.is_file():
            return self.send_error(404)
        return self.answer(file.read_bytes())

    def answer(self, body: bytes) -> None:
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        part = body
        if match:
            start, end = int(match[1]), min(int(match[2] or len(body) - 1), len(body) - 1)
            part = body[start : end + 1]
        self.send_response(206 if match else 200)
        if match:
            self.send_header("Content-Range", f"bytes {start}-{end}/{len(body)}")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(part)

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def server(tree: Path) -> Iterator[str]:
    handler = type("Handler", (Server,), {"folder": tree.parent, "searched": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        thread = threading.Thread(target=http.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()
        thread.join()


def test_over_http(server: str, tree: Path) -> None:
    below = tree.parent / "below"
    write(below / "b/b.json", item("b", {"visual": asset(f"{server}/private/v.tif")}))
    links = json.loads((below / "catalog.json").read_text())["links"]
    links += [{"rel": "item", "href": f"{server}/private/item.json"}]
    write(below / "catalog.json", {**catalog(), "links": links})
    source = opened(Path(f"{server}/catalog.json"), "visual")  # a Path collapses slashes
    assert len(source.examples) == 6
    assert source.examples[0].uri.startswith(f"{server}/a/v.tif#window=0,0,32,32")
    assert read_picture(source.examples[0].file).image.size == (32, 32)
    reasons = {skipped.uri: skipped.reason for skipped in source.skipped}
    needs = "cannot be read: it needs authentication (HTTP 403); sign its URL, or download it"
    assert reasons == {f"{server}/private/v.tif": needs, f"{server}/private/item.json": needs}
    with pytest.raises(DatasetError, match=r"it is gone \(HTTP 404\)"):
        opened(f"{server}/no.json")


def test_signatures_are_used_but_not_stored(server: str, tmp_path: Path) -> None:
    signed = item("s", {"visual": asset(f"{server}/private/v.tif?se=1&sig=secret")})
    source = opened(write(tmp_path / "s.json", signed))
    assert len(source.examples) == 6 and "secret" not in repr(
        [(example.uri, dict(example.attributes)) for example in source.examples]
    )
    assert read_picture(source.examples[0].file).image.size == (32, 32)


def test_searches(server: str) -> None:
    pytest.importorskip("pystac_client")
    source = opened(f"{server}/api/search?collections=a,b&bbox=1,2,3,4&limit=2")
    assert [example.attributes["item"] for example in source.examples[::6]] == ["i0", "i1"]
    assert len(opened(f"{server}/api/search").examples) == 18
    with pytest.raises(DatasetError, match=r"expected the parameters bbox, .* found 'colection'"):
        opened(f"{server}/api/search?colection=a")
    with pytest.raises(DatasetError, match="each parameter once, found 'collections' again; sep"):
        opened(f"{server}/api/search?collections=a&collections=b")
    for bbox in ("a", ""):
        with pytest.raises(DatasetError, match="cannot be searched: "):
            opened(f"{server}/api/search?bbox={bbox}")
    with pytest.raises(DatasetError, match=r"cannot be searched: it is gone|cannot be searched"):
        opened(f"{server}/none/search")


def test_an_api_is_not_crawled(server: str, tree: Path) -> None:
    links = {"items": [f"{server}/c/collections/s2/items"], "root": [f"{server}/c"]}
    write(tree.parent / "c/collections/s2", {**catalog("Collection", **links), "id": "s2"})
    with pytest.raises(DatasetError, match=r"search it: .*/c/search\?collections=s2&limit=100"):
        opened(f"{server}/c/collections/s2")


def test_a_page_is_not_taken_for_all_items(server: str, tree: Path) -> None:
    page = {
        "type": "FeatureCollection",
        "features": [item("a", {"visual": asset(f"{server}/a/v.tif")})],
        "links": [{"rel": "next", "href": f"{server}/d/collections/s2/items?page=2"}],
    }
    file = write(tree.parent / "d/collections/s2/items", page)
    with pytest.raises(DatasetError, match=r"found 1 of them and .*/d/search\?collections=s2&"):
        opened(f"{server}/d/collections/s2/items")
    assert len(opened(f"{server}/d/collections/s2/items?limit=1").examples) == 6  # as asked
    assert len(opened(write(file.with_suffix(".json"), page)).examples) == 6
    write(file, page | {"links": []})
    assert len(opened(f"{server}/d/collections/s2/items").examples) == 6


def test_items_with_odd_values_are_listed(tmp_path: Path) -> None:
    odd = item("odd", {"visual": asset("v.tif")}, start_datetime="soon", end_datetime="later")
    odd["properties"]["datetime"] = None
    source = opened(write(tmp_path / "odd.json", odd))
    assert not source.examples
    assert [Path(skipped.uri).name for skipped in source.skipped] == ["odd.json"]
    with pytest.raises(DatasetError, match="found several of 'a_b'"):
        StacSelection(properties=("a:b", "a_b"))


def test_values_of_other_types_and_sizes(tmp_path: Path) -> None:
    """One malformed item does not hinder the others."""
    write_scene(tmp_path / "a.tif", noise(32, 32))
    href = {"visual": asset(f"file://localhost{tmp_path}/a.tif", "data")}
    items = [
        item("true", href, **{"eo:cloud_cover": True, "n": -(2**63), "large": 1}),
        item("large", href, **{"eo:cloud_cover": 10**400, "n": 1}),
        item("good", href, **{"eo:cloud_cover": 7, "n": 2, "large": 10**400}),
        {**item("x", href), "id": None},
        {**item("\ud800", href), "id": "\ud800"},
        {**item("y", href), "collection": 5},
        item("type", {"visual": {**href["visual"], "type": 5}}),
    ]
    path = write(
        tmp_path / "all.json",
        {"type": "FeatureCollection", "stac_version": "1.0.0", "features": items},
    )
    source = opened(path, properties=("n", "large"))
    names = ("item", "cloud_cover", "n", "large")
    assert [
        tuple(example.attributes.get(name) for name in names) for example in source.examples
    ] == [
        ("true", None, -(2**63), "1"),
        ("good", 7.0, 2, str(10**400)),
    ]
    assert str(source.schema.field("n").type) == "int64"
    reasons = [skipped.reason for skipped in source.skipped]
    for reason, expected in zip(
        reasons,
        ("int too large to convert", "id is None, not a text", "expected texts in Unicode",
         "collection is 5, not a text", "'int' object has no"),
        strict=True,
    ):  # fmt: skip
        assert expected in reason
    assert [skipped.uri for skipped in source.skipped][3] == "y"


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"type": "FeatureCollection", "features": 5}, "expected a list of features"),
        (
            {"type": "Catalog", "links": [{"rel": "item", "href": "http://[x/a.json"}]},
            "expected links, found 'http://\\[x/a.json'",
        ),
    ],
)
def test_malformed_documents(document: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "all.json", {"stac_version": "1.0.0", "id": "x", **document})
    with pytest.raises(DatasetError, match=message):
        opened(path)
    deep = "[" * 100_000 + "]" * 100_000
    path.write_text(f'{{"stac_version": "1.0.0", "type": "Feature", "x": {deep}}}')
    with pytest.raises(DatasetError, match="the values are nested too deeply"):
        opened(path)


@pytest.mark.parametrize(
    ("path", "is_stac"),
    [("https://h/x.json", True), ("https:/h/x.geojson", True), ("https://h/v1/search?a=b", True),
     ("https://h/collections/a/items/b", True), ("https://h/photos/x.jpg", False),
     ("s3://b/x.json", False), ("no/such.json", False), ("x.csv", False)],
)  # fmt: skip
def test_addresses(path: str, is_stac: bool) -> None:
    assert (stac_sources.address_of(path) is not None) == is_stac


@pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data/geo/stac")
def test_a_real_catalogue() -> None:
    (source,) = rsicd_embed.open_sources([DATA / "collection.json"], tiling=Tiling(100))
    assert {e.attributes["item"] for e in source.examples} == {
        "20170831_172754_101c", "2017831_195552_SS02", "20170831_195425_SS02",
        "20170831_162740_ssc1d1", "Houston-East-20170831-103f-100d-0f4f-RGB",
    }  # fmt: skip
    assert {e.attributes["cloud_cover"] for e in source.examples} >= {2.0, 24.0}
    assert all(-98 < e.attributes["lon"] < -93 for e in source.examples)
    assert source.skipped == ()
    analytic = opened(DATA / "collection.json", "analytic")
    assert {e.attributes["item"] for e in analytic.examples} == {"20170831_172754_101c"}
    assert len(analytic.skipped) == 4
