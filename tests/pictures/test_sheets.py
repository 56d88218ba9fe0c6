"""Grids of captioned images: their size, titles, notes and unreadable images."""

from __future__ import annotations

import numpy as np
from PIL import Image

from rsicd_embed.pictures import GridCell, GridRow, draw_grid

from ..conftest import picture

SIDE, GAP = 100, 10


def cell_box(column: int, top: int) -> tuple[int, int, int, int]:
    left = GAP + column * (SIDE + GAP)
    return left, top, left + SIDE, top + SIDE


def test_size_grows_with_columns_titles_and_text() -> None:
    image = picture(0, (SIDE, SIDE))
    plain = draw_grid([GridRow([GridCell(image)] * 3)], SIDE)
    assert plain.width == GAP + 3 * (SIDE + GAP)
    titled = draw_grid([GridRow([GridCell(image)] * 3, title="beach")], SIDE)
    captioned = draw_grid([GridRow([GridCell(image, "a beach", note="0.3")] * 3)], SIDE)
    assert plain.height < titled.height
    assert plain.height < captioned.height
    assert draw_grid([]).size == (GAP, GAP)


def test_images_are_centred_in_their_cells() -> None:
    square, wide = picture(0, (SIDE, SIDE)), Image.new("RGB", (SIDE, SIDE // 2), "blue")
    sheet = draw_grid([GridRow([GridCell(square), GridCell(wide)])], SIDE)
    np.testing.assert_array_equal(sheet.crop(cell_box(0, GAP)), square.convert("RGB"))
    cell = sheet.crop(cell_box(1, GAP))
    assert cell.getpixel((50, 10)) == (255, 255, 255)
    assert cell.getpixel((50, 50)) == (0, 0, 255)


def test_unreadable_images_are_replaced_by_the_reason() -> None:
    sheet = draw_grid([GridRow([GridCell("missing.png")])], SIDE)
    cell = np.asarray(sheet.crop(cell_box(0, GAP)))
    assert 0 < (cell < 200).any(axis=-1).sum() < 1000  # some grey text, no image
