"""Serve a store in this process: open it, load its model, and answer requests on a socket."""

from __future__ import annotations

import socket
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rsicd_embed.curation.corrections import LabelColumns
from rsicd_embed.server import process
from rsicd_embed.server.batching import Policy
from rsicd_embed.server.engine import Engine
from rsicd_embed.server.middleware import Access
from rsicd_embed.server.request_log import log_as_json
from rsicd_embed.server.service import Service

if TYPE_CHECKING:
    from rsicd_embed.embedder.base import Embedder
    from rsicd_embed.embedder.clip.backends import Backend

_BATCH_SIZE = 64


@dataclass(frozen=True)
class ServerSettings:
    """What a server needs to know, in each of its processes.

    Attributes:
        store: URI of the store.
        model: name of its model; None for the name in the store.
        backend: engine that runs the model; None for the fastest.
        threads: threads that decode and resize images.
        together: largest batch of concurrent searches.
        paths: whether clients see image paths and can download the original files.
        labels: column of labels that clients may correct; None to write nothing.
        access: the rules for requests.
        json_logs: whether to log JSON lines, one per request.
    """

    store: str
    model: str | None
    backend: Backend | None
    threads: int
    together: int
    paths: bool
    labels: str | None
    access: Access
    json_logs: bool = False

    def load(self, model: str) -> Embedder:
        """Loads an embedder."""
        import rsicd_embed

        return rsicd_embed.load_embedder(model, batch_size=_BATCH_SIZE, backend=self.backend)


def serve_store(
    settings: ServerSettings,
    listening: socket.socket,
    started: Callable[[], None],
    supervisor: int | None = None,
) -> None:
    """Serves a store until a signal; see `process.run`.

    Raises:
        StoreError: the store does not exist or cannot be read.
        ModelError: the model cannot be loaded.
        SchemaError: the column of labels has another type.
    """
    # Clients could fill the log with these.
    warnings.filterwarnings("ignore", r"\d+ of \d+ texts are longer than the model's context")
    if settings.json_logs:
        log_as_json()
    with Engine(settings.store, settings.load, settings.model) as engine:
        served = engine.open()
        if settings.labels is not None:
            LabelColumns(settings.labels).require(served.store.schema)
        service = Service(
            engine,
            threads=settings.threads,
            policy=Policy(most=settings.together),
            paths=settings.paths,
            labels=settings.labels,
        )
        process.run(service, listening, started, settings.access, supervisor)
