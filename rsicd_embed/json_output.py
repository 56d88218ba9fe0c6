"""JSON that every reader takes: UTF-8, no NaN."""

from __future__ import annotations

import json
import math
from typing import Any


def as_json(document: Any) -> bytes:
    """JSON in UTF-8; NaN and infinity become null, bytes hexadecimal, dates and such text."""
    try:
        text = _text(document)
    except ValueError:  # NaN or infinity, which are rare
        text = _text(_plain(document))
    # As bytes, whatever the terminal's encoding; a lone surrogate becomes its JSON escape.
    return text.encode("utf-8", "backslashreplace")


def _text(document: Any) -> str:
    return json.dumps(document, ensure_ascii=False, allow_nan=False, default=_as_text)


def _as_text(value: Any) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value
