"""Draw a finding: smooth heat maps, and overlays with the best patches and a legend."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from rsicd_embed import files
from rsicd_embed.find.finding import Finding

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
LONGEST_SIDE = 2048  # larger images are scaled down
_SMALLEST_SIDE = 480  # smaller images are scaled up
_FRAMED = 3
_INK, _PAPER = (240, 240, 240), (24, 24, 24)

_CELLS = 256  # on a map's longer side: less than any useful patch
# From low to high, evenly spaced: dark violet, purple, red, orange, pale yellow.
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
_BORDER = 0.05  # weight of a patch at its border; 1 at its centre
_OPACITY = (0.0, 0.65)  # for value 0, and from _OPAQUE_FROM on
_OPAQUE_FROM = 0.6


def similarity_map(finding: Finding) -> np.ndarray:
    """Computes a map of an image, float32 (rows, columns) in [0, 1].

    The values are probabilities, or scores scaled to [0, 1] if there are no alternative texts.
    """
    values = finding.probabilities
    if len(finding.texts) == 1:
        least, most = float(finding.scores.min()), float(finding.scores.max())
        values = (finding.scores - least) / max(most - least, 1e-6)
    return smooth(finding.boxes, values, *finding.size)


def smooth(boxes: np.ndarray, values: np.ndarray, width: int, height: int) -> np.ndarray:
    """Averages the values of overlapping patches, weighted by the distance to their centres.

    Args:
        boxes: int (n, 4): left, top, right, bottom, in pixels; together they cover the image.
        values: float (n,).
        width: width of the image, in pixels.
        height: height of the image, in pixels.

    Returns:
        float32 (rows, columns) with the image's aspect ratio, at most 256 on a side, within the
        range of `values`.
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
    mean: np.ndarray = (total / weight).astype(np.float32)
    return mean


def _tent(start: float, stop: float, length: int) -> tuple[np.ndarray, slice]:
    """Weights of the cells from `start` to `stop`, 1 in the middle, and the slice of the cells."""
    first = min(int(start), length - 1)
    last = max(first + 1, min(int(np.ceil(stop)), length))
    middle, half = (start + stop) / 2, max((stop - start) / 2, 0.5)
    distance = np.abs(np.arange(first, last) + 0.5 - middle) / half
    return np.maximum(1 - distance, _BORDER), slice(first, last)


def colours(values: np.ndarray) -> np.ndarray:
    """Maps values in [0, 1] of any shape (…) to colours, uint8 (…, 3)."""
    position = np.clip(values, 0, 1) * (len(_COLOURS) - 1)
    stops = np.arange(len(_COLOURS))
    channels = [np.interp(position, stops, _COLOURS[:, i]) for i in range(3)]
    rgb: np.ndarray = np.rint(np.stack(channels, axis=-1)).astype(np.uint8)
    return rgb


def layer(values: np.ndarray, size: tuple[int, int]) -> Image.Image:
    """Renders a map as an RGBA image of (width, height), transparent where values are 0.

    Values are interpolated before they are coloured, so that the layer is smooth.
    """
    resized = Image.fromarray(values.astype(np.float32)).resize(size, Image.Resampling.BICUBIC)
    clipped = np.clip(np.asarray(resized), 0, 1)
    opacity = np.interp(clipped, (0, _OPAQUE_FROM), _OPACITY)
    alpha = np.rint(255 * opacity).astype(np.uint8)
    return Image.fromarray(np.dstack([colours(clipped), alpha]), "RGBA")


def draw(image: Image.Image, finding: Finding) -> Image.Image:
    """Draws the heat map and the frames of the best patches over an image, and a legend below.

    Args:
        image: the RGB image.
        finding: the scores of its patches.
    """
    longest = max(image.size)
    scale = min(LONGEST_SIDE, max(longest, _SMALLEST_SIDE)) / longest
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    picture = image.resize(size, Image.Resampling.LANCZOS)
    heat = layer(similarity_map(finding), size)
    picture.paste(heat, mask=heat.getchannel("A"))
    _frame(picture, finding, scale)
    legend = _legend(size[0], finding)
    whole = Image.new("RGB", (size[0], size[1] + legend.height), _PAPER)
    whole.paste(picture, (0, 0))
    whole.paste(legend, (0, size[1]))
    return whole


def save(image: Image.Image, finding: Finding, path: Path) -> None:
    """Writes `draw` to a file with one of `SUFFIXES`, atomically.

    Raises:
        StoreError: the file cannot be written.
    """
    drawing = draw(image, finding)
    kind = Image.registered_extensions()[path.suffix.lower()]
    with files.storage_errors(f"cannot write {path}"):
        files.make_folder(path.parent)
        files.replace_file(path, lambda aside: drawing.save(aside, kind))


def _frame(picture: Image.Image, finding: Finding, scale: float) -> None:
    pen = ImageDraw.Draw(picture)
    line = max(2, round(min(picture.size) / 300))
    font = ImageFont.load_default(max(12, 6 * line))
    # The best patch is drawn last, above the others.
    for rank, i in reversed(_separate_patches(finding)):
        left, top, right, bottom = (round(float(edge) * scale) for edge in finding.boxes[i])
        box = (left, top, right - 1, bottom - 1)
        pen.rectangle(box, outline=(0, 0, 0), width=line + 2)
        pen.rectangle(box, outline=(255, 255, 255), width=line)
        label = pen.textbbox((left + line, top + line), str(rank), font=font)
        pen.rectangle((left, top, label[2] + line, label[3] + line), fill=(255, 255, 255))
        pen.text((left + line, top + line), str(rank), fill=(0, 0, 0), font=font)


def _separate_patches(finding: Finding) -> list[tuple[int, int]]:
    """Rank and index of the best patches, without those centred in a better one."""
    chosen: list[tuple[int, int]] = []
    for rank, i in enumerate(finding.order().tolist(), start=1):
        left, top, right, bottom = finding.boxes[i]
        x, y = (left + right) / 2, (top + bottom) / 2
        better = [finding.boxes[j] for _, j in chosen]
        if not any(a <= x <= c and b <= y <= d for a, b, c, d in better):
            chosen.append((rank, i))
        if len(chosen) == _FRAMED:
            break
    return chosen


def _legend(width: int, finding: Finding) -> Image.Image:
    """The text, and the colours from low to high."""
    font = ImageFont.load_default(14)
    bar, line, gap = min(160, max(1, width // 3)), 20, 8
    legend = Image.new("RGB", (width, 2 * gap + line), _PAPER)
    pen = ImageDraw.Draw(legend)
    ramp = colours(np.tile(np.linspace(0, 1, bar), (10, 1)))
    low, high = ("probability 0", "1") if len(finding.texts) > 1 else ("cosine: least", "most")
    right = width - gap - round(font.getlength(high))
    legend.paste(Image.fromarray(ramp), (right - gap // 2 - bar, gap + 4))
    pen.text((right, gap), high, fill=_INK, font=font)
    left = right - gap - bar - round(font.getlength(low))
    pen.text((left, gap), low, fill=_INK, font=font)
    text = finding.texts[0]
    while text and font.getlength(text) > left - 2 * gap:
        text = text[:-2] + "…" if len(text) > 2 else ""
    pen.text((gap, gap), text, fill=_INK, font=font)
    return legend
