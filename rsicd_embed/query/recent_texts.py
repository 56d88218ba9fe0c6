"""Vectors of texts, of which the most recent are remembered.

Refining a query, or going to its next page, repeats the texts; embedding one takes as long as
searching 100,000 rows.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from threading import Lock
from weakref import WeakKeyDictionary

import numpy as np

from rsicd_embed.embedder.base import Embedder, prompted_vectors

_MOST = 1024  # texts per model, 4 KB each at most

_Recent = OrderedDict[tuple[tuple[str, ...], str], np.ndarray]
_recent: WeakKeyDictionary[Embedder, _Recent] = WeakKeyDictionary()
_mutex = Lock()


def text_vectors(
    model: Embedder, texts: Iterable[str], templates: tuple[str, ...]
) -> dict[str, np.ndarray]:
    """The float32 (dim,) unit vectors of texts; the new ones are embedded in one batch.

    Args:
        model: embeds the texts; it must be hashable, and give equal texts equal vectors.
        texts: the texts.
        templates: prompts that they are put into; see `prompted_vectors`.
    """
    with _mutex:
        recent = _recent.setdefault(model, OrderedDict())
        known = {text: recent.get((templates, text)) for text in texts}
    vectors = {text: vector for text, vector in known.items() if vector is not None}
    new = [text for text in known if text not in vectors]
    if new:
        vectors |= zip(new, prompted_vectors(model, new, templates), strict=True)
    with _mutex:
        for text, vector in vectors.items():
            recent[templates, text] = vector
            recent.move_to_end((templates, text))
        while len(recent) > _MOST:
            recent.popitem(last=False)
    return vectors
