"""`rsicd-embed mcp`: a Model Context Protocol server for assistants."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

import click

from rsicd_embed.cli.base import backend_option, model_option, note, store_option
from rsicd_embed.parallel import share_one_heap

if TYPE_CHECKING:
    from rsicd_embed.embedder.base import Embedder
    from rsicd_embed.embedder.clip.backends import Backend


@click.command()
@store_option
@model_option("the model of the store")
@backend_option
def mcp(store_uri: str, model: str | None, backend: Backend | None) -> None:
    """Serve a store to assistants by the Model Context Protocol.

    The tools search, find and sql communicate on standard input and output, and return pictures
    too. They are read-only, and show only images of the store.
    """
    if importlib.util.find_spec("mcp") is None:
        raise click.ClickException(
            "expected mcp, found none; install: pip install 'rsicd-embed[mcp]'"
        )
    share_one_heap()
    import rsicd_embed
    from rsicd_embed.server import mcp_tools
    from rsicd_embed.server.engine import Engine

    def load(name: str) -> Embedder:
        return rsicd_embed.load_embedder(name, backend=backend)

    with Engine(store_uri, load, model) as engine:
        mcp_tools.serve(engine, lambda: note(f"serving {store_uri} on standard input and output"))
