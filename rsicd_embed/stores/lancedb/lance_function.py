"""What a LanceDB table says of its embedding function, so that LanceDB's own API searches by text.

LanceDB makes a table's functions anew for each write, so a process that writes needs a class of
that name, even where it embeds nothing: `import rsicd_embed.lancedb` brings the one that embeds.
"""

from __future__ import annotations

import json
from typing import Any

from rsicd_embed.errors import ModelError
from rsicd_embed.records import VECTOR, Provenance, fingerprint_parts
from rsicd_embed.stores.lancedb._lazy_lancedb import lancedb

ALIAS = "rsicd-clip"
_KEY = b"embedding_functions"


class WithoutModel(lancedb.embeddings.EmbeddingFunction):
    """The function of tables in a process that embeds nothing through LanceDB's API.

    Attributes:
        model, fingerprint: as in `rsicd_embed.lancedb.RsicdClip`.
    """

    model: str | None = None
    fingerprint: str = ""

    def ndims(self) -> int:
        """Length of a vector."""
        return int(fingerprint_parts(self.fingerprint)["dim"])

    def compute_query_embeddings(self, *_: Any, **__: Any) -> list[Any]:
        """Raises ModelError."""
        raise ModelError(
            "expected `import rsicd_embed.lancedb` before a table is searched by text or picture, "
            "or given images to embed, in LanceDB's own API; import it and open the table again"
        )

    # LanceDB's own would try again.
    compute_source_embeddings = compute_query_embeddings
    compute_query_embeddings_with_retry = compute_query_embeddings
    compute_source_embeddings_with_retry = compute_query_embeddings


def metadata(provenance: Provenance) -> dict[bytes, bytes]:
    """Metadata of a table's schema that name the function of its vectors, in LanceDB's format."""
    function = {
        "name": ALIAS,
        "model": {"model": provenance.model, "fingerprint": provenance.fingerprint},
        "source_column": "uri",
        "vector_column": VECTOR,
    }
    return {_KEY: json.dumps([function]).encode()}


def register() -> None:
    """Makes sure that there is a function of our name; the one that embeds is not replaced."""
    registry = lancedb.embeddings.get_registry()
    try:
        registry.get(ALIAS)
    except KeyError:
        registry.register(ALIAS)(WithoutModel)
