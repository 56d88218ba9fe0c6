"""Links to files that a terminal opens when they are clicked (OSC 8)."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

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
