"""`rsicd-embed serve`: the search page and its HTTP API."""

from __future__ import annotations

import importlib.util
import warnings
from typing import TYPE_CHECKING

import click

from rsicd_embed.cli.base import backend_option, model_option, note, show, store_option
from rsicd_embed.parallel import cpu_count, share_one_heap

if TYPE_CHECKING:
    from rsicd_embed.embedder.base import Embedder
    from rsicd_embed.embedder.clip.backends import Backend

_NEEDED = ("fastapi", "uvicorn", "python_multipart", "prometheus_client")
_BATCH_SIZE = 64


@click.command()
@store_option
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    default=8000,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="Port to listen on; 0 for any that is free.",
)
@click.option(
    "--allowed-host",
    "allowed_hosts",
    multiple=True,
    metavar="NAME",
    help="Host name under which clients may reach the server, such as that of a proxy in front of "
    "it; may be repeated; * for any.  [default: localhost, --host and the address reached]",
)
@click.option(
    "--paths/--hide-paths",
    default=None,
    help="Whether clients see the paths of images and can download their files unchanged.  "
    "[default: only if --host is a loopback address and there is no --allowed-host]",
)
@model_option("the model that made the store")
@backend_option
@click.option(
    "--threads",
    type=click.IntRange(1),
    help="Threads that decode and draw pictures.  [default: one a processor]",
)
@click.option(
    "--together",
    default=64,
    show_default=True,
    type=click.IntRange(1),
    help="Searches that go through the model and the store together, at most; 1 for each alone.",
)
def serve(
    store_uri: str,
    host: str,
    port: int,
    allowed_hosts: tuple[str, ...],
    paths: bool | None,
    model: str | None,
    backend: Backend | None,
    threads: int | None,
    together: int,
) -> None:
    """Serve a store: a page to search it with, and an HTTP API for programs.

    The page is at /, the API's description at /openapi.json, and the server's state at /healthz,
    /readyz and /metrics. Whoever reaches the address can search and see the store's pictures; by
    default, that is this machine only. Requests that name another host, or come from a page of
    another site, are refused. Ctrl-C stops the server once running requests are answered.
    """
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise click.ClickException(
            f"expected {', '.join(missing)}, found none; install: pip install 'rsicd-embed[serve]'"
        )
    share_one_heap()
    from rsicd_embed.server import middleware, process
    from rsicd_embed.server.batching import Policy
    from rsicd_embed.server.engine import Engine
    from rsicd_embed.server.service import Service

    # Anybody can send such texts; the log is not theirs.
    warnings.filterwarnings("ignore", r"\d+ of \d+ texts are longer than the model's context")
    try:
        accepted = middleware.access(host, allowed_hosts)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--allowed-host") from error
    local = middleware.is_loopback(host)
    if paths is None:
        paths = local and not allowed_hosts
    listening = process.listen(host, port)
    with listening, Engine(store_uri, lambda name: _load(name, backend), model) as engine:
        engine.open()
        if not local:
            note(f"{host} may be reached from other machines: everyone there can see the pictures")
        policy = Policy(most=together)
        service = Service(engine, threads=threads or cpu_count(), policy=policy, paths=paths)
        url = process.url(listening)
        process.run(service, listening, lambda: show(f"serving {store_uri} at {url}"), accepted)


def _load(model: str, backend: Backend | None) -> Embedder:
    """A model on what answers soonest and fastest of what is installed."""
    import rsicd_embed
    from rsicd_embed import plugins

    name, colon, _ = model.partition(":")
    if backend is None and not (colon and name in plugins.names(plugins.EMBEDDERS)):
        backend = "openvino" if importlib.util.find_spec("openvino") else "jax"
    return rsicd_embed.load_embedder(model, batch_size=_BATCH_SIZE, backend=backend)
