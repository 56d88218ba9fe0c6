"""What a file of rows says about itself, under one key of its Parquet metadata."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow as pa

from rsicd_embed.errors import DatasetError
from rsicd_embed.records import Provenance

KEY = b"rsicd-embed"
FORMAT = 1


def encode(provenance: Provenance, schema: pa.Schema) -> dict[bytes, bytes]:
    """Metadata for rows of `schema` whose vectors `provenance` made."""
    said = {
        "format": FORMAT,
        "model": provenance.model,
        "fingerprint": provenance.fingerprint,
        "dim": provenance.dim,
        "schema": base64.b64encode(schema.remove_metadata().serialize().to_pybytes()).decode(),
    }
    return {KEY: json.dumps(said | {"sha256": _checksum(said)}).encode()}


def decode(raw: bytes, path: Path) -> tuple[Provenance, pa.Schema]:
    """What `encode` was given.

    Raises:
        DatasetError: it is damaged, or of a later version.
    """
    try:
        said = json.loads(raw)
        if said["format"] != FORMAT:
            raise DatasetError(
                f"{path}: expected format version {FORMAT}, found {said['format']!r}; "
                "upgrade rsicd-embed"
            )
        if said.pop("sha256") != _checksum(said):
            raise ValueError("checksum")
        schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(said["schema"])))
        return Provenance(said["model"], said["fingerprint"], said["dim"]), schema
    except (ValueError, KeyError, TypeError, AttributeError, OSError, pa.ArrowException):
        raise DatasetError(
            f"{path}: its metadata do not say which model made its vectors; export it again"
        ) from None


def _checksum(said: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
