"""Sheets of captioned images: grids drawn as pictures, and search hits as an HTML page."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from PIL import Image, ImageDraw, ImageFont, ImageOps

from rsicd_embed import files
from rsicd_embed.errors import ImageError, StoreError
from rsicd_embed.images import ImageLike, read_rgb

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")

_GAP, _LINE, _TEXT, _TITLE = 10, 17, 13, 16
_MOST_LINES = 5
# The EXIF tag that marks a sheet as drawn by `train preview`, which may then replace it.
_SOFTWARE, _PREVIEW = 0x0131, "rsicd-embed train preview"
_INK, _PALE, _PAPER = (20, 20, 20), (110, 110, 110), (255, 255, 255)

_Font: TypeAlias = ImageFont.ImageFont | ImageFont.FreeTypeFont


@dataclass(frozen=True)
class GridCell:
    """An image and the text below it.

    Attributes:
        image: the image, scaled to fit; one that cannot be read is replaced by the reason.
        text: its caption, wrapped.
        note: further text about the image, printed below the caption in grey.
    """

    image: ImageLike
    text: str = ""
    note: str = ""


@dataclass(frozen=True)
class GridRow:
    """A row of cells, with an optional title above it."""

    cells: Sequence[GridCell]
    title: str = ""


def draw_grid(rows: Sequence[GridRow], side: int = 224) -> Image.Image:
    """Draws rows of captioned images.

    Args:
        rows: the rows, top to bottom.
        side: width and height of a cell's image, in pixels.

    Returns:
        The RGB sheet.
    """
    font, title_font = ImageFont.load_default(_TEXT), ImageFont.load_default(_TITLE)
    captions = [[_caption(cell, font, side) for cell in row.cells] for row in rows]
    tops = [_GAP]
    for row, row_captions in zip(rows, captions, strict=True):
        title_height = 2 * _LINE if row.title else 0
        text_height = _LINE * max(map(len, row_captions), default=0)
        tops.append(tops[-1] + title_height + side + _GAP + text_height + _GAP)
    columns = max((len(row.cells) for row in rows), default=0)
    sheet = Image.new("RGB", (_GAP + columns * (side + _GAP), tops[-1]), _PAPER)
    pen = ImageDraw.Draw(sheet)
    for row, row_captions, top in zip(rows, captions, tops, strict=False):
        if row.title:
            pen.text((_GAP, top), row.title, fill=_INK, font=title_font)
            top += 2 * _LINE
        for i, (cell, lines) in enumerate(zip(row.cells, row_captions, strict=True)):
            left = _GAP + i * (side + _GAP)
            try:
                image = ImageOps.pad(read_rgb(cell.image), (side, side), color=_PAPER)
                sheet.paste(image, (left, top))
            except ImageError as error:
                pen.text((left, top), _clip(str(error), font, side), fill=_PALE, font=font)
            for n, (line, colour) in enumerate(lines):
                place = (left, top + side + _GAP // 2 + n * _LINE)
                pen.text(place, line, fill=colour, font=font)
    return sheet


def require_preview_path(path: Path) -> None:
    """Refuses to overwrite a file that `save_preview` did not write, such as a dataset's image.

    Raises:
        StoreError: the path exists and is not a preview.
    """
    with files.storage_errors(f"cannot write {path}"):
        if not path.exists():
            return
    try:
        with Image.open(path) as image:
            is_preview = image.getexif().get(_SOFTWARE) == _PREVIEW
    except Exception:  # any file, damaged in any way
        is_preview = False
    if not is_preview:
        raise StoreError(
            f"{path} exists, and is not a picture that train preview drew; "
            "name another file, or remove it"
        )


def save_preview(rows: Sequence[GridRow], path: Path) -> None:
    """Draws a grid and writes it atomically to a file with one of `SUFFIXES`.

    Raises:
        StoreError: the file cannot be written, or would replace a file that is not a preview.
    """
    require_preview_path(path)
    sheet = draw_grid(rows)
    exif = Image.Exif()
    exif[_SOFTWARE] = _PREVIEW
    kind = Image.registered_extensions()[path.suffix.lower()]
    with files.storage_errors(f"cannot write {path}"):
        files.make_folder(path.parent)
        files.replace_file(path, lambda aside: sheet.save(aside, kind, exif=exif))


def _caption(cell: GridCell, font: _Font, width: int) -> list[tuple[str, tuple[int, int, int]]]:
    """The lines below an image, each with its colour."""
    return [(line, _INK) for line in _wrap(cell.text, font, width)] + [
        (line, _PALE) for line in _wrap(cell.note, font, width)
    ]


def _wrap(text: str, font: _Font, width: int) -> list[str]:
    """Breaks a text into lines of at most `width` pixels; an ellipsis marks what is left out."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    if len(lines) > _MOST_LINES:
        lines = [*lines[: _MOST_LINES - 1], f"{lines[_MOST_LINES - 1]} …"]
    return [_clip(line, font, width) for line in lines]


