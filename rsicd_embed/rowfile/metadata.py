"""What a file of rows says about itself, under one key of its Parquet metadata."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow as pa

from rsicd_embed.errors import DatasetError
from rsicd_embed.records import Provenance, provenance_header, read_header

KEY = b"rsicd-embed"
FORMAT = 1


def encode(provenance: Provenance, schema: pa.Schema) -> dict[bytes, bytes]:
    """Metadata for rows of `schema` whose vectors `provenance` made."""
    written = base64.b64encode(schema.remove_metadata().serialize().to_pybytes()).decode()
    header = provenance_header(provenance, FORMAT) | {"schema": written}
    return {KEY: json.dumps(header | {"sha256": _checksum(header)}).encode()}


def decode(raw: bytes, path: Path) -> tuple[Provenance, pa.Schema]:
    """What `encode` was given.

    Raises:
        DatasetError: it is damaged, or of a later version.
    """
    try:
        made_by, header = read_header(raw, FORMAT, path, DatasetError)
        if header.pop("sha256") != _checksum(header):
            raise ValueError("checksum")
        return made_by, pa.ipc.read_schema(pa.py_buffer(base64.b64decode(header["schema"])))
    except (ValueError, KeyError, TypeError, AttributeError, OSError, pa.ArrowException):
        raise DatasetError(
            f"{path}: its metadata do not say which model made its vectors; export it again"
        ) from None


def _checksum(header: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(header, sort_keys=True).encode()).hexdigest()
