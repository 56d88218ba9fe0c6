"""Thumbnails as escape sequences, and hits in a notebook."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import pyarrow as pa
import pytest
from PIL import Image

import rsicd_embed
from rsicd_embed.cli.terminal_pictures import picture_protocol, thumbnail
from rsicd_embed.errors import ArgumentError
from tests.conftest import picture


@pytest.mark.parametrize(
    ("environment", "protocol"),
    [
        ({"TERM": "xterm-256color", "KITTY_WINDOW_ID": "1"}, "kitty"),
        ({"TERM_PROGRAM": "iTerm.app"}, "iterm"),
        ({"TERM": "foot-extra"}, "sixel"),
        ({"TERM": "xterm-kitty", "TMUX": "/tmp/x"}, None),
        ({}, None),
    ],
)
def test_protocols(environment: dict[str, str], protocol: str | None) -> None:
    assert picture_protocol(environment) == protocol


def test_png_thumbnails() -> None:
    image = picture(0, (400, 200))
    for protocol, pattern in (("kitty", r"[;]([^;\x1b]*)\x1b\\"), ("iterm", r":([^:\a]*)\a")):
        data = "".join(re.findall(pattern, thumbnail(image, protocol)))
        assert Image.open(io.BytesIO(base64.b64decode(data))).size == (160, 80)


def test_sixel_thumbnails() -> None:
    """Decoded again, the pixels have the colours of the quantised image."""
    image = Image.new("RGB", (20, 13), (255, 0, 0))
    image.paste((0, 0, 255), (5, 4, 20, 13))
    text = thumbnail(image, "sixel")
    size, body = re.fullmatch(r'\x1bPq"1;1;(\d+;\d+)(.*)\x1b\\', text, re.DOTALL).groups()
    assert size == "20;13"
    colours, pixels = {}, {}
    for number, red, green, blue in re.findall(r"#(\d+);2;(\d+);(\d+);(\d+)", body):
        colours[number] = (int(red), int(green), int(blue))
    bands = re.sub(r"#\d+;2;\d+;\d+;\d+", "", body).split("-")[:-1]
    for top, band in enumerate(bands):
        for number, run in re.findall(r"#(\d+)([^#$]*)\$", band):
            x = 0
            for count, character in re.findall(r"(?:!(\d+))?([?-~])", run):
                for _ in range(int(count or 1)):
                    for y in (y for y in range(6) if (ord(character) - 63) >> y & 1):
                        pixels[x, 6 * top + y] = colours[number]
                    x += 1
    assert len(pixels) == 20 * 13
    assert (pixels[0, 0], pixels[19, 12], pixels[5, 4]) == ((100, 0, 0), (0, 0, 100), (0, 0, 100))


def test_notebooks_show_pictures(tmp_path: Path) -> None:
    picture(1, (30, 20)).save(tmp_path / "a.png")
    hits = pa.table(
        {
            "query": [0, 0], "rank": [1, 2], "id": ["a<b>", "gone"], "score": [0.5, 0.25],
            "uri": [str(tmp_path / "a.png"), None], "label": ["port", None],
        }
    )  # fmt: skip
    gallery = rsicd_embed.show(hits, title="ports & boats")
    page = gallery._repr_html_()
    assert page.count("data:image/jpeg;base64,") == 1
    assert "a&lt;b&gt;" in page and "ports &amp; boats" in page and "label=port" in page
    assert repr(gallery) == "1  +0.5000  label=port  a<b>\n2  +0.2500  gone"
    assert "label" not in rsicd_embed.show(hits, columns=[])._repr_html_()
    assert repr(rsicd_embed.show(hits.slice(0, 0))) == "no hits"
    with pytest.raises(ArgumentError, match="expected an Arrow table"):
        rsicd_embed.show("hits")
