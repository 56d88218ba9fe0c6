"""Thumbnails in terminals that can show pictures: kitty's protocol, iTerm's, and sixel."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping
from typing import Literal

from PIL import Image

Protocol = Literal["kitty", "iterm", "sixel"]

_SIDE = 160  # pixels
_ROWS = 8  # lines of text that a thumbnail covers
_CHUNK = 4096  # bytes of base64 in one escape sequence of kitty
_COLOURS = 128


def picture_protocol(environment: Mapping[str, str]) -> Protocol | None:
    """Guesses how a terminal shows pictures, from its environment; None if it does not.

    Example:
        >>> picture_protocol({"TERM": "xterm-kitty"}), picture_protocol({"TERM": "linux"})
        ('kitty', None)
    """
    if any(environment.get(name) for name in ("TMUX", "STY")):
        return None  # terminal multiplexers swallow pictures
    term, program = environment.get("TERM", ""), environment.get("TERM_PROGRAM", "")
    if term in ("xterm-kitty", "xterm-ghostty") or environment.get("KITTY_WINDOW_ID"):
        return "kitty"
    if program == "ghostty" or environment.get("KONSOLE_VERSION"):
        return "kitty"
    if program in ("iTerm.app", "WezTerm", "vscode", "Tabby", "Hyper"):
        return "iterm" if program != "Hyper" else None
    if term.startswith(("foot", "mlterm", "yaft", "contour")) or "sixel" in term:
        return "sixel"
    return None


def thumbnail(image: Image.Image, protocol: Protocol) -> str:
    """Draws an RGB image, at most 160 pixels a side, as an escape sequence of a terminal."""
    small = image.convert("RGB")
    small.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    if protocol == "sixel":
        return "".join(_sixel(small))
    file = io.BytesIO()
    small.save(file, "PNG")
    data = base64.b64encode(file.getvalue()).decode()
    if protocol == "iterm":
        size = f"size={len(file.getvalue())};height={_ROWS}"
        return f"\x1b]1337;File=inline=1;{size};preserveAspectRatio=1:{data}\a"
    return "".join(_kitty(data))


def _kitty(data: str) -> Iterator[str]:
    chunks = [data[start : start + _CHUNK] for start in range(0, len(data), _CHUNK)]
    for place, chunk in enumerate(chunks):
        first = f"a=T,f=100,r={_ROWS},q=2," if place == 0 else ""
        yield f"\x1b_G{first}m={int(place + 1 < len(chunks))};{chunk}\x1b\\"


def _sixel(image: Image.Image) -> Iterator[str]:
    """Bands of six rows; each colour of a band is a line of characters, run-length encoded."""
    indexed = image.quantize(_COLOURS)
    width, height = indexed.size
    palette, pixels = indexed.getpalette() or [], indexed.tobytes()
    yield f'\x1bPq"1;1;{width};{height}'
    for colour in range(min(_COLOURS, len(palette) // 3)):
        red, green, blue = (round(value * 100 / 255) for value in palette[3 * colour :][:3])
        yield f"#{colour};2;{red};{green};{blue}"
    for top in range(0, height, 6):
        band = [pixels[y * width : (y + 1) * width] for y in range(top, min(top + 6, height))]
        for colour in sorted(set(b"".join(band))):
            bits = [
                sum((row[x] == colour) << y for y, row in enumerate(band)) for x in range(width)
            ]
            yield f"#{colour}{_run_lengths(bits)}$"
        yield "-"
    yield "\x1b\\"


def _run_lengths(bits: list[int]) -> str:
    pieces, start = [], 0
    for place in range(1, len(bits) + 1):
        if place == len(bits) or bits[place] != bits[start]:
            character, count = chr(63 + bits[start]), place - start
            pieces.append(character * count if count < 4 else f"!{count}{character}")
            start = place
    return "".join(pieces)
