"""What a question to a store needs: the state that is asked, and the model that embeds."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rsicd_embed.embedder.base import Embedder
    from rsicd_embed.stores.base import VectorStore


def embedder_for(store: VectorStore, store_uri: str, model: str | None) -> Embedder:
    """The model that is named, or else the one that made the store; refused if its vectors differ.

    Raises:
        ModelError: it cannot be loaded.
        FingerprintError: it is not the model that made the store.
    """
    from rsicd_embed.embedder.base import provenance
    from rsicd_embed.embedder.loading import load_for_a_query
    from rsicd_embed.errors import ModelError
    from rsicd_embed.records import require_same_model

    made_by = store.provenance
    try:
        embedder = load_for_a_query(model or made_by.model)
    except ModelError as error:
        if model:
            raise
        raise ModelError(
            f"the model that made {store_uri} cannot be loaded; if it has moved, "
            f"say where with --model: {error}"
        ) from error
    require_same_model(made_by, provenance(embedder), store_uri)
    return embedder


def state_of(store: VectorStore, version: str | None) -> VectorStore:
    """The state of a store that a tag or a number means; the store itself for None.

    Raises:
        StoreError: it has no such state.
    """
    if version is None:
        return store
    from rsicd_embed.stores.base import require_versioned

    return require_versioned(store).as_of(version)
