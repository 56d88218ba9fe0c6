"""The expected content of a store after each of a reproducible series of random changes."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa

from rsicd_embed.records import Provenance
from rsicd_embed.stores.base import VectorStore, require_versioned
from rsicd_embed.testing.stores import DIM, MADE_BY, batch, stored, unit

OTHER = Provenance("other", MADE_BY.fingerprint.replace("dim:", "dim:1"), DIM - 2)
_IDS = 400
_LABELS = ("beach", "l'étang", None, "a\nb", "")
_LABEL = "label"
_TAGS = ("first", "second")
_TOLERANCE = 2e-6

# The columns of a row, without nulls.
Row = Mapping[str, object]


class MismatchError(AssertionError):
    """A store has other rows, or other hits, than expected."""


@dataclass(frozen=True)
class Content:
    """One state: the model of its vectors, and its rows by id."""

    provenance: Provenance = MADE_BY
    rows: Mapping[str, Row] = field(default_factory=dict)


@dataclass(frozen=True)
class StoreState:
    """The newest content, and that of each tag."""

    now: Content = Content()
    tags: Mapping[str, Content] = field(default_factory=dict)


@dataclass(frozen=True)
class StoreChange:
    """A method call: its name and arguments."""

    kind: str
    name: str = ""
    ids: tuple[str, ...] = ()
    rows: pa.RecordBatch | None = None
    provenance: Provenance = MADE_BY

    def run(self, store: VectorStore) -> None:
        """Applies the change to a store."""
        versioned = require_versioned(store)
        if self.kind == "upsert":
            store.upsert([self.rows])
        elif self.kind == "delete":
            store.delete(self.ids)
        elif self.kind == "replace":
            versioned.replace([self.rows], self.provenance)
        elif self.kind == "optimize":
            store.optimize()
        elif self.kind == "drop_columns":
            store.drop_columns([self.name])
        else:
            getattr(versioned, self.kind)(self.name)

    def apply(self, state: StoreState) -> StoreState:
        """Applies the change to the model."""
        now, tags = state.now, dict(state.tags)
        if self.kind == "upsert":
            assert self.rows is not None
            now = replace(now, rows={**now.rows, **_rows_of(self.rows)})
        elif self.kind == "delete":
            rows = {id_: row for id_, row in now.rows.items() if id_ not in self.ids}
            now = replace(now, rows=rows)
        elif self.kind == "drop_columns":
            rows = {
                id_: {name: value for name, value in row.items() if name != self.name}
                for id_, row in now.rows.items()
            }
            now = replace(now, rows=rows)
        elif self.kind == "replace":
            assert self.rows is not None
            now = Content(self.provenance, _rows_of(self.rows))
        elif self.kind == "restore":
            now = tags[self.name]
        elif self.kind == "tag":
            tags[self.name] = now
        elif self.kind == "untag":
            del tags[self.name]
        return StoreState(now, tags)


def plan(state: StoreState, seed: int, step: int) -> StoreChange:
    """The change in step `step` of the series `seed`."""
    chance = random.Random(f"{seed}:{step}")
    kinds = ["upsert"] * 8 + ["delete"] * 3 + ["optimize"] * 2 + ["replace"]
    kinds += ["tag"] * 2 if len(state.tags) < len(_TAGS) else []
    kinds += ["untag", "restore"] if state.tags else []
    kinds += ["drop_columns"] if any(_LABEL in row for row in state.now.rows.values()) else []
    kind = chance.choice(kinds)
    if kind == "drop_columns":
        return StoreChange(kind, _LABEL)
    if kind in ("untag", "restore"):
        return StoreChange(kind, chance.choice(sorted(state.tags)))
    if kind == "tag":
        return StoreChange(kind, chance.choice(sorted(set(_TAGS) - set(state.tags))))
    if kind == "delete":
        known = sorted(state.now.rows)
        count = chance.randint(1, 20)
        ids = [*chance.sample(known, min(len(known), count)), "unknown"]
        return StoreChange(kind, ids=tuple(ids))
    provenance = state.now.provenance
    if kind == "replace":
        provenance = OTHER if provenance == MADE_BY else MADE_BY
    ids = [f"i{i}" for i in chance.sample(range(_IDS), chance.randint(1, 120))]
    return StoreChange(kind, rows=_batch(ids, provenance.dim, step, chance), provenance=provenance)


def match(store: VectorStore, allowed: list[StoreState], seed: int) -> StoreState:
    """Returns the allowed state that a store is in, after checking its searches.

    Raises:
        MismatchError: the store is in none of the states, or its hits do not fit its rows.
    """
    versioned = require_versioned(store)
    content = Content(store.provenance, _plain(stored(store)))
    tags: dict[str, Content] = {}
    for name in versioned.tags():
        with versioned.as_of(name) as old:
            tags[name] = Content(old.provenance, _plain(stored(old)))
    state = StoreState(content, tags)
    if state not in allowed:
        raise MismatchError("; or ".join(_difference(expected, state) for expected in allowed))
    if len(store) != len(content.rows):
        raise MismatchError(f"expected len() to be {len(content.rows)}, found {len(store)}")
    _match_search(store, content, seed)
    return state


def _match_search(store: VectorStore, content: Content, seed: int) -> None:
    queries = unit(3, content.provenance.dim, seed=seed)
    ids = sorted(content.rows)
    hits = store.search(queries, k=5)
    if not ids:
        if hits.num_rows:
            raise MismatchError(f"{hits.num_rows} hits in an empty store")
        return
    matrix = np.stack([np.frombuffer(_bytes(content.rows[id_]), np.float32) for id_ in ids])
    scores = queries @ matrix.T
    best = -np.sort(-scores, axis=1)[:, :5]
    reported = hits["score"].to_numpy().reshape(3, -1)
    if reported.shape != best.shape or np.abs(reported - best).max() > _TOLERANCE:
        raise MismatchError(f"expected the scores {best.tolist()}, found {reported.tolist()}")
    rows = [ids.index(id_) for id_ in hits["id"].to_pylist()]
    if np.abs(scores[hits["query"].to_numpy(), rows] - reported.ravel()).max() > _TOLERANCE:
        raise MismatchError("hits have the scores of other rows")


def _bytes(row: Row) -> bytes:
    vector = row["vector"]
    assert isinstance(vector, bytes)
    return vector


def _batch(ids: list[str], dim: int, step: int, chance: random.Random) -> pa.RecordBatch:
    vectors = unit(len(ids), dim, seed=step)
    if len(ids) > 4:
        vectors[1] = vectors[3]  # equal rows share a node of a graph
    columns: dict[str, object] = {"n": pa.array([step] * len(ids), pa.int64())}
    if chance.random() < 0.5:
        columns[_LABEL] = pa.array([chance.choice(_LABELS) for _ in ids], pa.string())
    return batch(ids, vectors, **columns)


def _rows_of(rows: pa.RecordBatch) -> dict[str, Row]:
    return _plain(
        {
            row["id"]: row | {"vector": np.array(row["vector"], np.float32).tobytes()}
            for row in rows.to_pylist()
        }
    )


def _plain(rows: Mapping[str, Mapping[str, Any]]) -> dict[str, Row]:
    return {
        id_: {name: value for name, value in row.items() if value is not None}
        for id_, row in rows.items()
    }


def _difference(expected: StoreState, actual: StoreState) -> str:
    rows, others = expected.now.rows, actual.now.rows
    lost, extra = sorted(set(rows) - set(others)), sorted(set(others) - set(rows))
    changed = sorted(id_ for id_ in set(rows) & set(others) if rows[id_] != others[id_])
    tags = sorted(
        name
        for name in {**expected.tags, **actual.tags}
        if expected.tags.get(name) != actual.tags.get(name)
    )
    model = expected.now.provenance != actual.now.provenance
    return (
        f"expected {len(rows)} rows; lost: {len(lost)} {lost[:3]}, extra: {len(extra)} "
        f"{extra[:3]}, changed: {len(changed)} {changed[:3]}, different tags: {tags}, "
        f"different model: {model}"
    )
