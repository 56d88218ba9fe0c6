"""What a store should hold after each of a random but repeatable series of changes."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa

from rsicd_embed.records import Provenance
from rsicd_embed.stores.base import VectorStore, require_versioned
from rsicd_embed.testing.stores.sample_rows import DIM, MADE_BY, batch, stored, unit

OTHER = Provenance("other", MADE_BY.fingerprint.replace("dim:", "dim:1"), DIM - 2)
_IDS = 400
_LABELS = ("beach", "l'étang", None, "a\nb", "")
_LABEL = "label"
_TAGS = ("first", "second")
_TOLERANCE = 2e-6

# The attributes of a row; those that are null are left out.
Row = Mapping[str, object]


class MismatchError(AssertionError):
    """A store does not hold, or find, what it should."""


@dataclass(frozen=True)
class Content:
    """One state: whose vectors, and the rows by id."""

    provenance: Provenance = MADE_BY
    rows: Mapping[str, Row] = field(default_factory=dict)


@dataclass(frozen=True)
class StoreState:
    """The newest content, and what tags keep."""

    now: Content = Content()
    tags: Mapping[str, Content] = field(default_factory=dict)


@dataclass(frozen=True)
class StoreChange:
    """One call: its name, and what it is given."""

    kind: str
    name: str = ""
    ids: tuple[str, ...] = ()
    rows: pa.RecordBatch | None = None
    provenance: Provenance = MADE_BY

    def run(self, store: VectorStore) -> None:
        """Makes the change."""
        kept = require_versioned(store)
        if self.kind == "upsert":
            store.upsert([self.rows])
        elif self.kind == "delete":
            store.delete(self.ids)
        elif self.kind == "replace":
            kept.replace([self.rows], self.provenance)
        elif self.kind == "optimize":
            store.optimize()
        elif self.kind == "drop_columns":
            store.drop_columns([self.name])
        else:
            getattr(kept, self.kind)(self.name)

    def apply(self, state: StoreState) -> StoreState:
        """What should come of it."""
        now, tags = state.now, dict(state.tags)
        if self.kind == "upsert":
            assert self.rows is not None
            now = replace(now, rows={**now.rows, **_rows_of(self.rows)})
        elif self.kind == "delete":
            left = {one: row for one, row in now.rows.items() if one not in self.ids}
            now = replace(now, rows=left)
        elif self.kind == "drop_columns":
            left = {
                one: {name: value for name, value in row.items() if name != self.name}
                for one, row in now.rows.items()
            }
            now = replace(now, rows=left)
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
    """The change that follows in step `step` of the series `seed`."""
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
    made_by = state.now.provenance
    if kind == "replace":
        made_by = OTHER if made_by == MADE_BY else MADE_BY
    ids = [f"i{i}" for i in chance.sample(range(_IDS), chance.randint(1, 120))]
    return StoreChange(kind, rows=_batch(ids, made_by.dim, step, chance), provenance=made_by)


def match(store: VectorStore, allowed: list[StoreState], seed: int) -> StoreState:
    """The one of some states that a store is in, searches included.

    Raises:
        MismatchError: it is in none, or finds something else than it holds.
    """
    kept = require_versioned(store)
    found = Content(store.provenance, _plain(stored(store)))
    tags: dict[str, Content] = {}
    for name in kept.tags():
        with kept.as_of(name) as old:
            tags[name] = Content(old.provenance, _plain(stored(old)))
    state = StoreState(found, tags)
    if state not in allowed:
        raise MismatchError("; or ".join(_difference(one, state) for one in allowed))
    if len(store) != len(found.rows):
        raise MismatchError(f"{len(store)} rows are counted, {len(found.rows)} are there")
    _match_search(store, found, seed)
    return state


def _match_search(store: VectorStore, content: Content, seed: int) -> None:
    queries = unit(3, content.provenance.dim, seed=seed)
    ids = sorted(content.rows)
    hits = store.search(queries, k=5)
    if not ids:
        if hits.num_rows:
            raise MismatchError(f"{hits.num_rows} hits in an empty store")
        return
    matrix = np.stack([np.frombuffer(_bytes(content.rows[one]), np.float32) for one in ids])
    scores = queries @ matrix.T
    best = -np.sort(-scores, axis=1)[:, :5]
    told = hits["score"].to_numpy().reshape(3, -1)
    if told.shape != best.shape or np.abs(told - best).max() > _TOLERANCE:
        raise MismatchError(f"expected the scores {best.tolist()}, found {told.tolist()}")
    at = [ids.index(one) for one in hits["id"].to_pylist()]
    if np.abs(scores[hits["query"].to_numpy(), at] - told.ravel()).max() > _TOLERANCE:
        raise MismatchError("hits have the scores of other rows")


def _bytes(row: Row) -> bytes:
    vector = row["vector"]
    assert isinstance(vector, bytes)
    return vector


def _batch(ids: list[str], dim: int, step: int, chance: random.Random) -> pa.RecordBatch:
    vectors = unit(len(ids), dim, seed=step)
    if len(ids) > 4:
        vectors[1] = vectors[3]  # a graph's equal rows share a node
    columns: dict[str, object] = {"n": pa.array([step] * len(ids), pa.int64())}
    if chance.random() < 0.5:
        columns[_LABEL] = pa.array([chance.choice(_LABELS) for _ in ids], pa.string())
    return batch(ids, vectors, **columns)


def _rows_of(rows: pa.RecordBatch) -> dict[str, Row]:
    listed = rows.to_pylist()
    return _plain(
        {
            row["id"]: row | {"vector": np.array(row["vector"], np.float32).tobytes()}
            for row in listed
        }
    )


def _plain(rows: Mapping[str, Mapping[str, Any]]) -> dict[str, Row]:
    return {
        one: {name: value for name, value in row.items() if value is not None}
        for one, row in rows.items()
    }


def _difference(wanted: StoreState, found: StoreState) -> str:
    rows, others = wanted.now.rows, found.now.rows
    lost, extra = sorted(set(rows) - set(others)), sorted(set(others) - set(rows))
    changed = sorted(one for one in set(rows) & set(others) if rows[one] != others[one])
    tags = sorted(
        one for one in {**wanted.tags, **found.tags} if wanted.tags.get(one) != found.tags.get(one)
    )
    model = wanted.now.provenance != found.now.provenance
    return (
        f"of {len(rows)} rows {len(lost)} lost {lost[:3]}, {len(extra)} too many {extra[:3]}, "
        f"{len(changed)} changed {changed[:3]}, tags that differ {tags}, model differs {model}"
    )
