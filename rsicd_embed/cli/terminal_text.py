"""Values of rows as a person reads them: short, but without lost digits."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_DECIMALS = 6  # of a degree: a tenth of a metre
WIDEST = 60


def printable(text: str) -> str:
    """One line of text in which nothing steers the terminal: a newline becomes `\\n`, and so on."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


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


# Terminals that show them, by what they put into the environment.
_PROGRAMS = ("iTerm.app", "WezTerm", "vscode", "ghostty", "Hyper", "WarpTerminal", "Tabby")
_VARIABLES = ("KITTY_WINDOW_ID", "WT_SESSION", "KONSOLE_VERSION", "WEZTERM_PANE")
_TERMS = ("xterm-kitty", "alacritty", "foot", "xterm-ghostty")
_FIRST_VTE = 5000  # of GNOME's terminal and its kin


def link(uri: str, text: str) -> str:
    """`text` as a link to a file where the terminal on stdout shows links; else `text`."""
    if not (sys.stdout.isatty() and shows_links(os.environ)):
        return text
    target = uri if "://" in uri else Path(uri).absolute().as_uri()
    if not target.isprintable():
        return text
    return f"\x1b]8;;{target}\x1b\\{text}\x1b]8;;\x1b\\"


def shows_links(environment: Mapping[str, str]) -> bool:
    """Whether a terminal with this environment shows links; `FORCE_HYPERLINK` overrides the guess.

    Example:
        >>> shows_links({"TERM_PROGRAM": "vscode"}), shows_links({"TERM": "linux"})
        (True, False)
    """
    forced = environment.get("FORCE_HYPERLINK")
    if forced is not None:
        return forced != "0"
    if environment.get("TERM") == "dumb" or any(environment.get(one) for one in ("TMUX", "STY")):
        return False  # a multiplexer may not pass them on
    vte = environment.get("VTE_VERSION", "")
    return (
        environment.get("TERM_PROGRAM") in _PROGRAMS
        or environment.get("TERM", "").startswith(_TERMS)
        or any(environment.get(one) for one in _VARIABLES)
        or (vte.isdecimal() and int(vte) >= _FIRST_VTE)
    )
