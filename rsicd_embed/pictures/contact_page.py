"""Write search hits as a contact sheet: one HTML file with the images inside."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageOps

from rsicd_embed import files
from rsicd_embed.errors import ImageError
from rsicd_embed.images import ImageLike, read_rgb

_SIDE = 320
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


def page(title: str, cards: Sequence[ContactCard]) -> str:
    """Returns an HTML document; an unreadable image is replaced by the reason."""
    heading = html.escape(title)
    return (
        f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{heading}</title>\n<style>{_PAGE_STYLE}{_STYLE}</style>\n<h1>{heading}</h1>\n"
        f"{_list(cards)}</html>\n"
    )


def fragment(title: str, cards: Sequence[ContactCard]) -> str:
    """Returns the same as part of another document, such as a notebook, with styles of its own."""
    heading = f"<h1>{html.escape(title)}</h1>\n" if title else ""
    return f"<div><style>@scope {{{_STYLE}}}</style>\n{heading}{_list(cards)}</div>\n"


def _list(cards: Sequence[ContactCard]) -> str:
    items = "\n".join(map(_item, cards)) or "<li><p>no hits</p></li>"
    return f"<ol>\n{items}\n</ol>\n"


def save(title: str, cards: Sequence[ContactCard], path: Path) -> None:
    """Writes `page` to a file atomically.

    Raises:
        StoreError: the file cannot be written.
    """
    # File names may contain lone surrogates, which UTF-8 cannot represent.
    data = page(title, cards).encode("utf-8", "replace")
    with files.storage_errors(f"cannot write {path}"):
        files.make_folder(path.parent)
        files.replace_file(path, lambda aside: aside.write_bytes(data))


def _item(card: ContactCard) -> str:
    lines = "".join(f"<p>{html.escape(line)}</p>" for line in card.lines)
    alt = html.escape(card.lines[-1] if card.lines else "", quote=True)
    try:
        picture = f'<img alt="{alt}" src="{_data_uri(card.image)}">'
    except ImageError as error:
        picture = f'<span class="none">{html.escape(str(error))}</span>'
    return f"<li>{picture}{lines}</li>"


def _data_uri(image: ImageLike) -> str:
    picture = read_rgb(image)
    if max(picture.size) > _SIDE:
        picture = ImageOps.contain(picture, (_SIDE, _SIDE), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
