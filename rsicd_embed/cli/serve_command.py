"""`rsicd-embed serve`: the search page and its HTTP API."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rsicd_embed.cli.base import (
    backend_option,
    count_option,
    model_option,
    note,
    show,
    store_option,
)
from rsicd_embed.cli.number_range import NumberRange
from rsicd_embed.parallel import cpu_count, share_one_heap

if TYPE_CHECKING:
    from rsicd_embed.embedder.clip.backends import Backend
    from rsicd_embed.server.rate_limit import Buckets

_PER_PROCESSOR = 4  # workers
_REQUIRED = ("fastapi", "uvicorn", "python_multipart", "prometheus_client")
_BURST_S = 10  # of the rate, by default


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
@count_option("--workers", default=1, help="Processes that share the port.")
@click.option(
    "--rate-limit",
    "rate",
    type=NumberRange(0, min_open=True),
    metavar="PER_SECOND",
    help="Requests per second of each API key or, without keys, of each address; more are refused "
    "with status 429.  [default: no limit]",
)
@click.option(
    "--rate-burst",
    "burst",
    type=click.IntRange(1),
    metavar="COUNT",
    help="Requests that may arrive at once after a pause.  [default: 10 seconds of --rate-limit]",
)
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="Log on stderr: text logs only problems; json logs a JSON line per problem and request.",
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
    workers: int,
    rate: float | None,
    burst: int | None,
    log_format: str,
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
    most = _PER_PROCESSOR * cpu_count()
    if workers > most:
        raise click.BadParameter(
            f"expected at most {most}, {_PER_PROCESSOR} per processor, found {workers}",
            param_hint="--workers",
        )
    share_one_heap()
    from rsicd_embed.server import api_keys, middleware, process
    from rsicd_embed.server.serving import ServerSettings, serve_store
    from rsicd_embed.server.supervisor import supervise

    buckets = _buckets(rate, burst)
    try:
        keys = api_keys.configured(api_key_file)
        access = middleware.access(host, allowed_hosts, keys, buckets)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--allowed-host") from error
    local = middleware.is_loopback(host)
    settings = ServerSettings(
        store=store_uri,
        model=model,
        backend=backend,
        threads=threads or max(1, cpu_count() // workers),
        together=together,
        paths=local and not allowed_hosts if paths is None else paths,
        labels=labels,
        access=access,
        json_logs=log_format == "json",
    )
    listening = process.listen(host, port)

    def started() -> None:
        if not local and keys is None:
            can = "see the images" if labels is None else "see the images and change labels"
            note(f"{host} may be reachable from other machines: anyone there can {can}")
        show(f"serving {store_uri} at {process.url(listening)}")

    with listening:
        if workers == 1:
            serve_store(settings, listening, started)
        else:
            supervise(settings, listening, started, workers)


def _buckets(rate: float | None, burst: int | None) -> Buckets | None:
    """The buckets of clients whose rate is limited; None without a limit."""
    from rsicd_embed.server.rate_limit import Buckets, RateLimit

    if rate is None:
        if burst is not None:
            raise click.UsageError("--rate-burst needs --rate-limit; name the requests per second")
        return None
    return Buckets.of(RateLimit(rate, burst or max(1, round(_BURST_S * rate))))
