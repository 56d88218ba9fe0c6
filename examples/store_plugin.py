"""A store of one's own, in under ninety lines: one Arrow file, written anew by each change.

A package offers it under the scheme `arrow` with this in its pyproject.toml, and
`rsicd-embed ingest … --store arrow:tiles.arrow` uses it:

    [project.entry-points."rsicd_embed.stores"]
    arrow = "my_package.store_plugin:ArrowStore"
"""

import json
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from filelock import FileLock

from rsicd_embed.files import storage_errors, sync_folder, write_file
from rsicd_embed.records import Provenance, row_schema
from rsicd_embed.stores import opening
from rsicd_embed.stores.columns import without_columns
from rsicd_embed.stores.row_store import RowStore
from rsicd_embed.stores.row_view import rows_of
from rsicd_embed.stores.rows import checked_ids, conform


class ArrowStore(RowStore):
    """`RowStore` searches, scans and tells what is there; what is left is to read and to write."""

    def __init__(self, uri, path):
        self.uri, self._path, self._lock = str(uri), path, FileLock(f"{path}.lock")
        self.provenance = Provenance(**json.loads(self._table().schema.metadata[b"made_by"]))

    @classmethod
    def open(cls, uri, provenance, *, create):
        path = Path(uri.location)
        if create and not path.exists():
            made_by = {"made_by": json.dumps(asdict(provenance))}
            with FileLock(f"{path}.lock"):
                if not path.exists():  # another process may have been faster
                    write(path, row_schema(provenance.dim).with_metadata(made_by).empty_table())
        if not path.exists():
            raise opening.not_found(uri)
        store = cls(uri, path)
        opening.require_provenance(store.provenance, provenance, store.uri)
        return store

    def upsert(self, batches):
        with self._lock:
            now = self._table()
            new = conform(batches, now.schema)
            self._replace(now, new["id"], new)
            return len(new)

    def delete(self, ids):
        with self._lock:
            return self._replace(self._table(), checked_ids(ids))

    def drop_columns(self, names):
        with self._lock:
            now = self._table()
            write(self._path, now.select(without_columns(now.schema, names).names))

    def _replace(self, now, ids, *new):
        kept = now.filter(pc.invert(pc.is_in(now["id"], ids)))
        if any(map(len, new)) or len(kept) < len(now):
            write(self._path, pa.concat_tables([kept, *new], promote_options="default"))
        return len(now) - len(kept)

    def rows(self):
        return rows_of(self._table())

    def _table(self):
        self.require_open()
        with storage_errors(f"cannot read {self.uri}"):
            return pa.ipc.open_file(pa.memory_map(str(self._path))).read_all()


def write(path, table):
    """The file is the old one or the new one, whatever happens; readers keep the one they have."""
    content = pa.BufferOutputStream()
    with pa.ipc.new_file(content, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    with storage_errors(f"cannot write {path}"):
        write_file(path, lambda aside: aside.write_bytes(content.getvalue()))
        sync_folder(path.parent)
