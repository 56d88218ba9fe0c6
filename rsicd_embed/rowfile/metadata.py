"""What a file of rows says about itself, under one key of its Parquet metadata."""

from __future__ import annotations

import base64
import json
from pathlib import Path

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
    return {KEY: json.dumps(said, ensure_ascii=False).encode()}


def decode(raw: bytes, path: Path) -> tuple[Provenance, pa.Schema]:
    """What `encode` was given.

    Raises:
        DatasetError: it is damaged, or of a later version.
    """
    try:
        said = json.loads(raw)
        version = said["format"]
        if version != FORMAT:
            raise DatasetError(
                f"{path}: expected format version {FORMAT}, found {version!r}; upgrade rsicd-embed"
            )
        schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(said["schema"])))
        made_by = Provenance(said["model"], said["fingerprint"], said["dim"])
        if [type(one) for one in (made_by.model, made_by.fingerprint, made_by.dim)] != [
            str, str, int,
        ]:  # fmt: skip
            raise ValueError("types")
    except (ValueError, KeyError, TypeError, OSError, pa.ArrowException):
        raise DatasetError(
            f"{path}: its metadata do not say which model made its vectors; export it again"
        ) from None
    return made_by, schema
