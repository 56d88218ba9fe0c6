"""What is asked of a store, checked: query vectors, and how many rows for each."""

from __future__ import annotations

import math
import operator
import os

import numpy as np

from rsicd_embed.arguments import shown
from rsicd_embed.errors import QueryError

_MOST = 2**31 - 1  # ranks are int32
_SAFE = 1e100  # the squares of numbers up to it, and of their reciprocals, are float64


def unit_queries(queries: np.ndarray, dim: int) -> np.ndarray:
    """Queries (q, dim), or (dim,) for one, of any real type → float64 (q, dim) of unit norm.

    Raises:
        QueryError: another shape or type, or a query that is zero or not finite.
    """
    _require_embedded(queries)
    try:
        given = np.asarray(queries)
        real = given.dtype.kind in "fiu"
        could_overflow = given.dtype.itemsize > 4
        given = given.astype(np.float64, order="C") if real else given
    except (TypeError, ValueError) as error:
        raise QueryError(f"expected query vectors of numbers: {error}") from None
    if not real:
        raise QueryError(f"expected query vectors of real numbers, found dtype {given.dtype}")
    if given.ndim not in (1, 2) or given.shape[-1] != dim:
        raise QueryError(
            f"expected queries of shape (q, {dim}) or ({dim},), found {given.shape}; "
            "embed them with the model that made the store"
        )
    wide = given.reshape(-1, dim)
    if could_overflow:  # float32 could not
        _tame(wide)
    squares = np.vecdot(wide, wide)
    if len(squares) == 1 and 0 < (norm := math.sqrt(squares.item())) < math.inf:
        one: np.ndarray = wide / norm  # the same in fewer steps
        return one
    norms = np.sqrt(squares)
    usable = (norms > 0) & (norms < np.inf)
    if not usable.all():
        bad = int(usable.argmin())
        kind = "zero" if norms[bad] == 0 else "not finite"
        raise QueryError(f"query {bad} is {kind}: it has no direction to compare with")
    units: np.ndarray = wide / norms[:, None]
    return units


def _require_embedded(queries: object) -> None:
    """Refuses texts and images, which must be embedded first."""
    first = queries[0] if isinstance(queries, list | tuple) and queries else queries
    for kind, method in ((str, "embed_texts"), (os.PathLike, "embed_images")):
        if isinstance(first, kind):
            raise QueryError(
                f"expected query vectors, found {shown(first)}; embed it first: "
                f"store.search(embedder.{method}([{shown(first)}]))"
            )


def _tame(queries: np.ndarray) -> None:
    """Scales, in place, those whose squares would overflow or vanish."""
    largest = np.abs(queries).max(axis=1, initial=0.0)
    finite = (largest > 0) & (largest < np.inf)
    extreme = finite & ((largest > _SAFE) | (largest < 1 / _SAFE))
    queries[extreme] /= largest[extreme, None]


def require_k(k: int) -> int:
    """k as an int of at least 1, and at most as many rows as a store can rank.

    Raises:
        QueryError: it is not.
    """
    try:
        count = operator.index(k)
    except TypeError:
        count = 0
    if count < 1 or isinstance(k, bool):
        raise QueryError(f"expected k to be a whole number of at least 1, found {k!r}")
    return min(count, _MOST)
