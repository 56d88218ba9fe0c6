"""Values of overlapping patches → one smooth map → colours over the picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from rsicd_embed import files
from rsicd_embed.find.finding import Finding

# Longest side of a map. Its cells are smaller than any patch that tells something.
_CELLS = 256
# Colours from low to high, evenly spaced: dark violet, purple, red, orange, pale yellow.
_COLOURS = np.array(
    [
        (13, 8, 60),
        (84, 15, 109),
        (155, 38, 105),
        (213, 72, 66),
        (246, 128, 32),
        (250, 193, 50),
        (252, 253, 170),
    ],
    np.float32,
)
# A patch says most of its centre and least, but something, of its border.
_BORDER = 0.05
_OPACITY = (0.0, 0.65)  # where the value is 0, and from 0.6 on
_OPAQUE_FROM = 0.6


def smooth(boxes: np.ndarray, values: np.ndarray, width: int, height: int) -> np.ndarray:
    """The mean of the overlapping patches' values, each weighted by how near its centre is.

    Args:
        boxes: int (n, 4): left, top, right, bottom, in pixels; together they cover the picture.
        values: float (n,).
        width: of the picture, in pixels.
        height: likewise.

    Returns:
        float32 (rows, columns) of the picture's proportions, at most 256 a side; within the values'
        range.
    """
    scale = min(1.0, _CELLS / max(width, height))
    columns, rows = max(1, round(width * scale)), max(1, round(height * scale))
    total, weight = np.zeros((rows, columns)), np.zeros((rows, columns))
    stretch = np.array([columns / width, rows / height] * 2)
    for box, value in zip(boxes * stretch, values, strict=True):
        across, x = _tent(box[0], box[2], columns)
        down, y = _tent(box[1], box[3], rows)
        window = down[:, None] * across
        total[y, x] += window * value
        weight[y, x] += window
    found: np.ndarray = (total / weight).astype(np.float32)
    return found


def similarity_map(finding: Finding) -> np.ndarray:
    """float32 (rows, columns) in [0, 1], over the picture.

    Probabilities, if there are any; scores from the least to the greatest otherwise.
    """
    values = finding.probabilities
    if len(finding.texts) == 1:
        least, most = float(finding.scores.min()), float(finding.scores.max())
        values = (finding.scores - least) / max(most - least, 1e-6)
    return smooth(finding.boxes, values, *finding.size)


def colours(values: np.ndarray) -> np.ndarray:
    """Values in [0, 1] (…) → uint8 (…, 3)."""
    place = np.clip(values, 0, 1) * (len(_COLOURS) - 1)
    stops = np.arange(len(_COLOURS))
    channels = [np.interp(place, stops, _COLOURS[:, i]) for i in range(3)]
    found: np.ndarray = np.rint(np.stack(channels, axis=-1)).astype(np.uint8)
    return found


def layer(values: np.ndarray, size: tuple[int, int]) -> Image.Image:
    """A map with values in [0, 1] as an RGBA picture of that (width, height), clear where it is 0.

    It is made larger before it is coloured, so that it is smooth.
    """
    grown = Image.fromarray(values.astype(np.float32)).resize(size, Image.Resampling.BICUBIC)
    large = np.clip(np.asarray(grown), 0, 1)
    opacity = np.interp(large, (0, _OPAQUE_FROM), _OPACITY)
    alpha = np.rint(255 * opacity).astype(np.uint8)
    return Image.fromarray(np.dstack([colours(large), alpha]), "RGBA")


def _tent(start: float, stop: float, length: int) -> tuple[np.ndarray, slice]:
    """Weights of the cells from `start` to `stop`, 1 in the middle, and which cells these are."""
    first = min(int(start), length - 1)
    last = max(first + 1, min(int(np.ceil(stop)), length))
    middle, half = (start + stop) / 2, max((stop - start) / 2, 0.5)
    away = np.abs(np.arange(first, last) + 0.5 - middle) / half
    return np.maximum(1 - away, _BORDER), slice(first, last)


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
    over = layer(similarity_map(found), size)
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
    ramp = colours(np.tile(np.linspace(0, 1, bar), (10, 1)))
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
