"""Text for terminals: escaped characters, short values, and links to files (OSC 8)."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

WIDEST = 60
_DECIMALS, _MOST_DEGREES = 6, 360  # six decimals of a degree are a tenth of a metre
_LARGE_DECIMALS = 3  # of larger numbers, such as metres
# How terminals that support links identify themselves in the environment.
_PROGRAMS = ("iTerm.app", "WezTerm", "vscode", "ghostty", "Hyper", "WarpTerminal", "Tabby")
_VARIABLES = ("KITTY_WINDOW_ID", "WT_SESSION", "KONSOLE_VERSION", "WEZTERM_PANE")
_TERMS = ("xterm-kitty", "alacritty", "foot", "xterm-ghostty")
_FIRST_VTE = 5000  # GNOME Terminal and others


def printable(text: str) -> str:
    """Escapes control characters, so that a text fits on one line and cannot steer the terminal."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def clipped(text: str) -> str:
    """Shortens a text to `WIDEST` characters."""
    return text if len(text) <= WIDEST else text[: WIDEST - 1] + "…"


def counted(number: int, noun: str) -> str:
    """A number and a noun in the singular or plural.

    Example:
        >>> counted(1, "row"), counted(2, "row")
        ('1 row', '2 rows')
    """
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def number_text(value: float) -> str:
    """Formats a number without trailing zeros.

    It has three decimals above 360, six down to 0.1, and six significant digits below.

    Example:
        >>> [number_text(x) for x in (7138.181063, -7.1234567, 0.0123456789, 5.0, 1e20)]
        ['7138.181', '-7.123457', '0.0123457', '5', '1e+20']
    """
    if not math.isfinite(value):
        return str(value)
    if abs(value) > _MOST_DEGREES:
        rounded = round(value, _LARGE_DECIMALS)
    elif abs(value) >= 0.1:
        rounded = round(value, _DECIMALS)
    else:
        rounded = float(f"{value:.{_DECIMALS}g}")
    return repr(rounded).removesuffix(".0")


def value_text(value: Any) -> str:
    """Formats any value of a row as one line of at most `WIDEST` characters."""
    if value is None:
        return "NULL"
    if isinstance(value, float):
        return number_text(value)
    if isinstance(value, bytes):
        return clipped(value[:WIDEST].hex())
    if isinstance(value, list):  # perhaps a vector: format no more of it than fits
        return clipped("[" + ", ".join(map(value_text, value[:WIDEST])) + "]")
    if isinstance(value, dict):
        pairs = (f"{printable(str(key))}: {value_text(item)}" for key, item in value.items())
        return clipped("{" + ", ".join(pairs) + "}")
    return clipped(printable(str(value)))


def link(uri: str, text: str) -> str:
    """Returns `text` as a link to a file if stdout is a terminal with links, else `text`."""
    if not (sys.stdout.isatty() and shows_links(os.environ)):
        return text
    target = uri if "://" in uri else Path(uri).absolute().as_uri()
    if not target.isprintable():
        return text
    return f"\x1b]8;;{target}\x1b\\{text}\x1b]8;;\x1b\\"


def shows_links(environment: Mapping[str, str]) -> bool:
    """Guesses whether a terminal supports links; `FORCE_HYPERLINK` overrides the guess.

    Example:
        >>> shows_links({"TERM_PROGRAM": "vscode"}), shows_links({"TERM": "linux"})
        (True, False)
    """
    forced = environment.get("FORCE_HYPERLINK")
    if forced is not None:
        return forced != "0"
    if environment.get("TERM") == "dumb" or any(environment.get(name) for name in ("TMUX", "STY")):
        return False  # terminal multiplexers may drop links
    vte = environment.get("VTE_VERSION", "")
    return (
        environment.get("TERM_PROGRAM") in _PROGRAMS
        or environment.get("TERM", "").startswith(_TERMS)
        or any(environment.get(name) for name in _VARIABLES)
        or (vte.isdecimal() and int(vte) >= _FIRST_VTE)
    )
