"""A store plug-in in under ninety lines: one Arrow file, rewritten by each change.

To use it with `rsicd-embed ingest … --store arrow:tiles.arrow`, a package declares it in its
pyproject.toml:

    [project.entry-points."rsicd_embed.stores"]
    arrow = "my_package.store_plugin:ArrowStore"
"""

import json
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from filelock import FileLock

from rsicd_embed import stores


class ArrowStore(stores.RowStore):
    """A store that only reads and writes its rows; `RowStore` does the rest."""

    def __init__(self, uri, path):
        self.uri, self._path, self._lock = str(uri), path, FileLock(f"{path}.lock")
        self.provenance = stores.Provenance(**json.loads(self._table().schema.metadata[b"made_by"]))

    @classmethod
    def open(cls, uri, provenance, *, create):
        path = Path(uri.location)
        if create and not path.exists():
            made_by = {"made_by": json.dumps(asdict(provenance))}
            with FileLock(f"{path}.lock"):
                if not path.exists():  # another process may have created it
                    write(
                        path, stores.row_schema(provenance.dim).with_metadata(made_by).empty_table()
                    )
        if not path.exists():
            raise stores.not_found(uri)
        store = cls(uri, path)
        stores.require_provenance(store.provenance, provenance, store.uri)
        return store

    def upsert(self, batches):
        with self._lock:
            now = self._table()
            new = stores.conform(batches, now.schema)
            self._replace(now, new["id"], new)
            return len(new)

    def delete(self, ids):
        with self._lock:
            return self._replace(self._table(), stores.checked_ids(ids))

    def drop_columns(self, names):
        with self._lock:
            now = self._table()
            write(self._path, now.select(stores.without_columns(now.schema, names).names))

    def _replace(self, now, ids, *new):
        others = now.filter(pc.invert(pc.is_in(now["id"], ids)))
        if any(map(len, new)) or len(others) < len(now):
            write(self._path, pa.concat_tables([others, *new], promote_options="default"))
        return len(now) - len(others)

    def rows(self):
        return stores.rows_of(self._table())

    def _table(self):
        self.require_open()
        with stores.storage_errors(f"cannot read {self.uri}"):
            return pa.ipc.open_file(pa.memory_map(str(self._path))).read_all()


def write(path, table):
    """Replaces the file atomically; open readers keep the old one."""
    content = pa.BufferOutputStream()
    with pa.ipc.new_file(content, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    with stores.storage_errors(f"cannot write {path}"):
        stores.write_file(path, lambda aside: aside.write_bytes(content.getvalue()))
        stores.sync_folder(path.parent)
