"""Pictures for people: grids of captioned images, and contact sheets of search hits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rsicd_embed.plugins import lazy_exports

if TYPE_CHECKING:
    from rsicd_embed.pictures.sheets import GridCell, GridRow, draw_grid
else:
    __getattr__, __dir__ = lazy_exports(
        __name__,
        {"rsicd_embed.pictures.sheets": ("GridCell", "GridRow", "draw_grid")},
    )

__all__ = ["GridCell", "GridRow", "draw_grid"]
