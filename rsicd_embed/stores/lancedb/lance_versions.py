"""Tags and older versions of a LanceDB table."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from itertools import chain
from typing import Any

import pyarrow as pa

from rsicd_embed.errors import StoreError
from rsicd_embed.stores import opening
from rsicd_embed.stores.base import require_new_tag
from rsicd_embed.stores.rows import conform, with_attributes

KEEP = timedelta(hours=1)  # long enough for any search that still reads an old version


def tags(table: Any) -> dict[str, int]:
    """Tag → version."""
    return {name: int(tag["version"]) for name, tag in table.tags.list().items()}


def add_tag(table: Any, name: str, uri: str) -> None:
    """Gives the version that `table` is at a name; StoreError where the name is taken."""
    table.tags.create(require_new_tag(name, tags(table), uri), table.version)


def require_known(table: Any, name: str, uri: str) -> None:
    """StoreError where there is no such tag."""
    known = tags(table)
    if name not in known:
        raise StoreError(opening.no_version(uri, name, sorted(known)))


def number_of(table: Any, version: str, uri: str) -> int:
    """The version that a tag, or digits, mean.

    Raises:
        StoreError: the table does not have it.
    """
    tagged = tags(table)
    number = tagged.get(version, int(version) if version.isdecimal() else -1)
    if all(int(one["version"]) != number for one in table.list_versions()):
        raise StoreError(opening.no_version(uri, version, sorted(tagged)))
    return number


def keep(table: Any) -> timedelta:
    """From which age on versions may be removed: LanceDB refuses where one of them is tagged."""
    tagged = set(tags(table).values())
    made = [one["timestamp"] for one in table.list_versions() if int(one["version"]) in tagged]
    if not made:
        return KEEP
    oldest = min(made)
    age: timedelta = datetime.now(oldest.tzinfo) - oldest
    return max(KEEP, age + timedelta(minutes=1))


def uniform(batches: Iterable[pa.RecordBatch], dim: int) -> pa.RecordBatchReader:
    """Checked rows, all with the columns of the first batch."""
    rest = iter(batches)
    schema = with_attributes(dim, pa.schema([]))
    first = next(rest, None)
    head = conform([first], schema) if first is not None else schema.empty_table()
    checked = (one for batch in rest for one in conform([batch], head.schema).to_batches())
    return pa.RecordBatchReader.from_batches(head.schema, chain(head.to_batches(), checked))
