"""What was found in a picture, drawn over it: the map, the best patches, and what colours mean."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from rsicd_embed import files
from rsicd_embed.find import heatmap
from rsicd_embed.find.finding import Finding

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
# A picture for people: larger ones are made smaller.
LONGEST_SIDE = 2048
_SMALLEST_SIDE = 480  # smaller ones are made larger, so that there is something to see
_FRAMED = 3
_INK, _PAPER = (240, 240, 240), (24, 24, 24)


def draw(image: Image.Image, found: Finding) -> Image.Image:
    """The picture under its map, the best patches framed, and a scale below.

    Args:
        image: the RGB picture that was searched.
        found: what was found in it.
    """
    longest = max(image.size)
    scale = min(LONGEST_SIDE, max(longest, _SMALLEST_SIDE)) / longest
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    picture = image.resize(size, Image.Resampling.LANCZOS)
    over = heatmap.layer(found.map(), size)
    picture.paste(over, mask=over.getchannel("A"))
    _frame(picture, found, scale)
    strip = _scale(size[0], found)
    whole = Image.new("RGB", (size[0], size[1] + strip.height), _PAPER)
    whole.paste(picture, (0, 0))
    whole.paste(strip, (0, size[1]))
    return whole


def save(image: Image.Image, found: Finding, path: Path) -> None:
    """Writes `draw` to a file with one of `SUFFIXES`, in one step.

    Raises:
        StoreError: the file cannot be written.
    """
    drawn = draw(image, found)
    kind = Image.registered_extensions()[path.suffix.lower()]
    with files.storage_errors(f"cannot write {path}"):
        files.make_folder(path.parent)
        files.write_file(path, lambda aside: drawn.save(aside, kind))
        files.sync_folder(path.parent)


def _frame(picture: Image.Image, found: Finding, scale: float) -> None:
    pen = ImageDraw.Draw(picture)
    line = max(2, round(min(picture.size) / 300))
    font = ImageFont.load_default(max(12, 6 * line))
    # The best one last, above the others.
    for rank, i in reversed(_apart(found)):
        left, top, right, bottom = (round(float(one) * scale) for one in found.boxes[i])
        box = (left, top, right - 1, bottom - 1)
        pen.rectangle(box, outline=(0, 0, 0), width=line + 2)
        pen.rectangle(box, outline=(255, 255, 255), width=line)
        label = pen.textbbox((left + line, top + line), str(rank), font=font)
        pen.rectangle((left, top, label[2] + line, label[3] + line), fill=(255, 255, 255))
        pen.text((left + line, top + line), str(rank), fill=(0, 0, 0), font=font)


def _apart(found: Finding) -> list[tuple[int, int]]:
    """Rank and place of the best patches, without those centred in a better one."""
    chosen: list[tuple[int, int]] = []
    for rank, i in enumerate(found.order().tolist(), start=1):
        left, top, right, bottom = found.boxes[i]
        x, y = (left + right) / 2, (top + bottom) / 2
        better = [found.boxes[j] for _, j in chosen]
        if not any(a <= x <= c and b <= y <= d for a, b, c, d in better):
            chosen.append((rank, i))
        if len(chosen) == _FRAMED:
            break
    return chosen


def _scale(width: int, found: Finding) -> Image.Image:
    """The text that was looked for, and the colours from unlikely to likely."""
    font = ImageFont.load_default(14)
    bar, line, gap = min(160, max(1, width // 3)), 20, 8
    strip = Image.new("RGB", (width, 2 * gap + line), _PAPER)
    pen = ImageDraw.Draw(strip)
    ramp = heatmap.colours(np.tile(np.linspace(0, 1, bar), (10, 1)))
    low, high = ("probability 0", "1") if len(found.texts) > 1 else ("cosine: least", "most")
    right = width - gap - round(font.getlength(high))
    strip.paste(Image.fromarray(ramp), (right - gap // 2 - bar, gap + 4))
    pen.text((right, gap), high, fill=_INK, font=font)
    left = right - gap - bar - round(font.getlength(low))
    pen.text((left, gap), low, fill=_INK, font=font)
    text = found.texts[0]
    while text and font.getlength(text) > left - 2 * gap:
        text = text[:-2] + "…" if len(text) > 2 else ""
    pen.text((gap, gap), text, fill=_INK, font=font)
    return strip
