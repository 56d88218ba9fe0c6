"""JSON objects in the files of a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rsicd_embed.errors import ModelError


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        ModelError: it is missing or is no JSON object.
    """
    if not path.is_file():
        raise ModelError(f"expected {path.name} in {path.parent}, found none")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path}: expected a JSON object, found {type(content).__name__}")
    return content