def _clip(line: str, font: _Font, width: int) -> str:
    while len(line) > 1 and font.getlength(line) > width:
        line = line[:-2] + "…"
    return line


_CARD_SIDE = 320  # pixels
_QUALITY = 82
_PAGE_STYLE = """
:root { color-scheme: light dark; font: 15px/1.45 system-ui, sans-serif; }
body { max-width: 76rem; margin: 1.5rem auto; padding: 0 1rem; }"""
_STYLE = """
h1 { font-size: 1.3rem; }
ol { list-style: none; padding: 0; display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fill, minmax(12rem, 1fr)); }
li { border: 1px solid #8884; border-radius: .6rem; overflow: hidden; }
img, .none { display: block; width: 100%; aspect-ratio: 1; object-fit: cover; background: #8882; }
.none { display: grid; place-items: center; padding: 1rem; box-sizing: border-box; }
p { margin: 0; padding: 0 .7rem; overflow-wrap: anywhere; font-size: .85rem; opacity: .75; }
p:first-of-type { font-weight: 700; opacity: 1; padding-top: .5rem; }
p:last-of-type { padding-bottom: .6rem; }
"""


@dataclass(frozen=True)
class ContactCard:
    """An image and the lines of text below it."""

    image: ImageLike
    lines: tuple[str, ...]


def contact_page(title: str, cards: Sequence[ContactCard]) -> str:
    """Returns an HTML document; an unreadable image is replaced by the reason."""
    heading = html.escape(title)
    return (
        f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta name="generator" content="rsicd-embed">\n'
        f"<title>{heading}</title>\n<style>{_PAGE_STYLE}{_STYLE}</style>\n<h1>{heading}</h1>\n"
        f"{_list(cards)}</html>\n"
    )


def contact_fragment(title: str, cards: Sequence[ContactCard]) -> str:
    """Returns the same as part of another document, such as a notebook, with styles of its own."""
    heading = f"<h1>{html.escape(title)}</h1>\n" if title else ""
    return f"<div><style>@scope {{{_STYLE}}}</style>\n{heading}{_list(cards)}</div>\n"


def _list(cards: Sequence[ContactCard]) -> str:
    items = "\n".join(map(_list_item, cards)) or "<li><p>no hits</p></li>"
    return f"<ol>\n{items}\n</ol>\n"


def save_contact_page(title: str, cards: Sequence[ContactCard], path: Path) -> None:
    """Writes `contact_page` to a file atomically.

    Raises:
        StoreError: the file cannot be written.
    """
    # File names may contain lone surrogates, which UTF-8 cannot represent.
    data = contact_page(title, cards).encode("utf-8", "replace")
    with files.storage_errors(f"cannot write {path}"):
        files.make_folder(path.parent)
        files.replace_file(path, lambda aside: aside.write_bytes(data))


def _list_item(card: ContactCard) -> str:
    lines = "".join(f"<p>{html.escape(line)}</p>" for line in card.lines)
    alt = html.escape(card.lines[-1] if card.lines else "", quote=True)
    try:
        picture = f'<img alt="{alt}" src="{_data_uri(card.image)}">'
    except ImageError as error:
        picture = f'<span class="none">{html.escape(str(error))}</span>'
    return f"<li>{picture}{lines}</li>"


def _data_uri(image: ImageLike) -> str:
    picture = read_rgb(image)
    if max(picture.size) > _CARD_SIDE:
        picture = picture.copy()  # it may be the caller's
        side = (_CARD_SIDE, _CARD_SIDE)
        picture.thumbnail(side, Image.Resampling.LANCZOS, reducing_gap=None)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
