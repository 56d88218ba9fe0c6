"""Arrow rows of a store, model fingerprints, and conversion of columns to Python values.

A row has the columns `id, vector, uri, sha256, width, height`, plus the attributes of its source.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.types as pt

from rsicd_embed.errors import FingerprintError, RsicdEmbedError, SchemaError

VECTOR = "vector"
HIT_COLUMNS = ("query", "rank", "id", "score")
_BLOCK_ROWS = 256  # small enough for a float64 copy to stay in the processor's cache


def row_schema(dim: int, attributes: pa.Schema | None = None) -> pa.Schema:
    """The schema of a store's rows: the six fixed columns, then `attributes`."""
    fixed = [
        pa.field("id", pa.string(), nullable=False),
        pa.field(VECTOR, pa.list_(pa.float32(), dim), nullable=False),
        pa.field("uri", pa.string()),
        pa.field("sha256", pa.string()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
    ]
    return pa.schema(fixed + list(attributes or []))


FIXED_COLUMNS = tuple(row_schema(1).names)


def vector_array(vectors: np.ndarray) -> pa.FixedSizeListArray:
    """Converts float32 (n, dim) to Arrow fixed-size lists; C-contiguous arrays are not copied."""
    n, dim = vectors.shape
    values = np.ascontiguousarray(vectors, dtype=np.float32).reshape(n * dim)
    return pa.FixedSizeListArray.from_arrays(pa.array(values), dim)


def vector_matrix(column: pa.FixedSizeListArray | pa.ChunkedArray) -> np.ndarray:
    """Converts Arrow fixed-size lists to float32 (n, dim); a single chunk is not copied."""
    if isinstance(column, pa.ChunkedArray):
        column = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    dim = column.type.list_size
    values: np.ndarray = column.flatten().to_numpy(zero_copy_only=False)
    return values.reshape(len(column), dim)


def require_unit_vectors(
    vectors: np.ndarray, dim: int, *, source: str, first: int = 0
) -> np.ndarray:
    """Checks that vectors are finite and L2-normalised to 1e-3.

    Args:
        vectors: real (n, dim).
        dim: the expected length of a vector.
        source: origin of the vectors, for the error message.
        first: number of the first row for the error message.

    Returns:
        float64 (n,): the L2 norm of each vector.

    Raises:
        SchemaError: naming the first row that fails.
    """
    if vectors.ndim != 2 or vectors.shape[1] != dim:
        raise SchemaError(f"{source}: expected vectors of shape (n, {dim}), found {vectors.shape}")
    norms = np.empty(len(vectors))
    for start in range(0, len(vectors), _BLOCK_ROWS):
        wide = vectors[start : start + _BLOCK_ROWS].astype(np.float64)
        norms[start : start + len(wide)] = np.sqrt(np.einsum("nd,nd->n", wide, wide))
    bad = np.flatnonzero(~(np.abs(norms - 1.0) < 1e-3))
    if bad.size:
        row = int(bad[0])
        raise SchemaError(
            f"{source}: expected finite unit vectors, found norm {norms[row]:.6g} "
            f"at row {first + row}; divide each vector by its L2 norm"
        )
    return norms


@dataclass(frozen=True)
class Fingerprint:
    """Identifies the model that computed a vector; equal fingerprints mean compatible vectors.

    Attributes:
        weights: digest of the model's parameters.
        preprocessing: digest of the image preprocessing.
        tokenizer: digest of the tokenizer.
        dim: length of a vector.
        normalisation: normalisation of the model's output, "l2" or another name.
    """

    weights: str
    preprocessing: str
    tokenizer: str
    dim: int
    normalisation: str = "l2"

    def __str__(self) -> str:
        return "/".join(f"{name}:{value}" for name, value in dataclasses.asdict(self).items())


def later_fields(config: Any, *names: str) -> str:
    """Text of a dataclass like `repr`, in which fields at their defaults are left out if named.

    Fingerprints hash this text, so fields that were added later must not change it.
    """
    shown = [
        f"{field.name}={getattr(config, field.name)!r}"
        for field in dataclasses.fields(config)
        if field.name not in names or getattr(config, field.name) != field.default
    ]
    return f"{type(config).__name__}({', '.join(shown)})"


class VectorMaker(Protocol):
    """The properties of an embedder that identify it to a store."""

    @property
    def name(self) -> str:
        """Name of the model, as passed to `--model`."""
        ...

    @property
    def fingerprint(self) -> str:
        """`str(Fingerprint)`."""
        ...

    @property
    def dim(self) -> int:
        """Length of a vector."""
        ...


@dataclass(frozen=True)
class Provenance:
    """The model name, fingerprint and dimension that a store records for its vectors."""

    model: str
    fingerprint: str
    dim: int

    @classmethod
    def of(cls, embedder: VectorMaker) -> Provenance:
        """The provenance of an embedder's vectors."""
        return cls(embedder.name, embedder.fingerprint, embedder.dim)


_DECLARED = "declared:"


def declared(model: str, dim: int) -> Provenance:
    """The provenance of vectors that were declared to be of a model, without a check."""
    return Provenance(model, f"{_DECLARED}{model.replace('/', '|')}/dim:{dim}", dim)


def provenance_header(provenance: Provenance, version: int) -> dict[str, Any]:
    """The JSON header in the metadata of a file or table; `read_header` reads it."""
    return {"format": version, **dataclasses.asdict(provenance)}


def read_header(
    raw: bytes, version: int, where: object, error: type[RsicdEmbedError]
) -> tuple[Provenance, dict[str, Any]]:
    """Reads the metadata that `provenance_header` begins.

    Args:
        raw: the metadata, a JSON object.
        version: the supported format version.
        where: the file or table, for the error message.
        error: the exception class for an unsupported version.

    Returns:
        The provenance, and the whole JSON object.

    Raises:
        error: the format version is not supported.
        ValueError, KeyError, TypeError: the metadata are damaged.
    """
    header = json.loads(raw)
    if header["format"] != version:
        raise error(
            f"{where}: expected format version {version}, found {header['format']!r}; "
            "upgrade rsicd-embed"
        )
    return Provenance(header["model"], header["fingerprint"], header["dim"]), header


def fingerprint_parts(fingerprint: str) -> dict[str, str]:
    """Splits `str(Fingerprint)` into its parts by name."""
    return {name: value for name, _, value in (p.partition(":") for p in fingerprint.split("/"))}


def differences(first: Provenance, second: Provenance) -> str:
    """Lists the parts in which two fingerprints differ, such as `weights aaa ≠ bbb`."""
    left, right = fingerprint_parts(first.fingerprint), fingerprint_parts(second.fingerprint)
    return "; ".join(
        f"{name} {left.get(name, 'absent')} ≠ {right.get(name, 'absent')}"
        for name in dict.fromkeys([*left, *right])
        if left.get(name) != right.get(name)
    )


def require_same_model(
    stored: Provenance, given: Provenance, store: str, *, for_queries: bool = False
) -> None:
    """Checks that a store and a model have the same fingerprint.

    Args:
        stored: the provenance of the store's vectors.
        given: the model.
        store: the store, for the error message.
        for_queries: accept a store whose vectors are only declared to be of a model of this name
            and dimension, which is not enough for adding rows.

    Raises:
        FingerprintError: they differ.
    """
    if stored.fingerprint == given.fingerprint:
        return
    is_declared = stored.fingerprint == declared(given.model, given.dim).fingerprint
    if for_queries and is_declared:
        return
    if stored.fingerprint.startswith(_DECLARED) and stored.model == given.model:
        raise FingerprintError(
            f"{store} contains imported vectors of dimension {stored.dim}, declared to be of model "
            f"{stored.model!r}, but the model has dimension {given.dim}; use another store"
        )
    differing = differences(stored, given)
    if stored.model == given.model:
        where = f"--store {store} " if ":" in store else ""
        raise FingerprintError(
            f"{store} contains vectors of an earlier version of model {stored.model!r} "
            f"({differing}); restore that version, or embed the images again: "
            f"rsicd-embed reembed {where}--model {given.model}"
        )
    raise FingerprintError(
        f"{store} contains vectors of model {stored.model!r}, not {given.model!r} ({differing}); "
        f"pass --model {stored.model}, or use another store"
    )


def python_rows(table: pa.Table | pa.RecordBatch) -> list[dict[str, Any]]:
    """Converts a table or batch to dicts by column name; see `python_values`."""
    columns = [python_values(column) for column in table.columns]
    return [dict(zip(table.schema.names, row, strict=True)) for row in zip(*columns, strict=True)]


def python_values(column: pa.Array | pa.ChunkedArray) -> list[Any]:
    """Converts any column to Python values.

    Times are truncated to microseconds. Times outside the years 1 to 9999, which Python cannot
    represent, become text.
    """
    kind = _in_microseconds(column.type)
    try:
        return list((column if kind == column.type else column.cast(kind, safe=False)).to_pylist())
    except (ValueError, OverflowError, pa.ArrowException):
        return [_python_value(scalar) for scalar in column]


def _python_value(scalar: pa.Scalar) -> Any:
    kind = scalar.type
    if not scalar.is_valid:
        return None
    if pt.is_struct(kind):
        return {name: _python_value(value) for name, value in scalar.items()}
    if isinstance(scalar, pa.ListScalar):
        return [_python_value(value) for value in scalar.values]
    try:
        return scalar.cast(_in_microseconds(kind), safe=False).as_py()
    except (ValueError, OverflowError, pa.ArrowException):
        return scalar.cast(pa.string()).as_py()


def _in_microseconds(kind: pa.DataType) -> pa.DataType:
    """The type with microseconds in place of nanoseconds, which Python's times lack."""
    if pt.is_timestamp(kind) and kind.unit == "ns":
        return pa.timestamp("us", kind.tz)
    if pt.is_time64(kind):
        return pa.time64("us")
    if pt.is_duration(kind) and kind.unit == "ns":
        return pa.duration("us")
    if pt.is_list(kind):
        return pa.list_(_in_microseconds(kind.value_type))
    if pt.is_struct(kind):
        return pa.struct([field.with_type(_in_microseconds(field.type)) for field in kind])
    return kind


def sql_literal(text: str) -> str:
    """A SQL string literal; doubling quotes is all the escaping that it needs."""
    return "'" + text.replace("'", "''") + "'"


def sql_name(name: str) -> str:
    """A column name as SQL."""
    return '"' + name.replace('"', '""') + '"'


def all_of(conditions: Iterable[str]) -> str:
    """Joins SQL conditions by AND; each is complete by itself, but may end in a comment."""
    return " AND ".join(f"({condition}\n)" for condition in conditions)


def any_of(conditions: Sequence[str]) -> str:
    """Joins SQL conditions by OR, as `all_of` does by AND; a single one stays as it is."""
    if len(conditions) == 1:
        return conditions[0]
    return " OR ".join(f"({condition}\n)" for condition in conditions)


def with_ids(ids: Iterable[str]) -> str:
    """The SQL condition that selects the rows with these ids, of which there is at least one."""
    return f"id IN ({', '.join(map(sql_literal, dict.fromkeys(ids)))})"


def corrected_name(column: str) -> str:
    """The name of the column with what people said instead of the values of a column of labels."""
    return f"{column}_corrected"


def is_list(kind: pa.DataType) -> bool:
    """Whether a type is any kind of list."""
    return bool(
        pt.is_list(kind)
        or pt.is_large_list(kind)
        or pt.is_list_view(kind)
        or pt.is_large_list_view(kind)
        or pt.is_fixed_size_list(kind)
    )


def is_number_list(kind: pa.DataType) -> bool:
    """Whether a type is a list of numbers that can be read as a vector; not a view."""
    is_plain = pt.is_list(kind) or pt.is_large_list(kind) or pt.is_fixed_size_list(kind)
    return bool(is_plain) and bool(
        pt.is_floating(kind.value_type) or pt.is_integer(kind.value_type)
    )
