"""`rsicd-embed serve`: the search page and its HTTP API."""

from __future__ import annotations

import importlib.util
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rsicd_embed.cli.base import backend_option, model_option, note, show, store_option
from rsicd_embed.parallel import cpu_count, share_one_heap

if TYPE_CHECKING:
    from rsicd_embed.embedder.base import Embedder
    from rsicd_embed.embedder.clip.backends import Backend

_REQUIRED = ("fastapi", "uvicorn", "python_multipart", "prometheus_client")
_BATCH_SIZE = 64


@click.command()
@store_option
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    default=8000,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="Port to listen on; 0 picks a free one.",
)
@click.option(
    "--allowed-host",
    "allowed_hosts",
    multiple=True,
    metavar="NAME",
    help="Host name that requests may use, such as that of a reverse proxy; repeatable; * allows "
    "any.  [default: localhost, --host and the address of the connection]",
)
@click.option(
    "--paths/--hide-paths",
    default=None,
    help="Show image paths to clients and let them download the original files.  "
    "[default: only if --host is a loopback address and --allowed-host is not given]",
)
@click.option(
    "--api-key-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File of API keys, one per line, of which every request must have one.  "
    "[default: the key in RSICD_EMBED_API_KEY, if it is set]",
)
@click.option(
    "--allow-labels",
    "labels",
    metavar="COLUMN",
    help="Let clients correct the labels in this column, which need not exist yet.  [default: "
    "clients only read]",
)
@model_option("the model of the store")
@backend_option
@click.option(
    "--threads",
    type=click.IntRange(1),
    help="Threads that decode and resize images.  [default: one per processor]",
)
@click.option(
    "--together",
    default=64,
    show_default=True,
    type=click.IntRange(1),
    help="Largest batch of concurrent searches; 1 disables batching.",
)
def serve(
    store_uri: str,
    host: str,
    port: int,
    allowed_hosts: tuple[str, ...],
    paths: bool | None,
    api_key_file: Path | None,
    labels: str | None,
    model: str | None,
    backend: Backend | None,
    threads: int | None,
    together: int,
) -> None:
    """Serve a search page and an HTTP API for a store.

    The page is at /, the OpenAPI document at /openapi.json, and the server's state at /healthz,
    /readyz and /metrics. Anyone who can reach the address can search the store and see its images,
    unless keys are required; by default, only this machine can. Requests for other host names and
    from other sites' pages are refused. The store is only read, unless --allow-labels is given.
    Ctrl-C stops the server after running requests are answered.
    """
    missing = [name for name in _REQUIRED if importlib.util.find_spec(name) is None]
    if missing:
        raise click.ClickException(
            f"expected {', '.join(missing)}, found none; install: pip install 'rsicd-embed[serve]'"
        )
    share_one_heap()
    from rsicd_embed.curation.corrections import LabelColumns
    from rsicd_embed.server import api_keys, middleware, process
    from rsicd_embed.server.batching import Policy
    from rsicd_embed.server.engine import Engine
    from rsicd_embed.server.service import Service

    # Clients could fill the log with these.
    warnings.filterwarnings("ignore", r"\d+ of \d+ texts are longer than the model's context")
    try:
        keys = api_keys.configured(api_key_file)
        access = middleware.access(host, allowed_hosts, keys)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--allowed-host") from error
    local = middleware.is_loopback(host)
    if paths is None:
        paths = local and not allowed_hosts
    listening = process.listen(host, port)
    with listening, Engine(store_uri, lambda name: _load(name, backend), model) as engine:
        served = engine.open()
        if labels is not None:
            LabelColumns(labels).require(served.store.schema)
        if not local and keys is None:
            can = "see the images" if labels is None else "see the images and change labels"
            note(f"{host} may be reachable from other machines: anyone there can {can}")
        policy = Policy(most=together)
        service = Service(
            engine, threads=threads or cpu_count(), policy=policy, paths=paths, labels=labels
        )
        url = process.url(listening)
        process.run(service, listening, lambda: show(f"serving {store_uri} at {url}"), access)


def _load(model: str, backend: Backend | None) -> Embedder:
    import rsicd_embed

    return rsicd_embed.load_embedder(model, batch_size=_BATCH_SIZE, backend=backend)
