"""The similarities of a query: each text or image embedded once, then scored row by row."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from rsicd_embed.embedder.base import Embedder
from rsicd_embed.query.calls import FUNCTIONS, TEXT, Call
from rsicd_embed.query.session import function
from rsicd_embed.records import vector_array, vector_matrix
from rsicd_embed.stores.queries import unit_queries
from rsicd_embed.stores.scoring import cosines_with


class Similarities:
    """What a query compares rows with.

    Args:
        calls: those in the query.
        dim: length of a vector.
        of_scores: SQL sees a row's scores in the place of its vector; else the vector itself.
    """

    def __init__(self, calls: Sequence[Call], dim: int, *, of_scores: bool) -> None:
        asked = dict.fromkeys((call.function, call.argument) for call in calls)
        self._places = {one: place for place, one in enumerate(asked)}
        self._queries = np.zeros((len(asked), dim))
        self.of_scores = of_scores
        self.type = pa.list_(pa.float32(), len(asked) if of_scores else dim)

    @property
    def texts(self) -> list[str]:
        """The distinct texts."""
        return [argument for name, argument in self._places if name == TEXT]

    def embed(self, embedder: Embedder) -> None:
        """Embeds each distinct text and image, before the first row is read."""
        # One by one, as `search` does: in a batch the last bits may differ.
        vectors = [
            embedder.embed_texts([argument]) if name == TEXT else embedder.embed_images([argument])
            for name, argument in self._places
        ]
        self._queries = unit_queries(np.concatenate(vectors), self._queries.shape[1])

    def column(self, vectors: pa.Array) -> pa.Array:
        """Vectors of rows → for each row its scores with all that was asked, as one list."""
        matrix = vector_matrix(vectors)
        return vector_array(np.stack([cosines_with(matrix, one) for one in self._queries], axis=1))

    def functions(self) -> list[Any]:
        """SQL's functions of what stands in the column of vectors, and a string."""
        return [
            function(name, partial(self._of_rows, name), [self.type, pa.string()])
            for name in FUNCTIONS
        ]

    def _of_rows(self, name: str, rows: pa.Array, arguments: pa.Array) -> pa.Array:
        valid = np.asarray(rows.is_valid())
        scores = np.zeros(len(rows), dtype=np.float32)
        if valid.any():  # an outer join makes rows without a vector
            matrix = vector_matrix(rows.drop_null())
            place = self._places[name, arguments[0].as_py()]
            scores[valid] = (
                matrix[:, place] if self.of_scores else cosines_with(matrix, self._queries[place])
            )
        return pa.array(scores, mask=~valid)


def placeholders() -> list[Any]:
    """SQL's functions as a user calls them, of a string alone, for planning only."""

    def never(arguments: pa.Array) -> pa.Array:
        raise AssertionError("a placeholder is not computed")

    return [function(name, never, [pa.string()], volatile=True) for name in FUNCTIONS]
