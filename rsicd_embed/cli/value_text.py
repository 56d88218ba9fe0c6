"""Values of rows as a person reads them: short, but without lost digits."""

from __future__ import annotations

import math
from typing import Any

from rsicd_embed.cli.base import printable

_DECIMALS = 6  # of a degree: a tenth of a metre
WIDEST = 60


def number_text(value: float) -> str:
    """A number in as few digits as show six decimals, or six significant digits below 0.1.

    Example:
        >>> [number_text(one) for one in (320712.53, -7.1234567, 0.0123456789, 5.0, 1e20)]
        ['320712.53', '-7.123457', '0.0123457', '5', '1e+20']
    """
    if not math.isfinite(value):
        return str(value)
    rounded = round(value, _DECIMALS) if abs(value) >= 0.1 else float(f"{value:.{_DECIMALS}g}")
    return repr(rounded).removesuffix(".0")


def value_text(value: Any) -> str:
    """Any value in one line of at most `WIDEST` characters."""
    if value is None:
        return "NULL"
    if isinstance(value, float):
        return number_text(value)
    if isinstance(value, bytes):
        return clipped(value[:WIDEST].hex())
    if isinstance(value, list):
        # No more of a vector than is shown.
        return clipped("[" + ", ".join(map(value_text, value[:WIDEST])) + "]")
    if isinstance(value, dict):
        pairs = (f"{printable(str(key))}: {value_text(one)}" for key, one in value.items())
        return clipped("{" + ", ".join(pairs) + "}")
    return clipped(printable(str(value)))


def clipped(text: str) -> str:
    """The beginning of a text that is longer than `WIDEST`."""
    return text if len(text) <= WIDEST else text[: WIDEST - 1] + "…"
