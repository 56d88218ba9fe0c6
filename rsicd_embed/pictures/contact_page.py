"""Search hits as one HTML file that brings its pictures along: a contact sheet to keep or send."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageOps

from rsicd_embed import files
from rsicd_embed.errors import ImageError
from rsicd_embed.images import ImageLike, read_rgb
from rsicd_embed.pictures.contact_sheet import SheetHit

_SIDE = 320
_QUALITY = 82
_STYLE = """
:root { color-scheme: light dark; font: 15px/1.45 system-ui, sans-serif; }
body { max-width: 76rem; margin: 1.5rem auto; padding: 0 1rem; }
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


def page(title: str, hits: Sequence[SheetHit]) -> str:
    """An HTML document; a picture that cannot be read becomes its reason."""
    shown = html.escape(title)
    cards = "\n".join(map(_card, hits)) or "<li><p>no hits</p></li>"
    return (
        f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{shown}</title>\n<style>{_STYLE}</style>\n<h1>{shown}</h1>\n"
        f"<ol>\n{cards}\n</ol>\n</html>\n"
    )


def save(title: str, hits: Sequence[SheetHit], path: Path) -> None:
    """Writes `page`, in one step.

    Raises:
        StoreError: the file cannot be written.
    """
    # A lone surrogate, which a file name may have, cannot be written in UTF-8.
    data = page(title, hits).encode("utf-8", "replace")
    with files.storage_errors(f"cannot write {path}"):
        files.make_folder(path.parent)
        files.write_file(path, lambda aside: aside.write_bytes(data))
        files.sync_folder(path.parent)


def _card(hit: SheetHit) -> str:
    lines = "".join(f"<p>{html.escape(line)}</p>" for line in hit.lines)
    alt = html.escape(hit.lines[-1] if hit.lines else "", quote=True)
    try:
        picture = f'<img alt="{alt}" src="{_data_uri(hit.image)}">'
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
