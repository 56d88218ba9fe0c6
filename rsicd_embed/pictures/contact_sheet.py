"""Contact sheets: search hits as pictures that a person can look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

from rsicd_embed.errors import ImageError
from rsicd_embed.images import ImageLike, read_rgb

_CELL, _GAP, _LINE = 160, 8, 18
_INK, _PALE, _PAPER = (20, 20, 20), (110, 110, 110), (255, 255, 255)


@dataclass(frozen=True)
class SheetHit:
    """One picture and the lines under it."""

    image: ImageLike
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Row:
    """A query and its hits, best first."""

    title: str
    hits: tuple[SheetHit, ...]


def draw(rows: Sequence[Row]) -> Image.Image:
    """Draws a row of pictures for each query; a picture that cannot be read becomes its reason."""
    columns = max((len(row.hits) for row in rows), default=1)
    lines = max((len(hit.lines) for row in rows for hit in row.hits), default=0)
    height = 2 * _LINE + _CELL + lines * _LINE + _GAP
    sheet = Image.new("RGB", (_GAP + columns * (_CELL + _GAP), _GAP + len(rows) * height), _PAPER)
    pen = ImageDraw.Draw(sheet)
    title, small = ImageFont.load_default(16), ImageFont.load_default(12)
    for i, row in enumerate(rows):
        top = _GAP + i * height
        pen.text((_GAP, top), row.title, fill=_INK, font=title)
        for j, hit in enumerate(row.hits):
            left = _GAP + j * (_CELL + _GAP)
            _paste(sheet, pen, hit.image, (left, top + 2 * _LINE - _GAP), small)
            for n, line in enumerate(hit.lines):
                place = (left, top + 2 * _LINE + _CELL + n * _LINE)
                pen.text(place, _fit(line, small), fill=_INK if n == 0 else _PALE, font=small)
    return sheet


def save(rows: Sequence[Row], path: Path) -> None:
    """Writes `draw(rows)` as a PNG or whatever the suffix says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draw(rows).save(path)


def _paste(
    sheet: Image.Image,
    pen: ImageDraw.ImageDraw,
    image: ImageLike,
    place: tuple[int, int],
    font: ImageFont.ImageFont | ImageFont.FreeTypeFont,
) -> None:
    try:
        picture = read_rgb(image)
    except ImageError as error:
        pen.text(place, _fit(str(error), font), fill=_PALE, font=font)
        return
    sheet.paste(ImageOps.contain(picture, (_CELL, _CELL), Image.Resampling.LANCZOS), place)


def _fit(text: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> str:
    while text and font.getlength(text) > _CELL:
        text = text[:-2] + "…" if len(text) > 2 else ""
    return text
