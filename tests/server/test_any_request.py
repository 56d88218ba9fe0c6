"""Generated requests never make the server fail."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

# Long texts are truncated with a warning, which must not become an error here.
pytestmark = pytest.mark.filterwarnings("ignore:.* texts are longer than the model's context")

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
NAMES = st.sampled_from(["text", "id", "k", "filters", "against", "patch", "overlap", "side"])
FILTER = st.fixed_dictionaries(
    {
        "column": st.sampled_from(["label", "year", "lon", "cloudy", "vector"]) | st.text(),
        "operator": st.sampled_from(["=", "<", "contains", "is empty"]) | st.text(),
        "value": JSON,
    }
)
BODY = st.dictionaries(NAMES, JSON, max_size=5) | st.fixed_dictionaries(
    {
        "text": st.text(min_size=1),
        "k": st.integers(-1, 300),
        "filters": st.lists(FILTER, max_size=3),
    }
)
CALM = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


def ok(got: Any) -> None:
    assert got.status_code < 500, (got.status_code, got.text)
    if got.status_code >= 400:
        assert list(got.json()) == ["error"]


@given(BODY)
@CALM
def test_searches(client: Any, body: dict[str, Any]) -> None:
    data = json.dumps(body).encode("utf-8", "replace")
    ok(client.post("/api/search", content=data, headers={"content-type": "application/json"}))


@given(st.sampled_from(["search", "pictures", "columns"]), st.dictionaries(NAMES, st.text()))
@CALM
def test_queries(client: Any, route: str, parameters: dict[str, str]) -> None:
    ok(client.get(f"/api/{route}", params=parameters))


@given(
    st.sampled_from(["/api/search/image", "/api/find"]),
    st.dictionaries(NAMES, st.text() | st.integers().map(str), max_size=5),
    st.none() | st.binary(max_size=300),
)
@CALM
def test_forms(client: Any, url: str, fields: dict[str, str], image: bytes | None) -> None:
    safe = {name: value.encode("utf-8", "replace").decode() for name, value in fields.items()}
    ok(client.post(url, data=safe, files=None if image is None else {"image": ("a", image)}))


@given(st.sampled_from(["/api/search", "/api/find", "/api/search/image"]), st.binary(), st.text())
@CALM
def test_bodies(client: Any, url: str, body: bytes, kind: str) -> None:
    kinds = ["application/json", "multipart/form-data; boundary=x", "multipart/form-data"]
    for content_type in (*kinds, kind.encode("ascii", "replace").decode()):
        headers = {"content-type": "".join(c for c in content_type if c.isprintable())}
        ok(client.post(url, content=b"--x\r\n" + body, headers=headers))
