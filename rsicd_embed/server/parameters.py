"""Refuses parameters that a route does not have, which would be ignored otherwise."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, get_origin

from fastapi import Request
from fastapi.params import Form

from rsicd_embed.errors import RequestError


async def require_known_parameters(request: Request) -> None:
    """Checks the query and the form of a request; a dependency of routes.

    Raises:
        RequestError: 422: a parameter is unknown, or is repeated although it is not a list.
    """
    route: Any = request.scope["route"].dependant
    _require(request.query_params.multi_items(), route.query_params)
    fields = [field for field in route.body_params if isinstance(field.field_info, Form)]
    if fields and "form" in request.headers.get("content-type", ""):
        _require((await request.form()).multi_items(), fields)


def _require(given: Iterable[tuple[str, Any]], known: Iterable[Any]) -> None:
    fields = {field.alias: field.field_info.annotation for field in known}
    seen: set[str] = set()
    for name, _ in given:
        if name not in fields:
            listed = ", ".join(fields) or "none"
            raise RequestError(422, f"{name[:100]}: unknown parameter; parameters: {listed}")
        if name in seen and not _is_list(fields[name]):
            raise RequestError(422, f"{name}: expected one value, found several")
        seen.add(name)


def _is_list(annotation: Any) -> bool:
    """Whether a parameter may be repeated: `tuple[str, ...]`, or `list[str] | None`."""
    options = (annotation, *getattr(annotation, "__args__", ()))
    return any(get_origin(option) in (list, tuple) for option in options)
