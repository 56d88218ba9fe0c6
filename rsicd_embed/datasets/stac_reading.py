"""Reading of STAC: items from files, catalogues and web addresses, and searches of APIs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError, URLError
from urllib.parse import parse_qsl, urlsplit, urlunsplit
from urllib.request import Request, urlopen

from rsicd_embed.datasets.base import Skipped, local_path
from rsicd_embed.datasets.text import parse_json, require_whole
from rsicd_embed.errors import DatasetError, http_reason, one_line
from rsicd_embed.parallel import ordered_map
from rsicd_embed.remote import given_url, public_address

if TYPE_CHECKING:
    from pystac import Item

WEB = ("http://", "https://")
SEARCH = "/search"
_TIMEOUT_S = 60
_THREADS = 8  # reading items
_ACCEPT = {"Accept": "application/geo+json, application/json"}
_PARAMETERS = ("bbox", "collections", "datetime", "filter", "ids", "intersects", "limit", "query")


class ItemReader:
    """Reads the items below a STAC document.

    Attributes:
        skipped: items and catalogues that cannot be read.
    """

    def __init__(self) -> None:
        self.skipped: list[Skipped] = []
        self._visited: set[str] = set()

    def items(self, address: str) -> Iterator[Item]:
        """The items at a path or URL, those of catalogues below it, or the hits of a search.

        Raises:
            DatasetError: it cannot be read, or is not STAC.
        """
        is_web = address.startswith(WEB)
        address = public_address(address) if is_web else str(Path(address).absolute())
        if is_web and urlsplit(address).path.endswith(SEARCH):
            yield from _search(address)
            return
        yield from self._items_of(read_json(address), address)

    def _items_of(self, document: Mapping[str, Any], address: str) -> Iterator[Item]:
        self._visited.add(address)
        kind = document.get("type")
        if kind == "FeatureCollection":
            self._require_whole(document, address)
            features = document.get("features") or []
            if not isinstance(features, list):
                raise DatasetError(f"{address}: expected a list of features")
            for feature in features:
                yield from self._item(feature, address, is_member=True)
        elif kind == "Feature":
            yield from self._item(document, address)
        elif isinstance(document.get("links"), list) and "stac_version" in document:
            yield from self._items_below(document, address)
        else:
            raise DatasetError(f"{address}: expected STAC, found JSON of type {kind!r:.40}")

    def _require_whole(self, document: Mapping[str, Any], address: str) -> None:
        """Refuses a page of an API's items, unless it has as many as its address asks for.

        Raises:
            DatasetError: further items follow on the next page.
        """
        links = document.get("links")
        relations = [rel for rel, _ in _links(document, address)] if isinstance(links, list) else []
        if not address.startswith(WEB) or "next" not in relations:
            return
        count = len(document.get("features") or ())
        limit = dict(parse_qsl(urlsplit(given_url(address)).query)).get("limit", "")
        if limit.isdigit() and int(limit) <= count:
            return
        root, _, rest = address.partition("?")[0].partition("/collections/")
        raise DatasetError(
            f"{address}: expected all items, found {count} of them and a link to the next page; "
            f"search instead: {root}{SEARCH}?collections={rest.partition('/')[0] or 'NAME'}"
            "&limit=1000"
        )

    def _items_below(self, document: Mapping[str, Any], address: str) -> Iterator[Item]:
        """The items of a catalogue or collection."""
        links = _links(document, address)
        pages = [href for rel, href in links if rel in ("items", "search")]
        if pages and not any(rel == "item" for rel, _ in links):
            root = next((href for rel, href in links if rel == "root"), address)
            root = root.partition("/collections/")[0].rstrip("/")
            name = document.get("id") if document.get("type") == "Collection" else "NAME"
            raise DatasetError(
                f"{address} belongs to an API, which may have any number of items; search it: "
                f"{root}{SEARCH}?collections={name}&limit=100"
            )
        hrefs: dict[str, list[str]] = {"item": [], "child": []}
        for rel, href in links:
            if rel in hrefs and href not in self._visited:
                self._visited.add(href)
                hrefs[rel].append(href)
        read = ordered_map(_attempt, hrefs["item"], ahead=4 * _THREADS, threads=_THREADS)
        for href, item in zip(hrefs["item"], read, strict=True):
            if isinstance(item, DatasetError):
                self._skip(href, item)
            else:
                yield from self._item(item, href)
        for href in hrefs["child"]:
            try:
                yield from self._items_of(read_json(href), href)
            except DatasetError as error:
                self._skip(href, error)

    def _item(self, document: Any, address: str, *, is_member: bool = False) -> Iterator[Item]:
        import pystac

        try:
            require_whole(document, "expected texts")
            item = pystac.Item.from_dict(document, href=None if is_member else address)
            if item.get_self_href() is None:
                item.set_self_href(address)
            _require_texts(item)
        except Exception as error:  # pystac raises all kinds for malformed documents
            name = document.get("id") if isinstance(document, dict) and is_member else None
            reason = f"expected a STAC item: {one_line(error, limit=200)}"
            name = name if isinstance(name, str) and _is_utf8(name) else address
            self.skipped.append(Skipped(name or address, reason))
        else:
            yield item

    def _skip(self, href: str, error: DatasetError) -> None:
        reason = str(error).removeprefix(href).lstrip(": ")
        self.skipped.append(Skipped(href, reason))


def _is_utf8(text: str) -> bool:
    return text.encode("utf-8", "replace").decode() == text


def _require_texts(item: Item) -> None:
    """Raises DatasetError unless the names of an item are texts."""
    for name, value in (("id", item.id), ("collection", item.collection_id)):
        if not isinstance(value, str) and (value is not None or name == "id"):
            raise DatasetError(f"its {name} is {value!r:.80}, not a text")


def read_json(address: str) -> dict[str, Any]:
    """Reads a JSON object from a file or a web server.

    Raises:
        DatasetError: it cannot be read, needs authentication, or is something else.
    """
    try:
        if address.startswith(WEB):
            request = Request(given_url(address), headers=_ACCEPT)
            with urlopen(request, timeout=_TIMEOUT_S) as response:
                text = response.read()
        else:
            text = Path(address).read_bytes()
        document = parse_json(text)
    except HTTPError as error:
        error.close()
        raise DatasetError(f"{address} cannot be read: {http_reason(error.code)}") from None
    except URLError as error:
        raise DatasetError(f"{address} cannot be read: {one_line(error.reason)}") from None
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else one_line(error)
        raise DatasetError(f"{address} cannot be read as JSON: {why}") from None
    if not isinstance(document, dict):
        raise DatasetError(f"{address}: expected STAC, found JSON that is not an object")
    return document


def _links(document: Mapping[str, Any], address: str) -> list[tuple[str, str]]:
    """The relations and absolute hrefs of a document's links.

    Raises:
        DatasetError: a link is not a URL or path.
    """
    from pystac.utils import make_absolute_href

    links = []
    for link in document["links"]:
        if isinstance(link, dict) and link.get("href"):
            try:
                href = make_absolute_href(str(link["href"]), address)
            except ValueError as error:
                raise DatasetError(
                    f"{address}: expected links, found {link['href']!r:.80}: {one_line(error)}"
                ) from None
            links.append((str(link.get("rel")), _address(href)))
    return links


def _address(href: str) -> str:
    return public_address(href) if href.startswith(WEB) else local_path(href)


def _attempt(href: str) -> dict[str, Any] | DatasetError:
    try:
        return read_json(href)
    except DatasetError as error:
        return error


def _search(address: str) -> Iterator[Item]:
    """The items that an API finds, page by page, up to the parameter `limit`."""
    try:
        from pystac_client import Client
        from pystac_client.exceptions import APIError
    except ImportError:
        raise DatasetError(
            "STAC searches need pystac-client; pip install 'rsicd-embed[geo]'"
        ) from None
    parts = urlsplit(given_url(address))
    root = urlunsplit((parts.scheme, parts.netloc, parts.path.removesuffix(SEARCH), "", ""))
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    given = dict(pairs)
    if len(given) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise DatasetError(
            f"{address}: expected each parameter once, found {repeated!r} again; separate several "
            "values with commas"
        )
    if unknown := sorted(given.keys() - set(_PARAMETERS)):
        raise DatasetError(
            f"{address}: expected the parameters {', '.join(_PARAMETERS)}, found {unknown[0]!r}"
        )
    try:
        options = _search_options(given)
        client = Client.open(root, timeout=_TIMEOUT_S)
        yield from client.search(method="GET", **options).items()
    except APIError as error:
        status = error.status_code
        why = http_reason(status) if status else one_line(error, limit=200)
        raise DatasetError(f"{root} cannot be searched: {why}") from None
    except Exception as error:  # of requests and pystac-client, for wrong answers and parameters
        raise DatasetError(f"{root} cannot be searched: {one_line(error, limit=200)}") from None


def _search_options(given: Mapping[str, str]) -> dict[str, Any]:
    """Arguments of pystac-client's search."""
    options: dict[str, Any] = {}
    for name, value in given.items():
        if name == "limit":
            options["max_items"] = int(value)
        elif name == "bbox":
            options["bbox"] = [float(number) for number in value.split(",")]
        elif name in ("collections", "ids"):
            options[name] = value.split(",")
        else:
            options[name] = json.loads(value) if name in ("intersects", "query") else value
    return options
