"""Writes the reference page of the HTTP API from the server's OpenAPI document."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

Document = dict[str, Any]

_INTRODUCTION = """# HTTP API

`rsicd-embed serve --store URI` answers these requests at the address that it prints;
[Search page and server](serving.md) describes hosts, limits and filters. This page is generated
from the OpenAPI document that every server offers at `/openapi.json`.
"""


def openapi_document() -> Document:
    """The OpenAPI document of the server, built without a store or a model."""
    from starlette.testclient import TestClient

    from rsicd_embed.embedder import load_embedder
    from rsicd_embed.server.api import create_app
    from rsicd_embed.server.engine import Engine
    from rsicd_embed.server.service import Service

    engine = Engine("exact:./unused", lambda name: load_embedder(name))
    app = create_app(Service(engine, threads=1))
    # Outside `with`, so the service never starts.
    response = TestClient(app, base_url="http://127.0.0.1").get("/openapi.json")
    document: Document = response.json()
    return document


def page(document: Document) -> str:
    """The reference page as Markdown."""
    return "\n".join([_INTRODUCTION, *_operations(document), *_schemas(document)]) + "\n"


def _operations(document: Document) -> Iterator[str]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"## `{method.upper()} {path}`\n"
            yield f"{operation.get('description') or operation.get('summary', '')}\n"
            if parameters := operation.get("parameters"):
                rows = [(p["name"], p["schema"], p["required"], p) for p in parameters]
                yield from _fields("Query parameters", rows)
            for media, content in operation.get("requestBody", {}).get("content", {}).items():
                schema = _resolved(content["schema"], document)
                rows = [
                    (name, field, name in schema.get("required", ()), field)
                    for name, field in schema.get("properties", {}).items()
                ]
                yield from _fields(f"Body, `{media}`", rows)
            yield "**Responses**\n"
            for status, response in operation["responses"].items():
                kinds = [_media_type(*item) for item in response.get("content", {}).items()]
                kind = f": {' or '.join(kinds)}" if kinds else ""
                yield f"- `{status}` {response['description']}{kind}"
            yield ""


def _schemas(document: Document) -> Iterator[str]:
    yield "## Schemas\n"
    for name, schema in sorted(document["components"]["schemas"].items()):
        if name.startswith("Body_"):
            continue
        yield f"### {name}\n"
        if schema.get("description"):
            yield f"{schema['description']}\n"
        rows = [
            (field, part, field in schema.get("required", ()), part)
            for field, part in schema.get("properties", {}).items()
        ]
        if rows:
            yield from _fields("", rows)
        else:
            yield f"{_type(schema)}\n"


def _fields(title: str, rows: list[tuple[str, Document, bool, Document]]) -> Iterator[str]:
    if title:
        yield f"**{title}**\n"
    yield "| name | type | default | description |\n| --- | --- | --- | --- |"
    for name, schema, required, described in rows:
        default = "required" if required else _default(schema)
        text = described.get("description", "").replace("\n", " ").replace("|", "\\|")
        yield f"| `{name}` | {_type(schema)} | {default} | {text} |"
    yield ""


def _default(schema: Document) -> str:
    value = schema.get("default")
    return "" if value is None else f"`{json.dumps(value)}`"


def _media_type(media: str, content: Document) -> str:
    schema = content.get("schema", {})
    return _type(schema) if schema else f"`{media}`"


def _type(schema: Document) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    for union in ("anyOf", "oneOf"):
        if union in schema:
            parts = [_type(part) for part in schema[union] if part.get("type") != "null"]
            return " or ".join(dict.fromkeys(parts))
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    kind = schema.get("type", "any value")
    if schema.get("contentMediaType") or schema.get("format") == "binary":
        kind = "file"
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        kind += f", {low:g} to {high:g}"
    return str(kind)


def _resolved(schema: Document, document: Document) -> Document:
    if "$ref" not in schema:
        return schema
    name = schema["$ref"].rpartition("/")[2]
    resolved: Document = document["components"]["schemas"][name]
    return resolved
