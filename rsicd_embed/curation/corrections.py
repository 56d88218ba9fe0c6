"""Corrections of labels by people, which later serve as examples.

Beside a column of labels and one of their probabilities, as `labels` writes them, a column
`{column}_corrected` keeps what people said; it is null for other rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from rsicd_embed.curation.column_update import update_columns
from rsicd_embed.errors import RowChangedError, SchemaError, UnknownRowError
from rsicd_embed.records import FIXED_COLUMNS, corrected_name, sql_name, with_ids
from rsicd_embed.stores.base import VectorStore

_MOST_CHARS = 200


@dataclass(frozen=True)
class LabelColumns:
    """The columns of a label, its probability, and its correction."""

    label: str

    @property
    def probability(self) -> str:
        """The column of probabilities."""
        return f"{self.label}_probability"

    @property
    def corrected(self) -> str:
        """The column of corrections."""
        return corrected_name(self.label)

    @property
    def schema(self) -> pa.Schema:
        """The columns with their types."""
        names = (self.label, self.probability, self.corrected)
        return pa.schema(list(zip(names, (pa.string(), pa.float32(), pa.string()), strict=True)))

    def corrections(self, batch: pa.RecordBatch) -> pa.StringArray:
        """What people said about the rows of a batch; null for other rows."""
        if self.has_corrections(batch.schema):
            return batch[self.corrected]
        return pa.nulls(len(batch), pa.string())

    def has_corrections(self, schema: pa.Schema) -> bool:
        """Whether a store with this schema has a column of corrections."""
        return self.corrected in schema.names and pa.types.is_string(
            schema.field(self.corrected).type
        )

    def require(self, schema: pa.Schema) -> None:
        """Checks that corrections can be written to a store with this schema.

        Raises:
            SchemaError: a column is fixed, or has another type.
        """
        for field in self.schema:
            if field.name in FIXED_COLUMNS:
                raise SchemaError(f"column {field.name!r} is not for labels; choose another name")
            if field.name in schema.names and schema.field(field.name).type != field.type:
                raise SchemaError(
                    f"column {field.name!r} has the type {schema.field(field.name).type}, expected "
                    f"{field.type} for labels; choose another column"
                )


@dataclass(frozen=True)
class LabelState:
    """The label of a row.

    Attributes:
        label: the label; None without one.
        probability: its probability; None without one.
        corrected: what a person said; None if nobody did.
    """

    label: str | None
    probability: float | None
    corrected: str | None


def label_columns(schema: pa.Schema) -> LabelColumns | None:
    """The first column that has a column of probabilities; None if there is none."""
    for name in schema.names:
        columns = LabelColumns(name)
        if columns.probability in schema.names and pa.types.is_string(schema.field(name).type):
            return columns
    return None


def set_label(
    store: VectorStore, columns: LabelColumns, id_: str, was: str | None, state: LabelState
) -> LabelState:
    """Writes the label of a row, in one atomic step that leaves its other columns as they are.

    Args:
        store: the store.
        columns: the columns to write.
        id_: the row.
        was: the label that the person saw; None for a row without one.
        state: the new label.

    Returns:
        The state before.

    Raises:
        RowChangedError: the label is another one by now.
        UnknownRowError: there is no such row.
        SchemaError: a column has another type, or the label is blank or too long.
        FingerprintError: the store was embedded again meanwhile; nothing is written.
    """
    columns.require(store.schema)
    label = state.label
    if label is not None and not (label.strip() == label and 0 < len(label) <= _MOST_CHARS):
        raise SchemaError(
            f"expected a label of 1 to {_MOST_CHARS} characters without spaces around it, found "
            f"{label[: _MOST_CHARS + 1]!r}"
        )
    before: list[LabelState] = []

    def compute(row: pa.RecordBatch) -> dict[str, pa.Array]:
        present = [
            row[name][0].as_py() if name in row.schema.names else None
            for name in columns.schema.names
        ]
        before.append(LabelState(*present))
        if before[0].label != was:
            raise RowChangedError(
                f"the label of {id_[:_MOST_CHARS]!r} is {before[0].label!r} by now, not {was!r}; "
                "look at the row again"
            )
        values = (state.label, state.probability, state.corrected)
        return {
            field.name: pa.array([value], field.type)
            for field, value in zip(columns.schema, values, strict=True)
        }

    where = with_ids([id_])
    with store.scan(["id"], where) as reader:
        exists = len(reader.read_all()) > 0  # else columns would be added for nothing
    if not (exists and update_columns(store, columns.schema, compute, where)):
        raise UnknownRowError(f"no row with the id {id_[:_MOST_CHARS]!r} in the store")
    return before[0]


def corrected_labels(store: VectorStore, columns: LabelColumns) -> dict[str, str]:
    """The corrected labels by id, in the order of ids."""
    if not columns.has_corrections(store.schema):
        return {}
    where = f"{sql_name(columns.corrected)} IS NOT NULL"
    with store.scan(["id", columns.corrected], where) as reader:
        rows = reader.read_all()
    return dict(
        sorted(zip(rows["id"].to_pylist(), rows[columns.corrected].to_pylist(), strict=True))
    )
