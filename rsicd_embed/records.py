"""Shared data types: Arrow rows of a store, search hits, fingerprints and provenance.

A row is `id, vector, uri, sha256, width, height`, plus the attributes of its source.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.types as pt

from rsicd_embed.errors import FingerprintError, RsicdEmbedError, SchemaError

VECTOR = "vector"
HIT_COLUMNS = ("query", "rank", "id", "score")
_BLOCK_ROWS = 256  # so that a float64 copy fits into the CPU cache


def row_schema(dim: int, attributes: pa.Schema | None = None) -> pa.Schema:
    """The Arrow schema of a store's rows: the six fixed columns, then `attributes`."""
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
    """float32 (n, dim) → Arrow fixed-size lists; no copy if the array is C-contiguous."""
    n, dim = vectors.shape
    values = np.ascontiguousarray(vectors, dtype=np.float32).reshape(n * dim)
    return pa.FixedSizeListArray.from_arrays(pa.array(values), dim)


def vector_matrix(column: pa.FixedSizeListArray | pa.ChunkedArray) -> np.ndarray:
    """Arrow fixed-size lists → float32 (n, dim); no copy for a single chunk without nulls."""
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
        dim: expected length of a vector.
        source: origin of the vectors, for errors.
        first: number of the first row, for errors.

    Returns:
        float64 (n,): the L2 norm of each vector.

    Raises:
        SchemaError: the shape is wrong, or a vector is not a finite unit vector.
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
    """Identifies an embedder. Embedders with equal fingerprints produce comparable vectors.

    Attributes:
        weights: digest of the model's parameters.
        preprocessing: digest of the image preprocessing.
        tokenizer: digest of the tokenizer.
        dim: length of a vector.
        normalisation: normalisation of the model's output, such as "l2".
    """

    weights: str
    preprocessing: str
    tokenizer: str
    dim: int
    normalisation: str = "l2"

    def __str__(self) -> str:
        return "/".join(f"{name}:{value}" for name, value in dataclasses.asdict(self).items())


class VectorMaker(Protocol):
    """The properties of an embedder that identify it to a store."""

    @property
    def name(self) -> str:
        """Name of the model, as for `--model`."""
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
    """The embedder of a store's vectors: its name, fingerprint and dimension."""

    model: str
    fingerprint: str
    dim: int

    @classmethod
    def of(cls, embedder: VectorMaker) -> Provenance:
        """The provenance of an embedder's vectors."""
        return cls(embedder.name, embedder.fingerprint, embedder.dim)


def provenance_header(provenance: Provenance, version: int) -> dict[str, Any]:
    """Provenance as JSON metadata of a file or table; see `read_header`."""
    return {"format": version, **dataclasses.asdict(provenance)}


def read_header(
    raw: bytes, version: int, where: object, error: type[RsicdEmbedError]
) -> tuple[Provenance, dict[str, Any]]:
    """Reads the provenance, and the whole JSON object, of metadata with a `provenance_header`.

    Args:
        raw: the metadata.
        version: the supported format version.
        where: the file or table, for errors.
        error: class of the error for another version.

    Raises:
        error: the metadata have another version.
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
    """Parses `str(Fingerprint)` into its parts by name."""
    return {name: value for name, _, value in (p.partition(":") for p in fingerprint.split("/"))}


def differences(stored: Provenance, given: Provenance) -> str:
    """The differing parts of two fingerprints, in words."""
    old, new = fingerprint_parts(stored.fingerprint), fingerprint_parts(given.fingerprint)
    return "; ".join(
        f"{name} {old.get(name, 'absent')} ≠ {new.get(name, 'absent')}"
        for name in dict.fromkeys([*old, *new])
        if old.get(name) != new.get(name)
    )


def require_same_model(stored: Provenance, given: Provenance, store: str) -> None:
    """Checks that vectors of two models are not mixed.

    Raises:
        FingerprintError: the fingerprints differ.
    """
    if stored.fingerprint == given.fingerprint:
        return
    differing = differences(stored, given)
    if stored.model == given.model:
        raise FingerprintError(
            f"{store} holds vectors of an earlier version of model {stored.model!r} ({differing}); "
            "restore that version, or use another store"
        )
    raise FingerprintError(
        f"{store} holds vectors of model {stored.model!r}, not of {given.model!r} ({differing}); "
        f"pass --model {stored.model}, or use another store"
    )


def python_rows(table: pa.Table | pa.RecordBatch) -> list[dict[str, Any]]:
    """The rows of a table or batch as dicts of `python_values`."""
    columns = [python_values(column) for column in table.columns]
    return [dict(zip(table.schema.names, row, strict=True)) for row in zip(*columns, strict=True)]


def python_values(column: pa.Array | pa.ChunkedArray) -> list[Any]:
    """Converts any column to Python values.

    Times are truncated to microseconds; times that Python cannot represent, outside the years 1 to
    9999, become strings.
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
    """The type with microseconds instead of nanoseconds, which Python does not support."""
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
