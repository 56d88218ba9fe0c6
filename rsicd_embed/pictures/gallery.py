"""Show hits with their pictures in a notebook."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from rsicd_embed.arguments import require_object
from rsicd_embed.pictures.sheets import ContactCard, contact_fragment
from rsicd_embed.records import python_rows

_HIDDEN = (
    *("query", "rank", "id", "score", "uri", "sha256", "object_etag", "width", "height"),
    "vector",
)


@dataclass(frozen=True)
class Gallery:
    """Hits that a notebook displays as a grid of pictures."""

    cards: tuple[ContactCard, ...]
    title: str = ""

    def _repr_html_(self) -> str:
        return contact_fragment(self.title, self.cards)

    def __repr__(self) -> str:
        return "\n".join("  ".join(card.lines) for card in self.cards) or "no hits"


def show(hits: pa.Table, *, title: str = "", columns: Sequence[str] | None = None) -> Gallery:
    """Displays rows of a store with their pictures, in a notebook.

    Args:
        hits: rows with the columns `id` and `uri`, as searches return them.
        title: heading of the grid.
        columns: attributes below each picture; None for all.

    Returns:
        An object that notebooks display; its text lists the hits.

    Raises:
        ArgumentError: `hits` is not an Arrow table.
    """
    require_object(hits, ("column_names", "to_batches"), "an Arrow table of hits", "store.search")
    return Gallery(tuple(_card(row, columns) for row in python_rows(hits)), title)


def _card(row: dict[str, Any], columns: Sequence[str] | None) -> ContactCard:
    first = "  ".join(
        f"{row[name]:+.4f}" if name == "score" else str(row[name])
        for name in ("rank", "score")
        if name in row
    )
    shown = [name for name in row if name not in _HIDDEN] if columns is None else columns
    attributes = (f"{name}={row[name]}" for name in shown if row[name] is not None)
    lines = (first, *attributes, str(row["id"]))
    return ContactCard(row.get("uri") or b"", tuple(filter(None, lines)))
