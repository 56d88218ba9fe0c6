"""A picture of augmented images: an image a row, the original first, then its views."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from PIL import Image, ImageDraw, ImageFont, ImageOps

from rsicd_embed import files
from rsicd_embed.errors import StoreError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")

_CELL, _GAP, _LINE, _TEXT = 224, 10, 17, 13
_MOST_LINES = 5
_SOFTWARE, _OURS = 0x0131, "rsicd-embed train preview"  # a tag of Exif, by which sheets are known
_INK, _PALE, _PAPER = (20, 20, 20), (110, 110, 110), (255, 255, 255)

_Font: TypeAlias = ImageFont.ImageFont | ImageFont.FreeTypeFont


@dataclass(frozen=True)
class Cell:
    """An image, and what is written under it.

    Attributes:
        image: RGB, made to fit.
        text: broken into lines.
        pale: whether the text is about the image, rather than its caption.
    """

    image: Image.Image
    text: str
    pale: bool = False


def draw(rows: Sequence[Sequence[Cell]]) -> Image.Image:
    """Draws the cells of each row beside each other."""
    font = ImageFont.load_default(_TEXT)
    lines = [[_lines(cell.text, font) for cell in row] for row in rows]
    heights = [_CELL + _GAP + max(map(len, row), default=0) * _LINE + _GAP for row in lines]
    columns = max(map(len, rows), default=0)
    size = (_GAP + columns * (_CELL + _GAP), _GAP + sum(heights))
    sheet = Image.new("RGB", size, _PAPER)
    pen = ImageDraw.Draw(sheet)
    top = _GAP
    for row, texts, height in zip(rows, lines, heights, strict=True):
        for i, (cell, text) in enumerate(zip(row, texts, strict=True)):
            left = _GAP + i * (_CELL + _GAP)
            sheet.paste(ImageOps.pad(cell.image, (_CELL, _CELL), color=_PAPER), (left, top))
            for n, line in enumerate(text):
                place = (left, top + _CELL + _GAP // 2 + n * _LINE)
                pen.text(place, line, fill=_PALE if cell.pale else _INK, font=font)
        top += height
    return sheet


def require_place(path: Path) -> None:
    """Refuses to replace what `save` did not write: an image of the data set, say.

    Raises:
        StoreError: there is such a file.
    """
    with files.storage_errors(f"cannot write {path}"):
        if not path.exists():
            return
    try:
        with Image.open(path) as image:
            ours = image.getexif().get(_SOFTWARE) == _OURS
    except Exception:  # whatever it is, and however it is damaged
        ours = False
    if not ours:
        raise StoreError(
            f"{path} exists, and is not a picture that train preview drew; "
            "name another file, or remove it"
        )


def save(rows: Sequence[Sequence[Cell]], path: Path) -> None:
    """Writes `draw` to a file with one of `SUFFIXES`, in one step.

    Raises:
        StoreError: the file cannot be written, or another one is in its place.
    """
    require_place(path)
    drawn = draw(rows)
    exif = Image.Exif()
    exif[_SOFTWARE] = _OURS
    kind = Image.registered_extensions()[path.suffix.lower()]
    with files.storage_errors(f"cannot write {path}"):
        files.make_folder(path.parent)
        files.write_file(path, lambda aside: drawn.save(aside, kind, exif=exif))
        files.sync_folder(path.parent)


def _lines(text: str, font: _Font) -> list[str]:
    """Words on lines as wide as a cell; what is on no line is told by an ellipsis."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= _CELL:
            lines[-1] = longer
        else:
            lines.append(word)
    if len(lines) > _MOST_LINES:
        lines = [*lines[: _MOST_LINES - 1], f"{lines[_MOST_LINES - 1]} …"]
    return [_cut(line, font) for line in lines]


def _cut(line: str, font: _Font) -> str:
    while len(line) > 1 and font.getlength(line) > _CELL:
        line = line[:-2] + "…"
    return line
