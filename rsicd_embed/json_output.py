"""Strict JSON output: UTF-8, without NaN and infinity."""

from __future__ import annotations

import json
import math
from typing import Any


def as_json(document: Any) -> bytes:
    """Encodes a document as JSON in UTF-8.

    NaN and infinity become null, bytes hexadecimal text, and dates and other values text.
    """
    try:
        text = _text(document)
    except ValueError:  # NaN or infinity
        text = _text(_plain(document))
    # Bytes do not depend on the terminal's encoding; a lone surrogate becomes its JSON escape.
    return text.encode("utf-8", "backslashreplace")


def _text(document: Any) -> str:
    return json.dumps(document, ensure_ascii=False, allow_nan=False, default=_as_text)


def _as_text(value: Any) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
