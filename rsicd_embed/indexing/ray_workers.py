"""Workers on a Ray cluster that read, decode and embed images; the driver writes their rows.

Each worker is an actor with its own model. The driver sends it a chunk of images together with what
the store knows about them, and gets vectors back. If a worker ends, its chunks go to the next one
that is free. Only the driver writes, so a repeated chunk is written once. The driver neither loads
the model nor imports JAX, which would take a TPU away from its workers.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from rsicd_embed.datasets.base import Example
from rsicd_embed.embedder.base import Embedder
from rsicd_embed.errors import ArgumentError, RsicdEmbedError, WorkerError, first_line
from rsicd_embed.files import Closing
from rsicd_embed.indexing.image_workers import Loaded, LocalWorkers, Outcome
from rsicd_embed.indexing.reconcile import KnownRows
from rsicd_embed.indexing.stages import Stages
from rsicd_embed.parallel import batched, cpu_count
from rsicd_embed.records import Provenance

_LOCAL = "local"  # Ray's name for a cluster that it starts on this machine
_RUNNING = "auto"  # and for one that runs on this machine
_ADDRESS = "RAY_ADDRESS"
_CONNECT_S = 10.0
_START_S = 900.0  # to find room on the cluster and load the model
_AT_ONCE = 2  # chunks per worker: one is read while another is embedded
_AHEAD = 4  # chunks per worker that are sent or waiting for an earlier one
_ATTEMPTS = 8  # of a chunk whose workers end, and of loading the model
_LOADING = "loading the model"
_THREADS = "OMP_NUM_THREADS"  # number of threads of BLAS libraries, which rounding depends on


@dataclass(frozen=True)
class WorkerModel:
    """The model of a worker.

    Attributes:
        provenance: what a store records about it.
        batch_size: number of images that it embeds together.
        engine: engine and precision, if known.
    """

    provenance: Provenance
    batch_size: int
    engine: str | None


@dataclass
class _Chunk:
    """Images that one worker embeds.

    Attributes:
        number: place among the chunks.
        attempts: number of workers that it was sent to.
    """

    number: int
    examples: Sequence[Example]
    attempts: int = 0

    def __str__(self) -> str:
        return f"{self.examples[0].uri} to {self.examples[-1].uri}"


class _Actor:
    """What runs in a worker process. It returns errors, since Ray's own have many lines."""

    def __init__(self, load: Callable[[], Embedder]) -> None:
        self._load, self._mutex = load, threading.Lock()
        self._loaded: Embedder | None = None

    def model(self) -> WorkerModel | RsicdEmbedError:
        """Loads the model, if it is not loaded, and describes it."""
        try:
            local = LocalWorkers(self._embedder())
        except RsicdEmbedError as error:
            return error
        return WorkerModel(local.provenance, local.batch_size, local.engine)

    def embed(
        self, examples: Sequence[Example], known: KnownRows, max_nodata: float
    ) -> tuple[list[Outcome], dict[str, float]] | RsicdEmbedError:
        """The outcomes of images, with vectors, and the busy seconds of the stages."""
        stages = Stages()
        try:
            local = LocalWorkers(self._embedder())
            outcomes = list(local.outcomes(examples, known, max_nodata, stages))
        except RsicdEmbedError as error:
            return error
        new = [place for place, outcome in enumerate(outcomes) if isinstance(outcome, Loaded)]
        for places in batched(new, local.batch_size):
            images = [image for i in places if isinstance(image := outcomes[i], Loaded)]
            with self._mutex, stages("embed"):
                vectors = local.vectors(images)
            for place, image, vector in zip(places, images, vectors, strict=True):
                outcomes[place] = replace(image, array=vector)
        return outcomes, stages.seconds()

    def _embedder(self) -> Embedder:
        with self._mutex:
            if self._loaded is None:
                self._loaded = self._load()
            return self._loaded


class RayWorkers(Closing):
    """The workers of one ingest; see `image_workers.ImageWorkers`."""

    def __init__(
        self,
        load: Callable[[], Embedder],
        *,
        address: str | None = None,
        count: int | None = None,
    ) -> None:
        """Connects to a cluster and starts workers.

        Args:
            load: loads the model in a worker.
            address: `HOST:PORT`, `ray://HOST:PORT` or `auto`; None for the cluster named by
                RAY_ADDRESS, or else one that is started on this machine.
            count: number of workers; None for one per accelerator, or without any, per machine.

        Raises:
            WorkerError: there is no cluster at the address, or it is too small.
            ModelError: a worker cannot load the model.
        """
        self._ray = _connect(address or os.environ.get(_ADDRESS) or _LOCAL)
        try:
            self._actors = self._start(load, count)
            model = self._loaded_model()
        except BaseException:
            self.close()
            raise
        self.provenance = model.provenance
        self.batch_size, self.engine = model.batch_size, model.engine

    def close(self) -> None:
        """Ends the workers, and the cluster if it was started for them."""
        self._ray.shutdown()

    def outcomes(
        self, examples: Sequence[Example], known: KnownRows, max_nodata: float, stages: Stages
    ) -> Iterator[Outcome]:
        """See `ImageWorkers`.

        Raises:
            WorkerError: a chunk's workers have ended too often.
        """
        batches = batched(examples, self.batch_size)
        free: deque[Any] = deque()
        running: dict[Any, tuple[_Chunk | None, Any]] = {}
        for actor in self._actors * _AT_ONCE:
            running[_ready(actor)] = None, actor
        repeated: deque[_Chunk] = deque()
        finished: dict[int, list[Outcome]] = {}
        sent = taken = 0
        while True:
            while free:
                if repeated:
                    chunk = repeated.popleft()
                elif sent - taken < _AHEAD * len(self._actors) and (batch := next(batches, None)):
                    chunk, sent = _Chunk(sent, batch), sent + 1
                else:
                    break
                actor = free.popleft()
                # Ray itself would repeat it only on the same worker.
                embed = actor.embed.options(max_task_retries=0)
                known_rows = known.of(chunk.examples)
                running[embed.remote(chunk.examples, known_rows, max_nodata)] = chunk, actor
            if free and taken == sent:
                return
            (task, *_), _ = self._ray.wait(list(running), num_returns=1)
            ended, actor = running.pop(task)
            if ended is None:
                self._result(task, _LOADING)
                free.append(actor)
                continue
            ended.attempts += 1
            result = self._result(task, str(ended), may_repeat=ended.attempts < _ATTEMPTS)
            if result is None:
                repeated.append(ended)
                running[_ready(actor)] = None, actor
                continue
            free.append(actor)
            finished[ended.number], seconds = result
            stages.add(seconds)
            while taken in finished:
                yield from finished.pop(taken)
                taken += 1

    def vectors(self, images: Sequence[Loaded]) -> np.ndarray:
        """See `ImageWorkers`; the workers have embedded the images."""
        return np.stack([image.array for image in images])

    def _start(self, load: Callable[[], Embedder], count: int | None) -> list[Any]:
        total: Mapping[str, float] = self._ray.cluster_resources()
        kind = next((kind for kind in ("TPU", "GPU") if total.get(kind)), "CPU")
        most = int(total.get(kind, 0))
        machines = sum(bool(node["Alive"]) for node in self._ray.nodes())
        if count is None:
            count = min(machines, most) if kind == "CPU" else most
        if not 1 <= count <= most:
            raise WorkerError(
                f"expected at most {most} workers, as the cluster has {most} {kind}s, found "
                f"{count}; use fewer --workers, or add machines with: ray start --address …"
            )
        accelerators: dict[str, dict[str, Any]] = {
            "GPU": {"num_gpus": 1},
            "TPU": {"resources": {"TPU": 1}},
        }
        actor = self._ray.remote(_Actor).options(
            num_cpus=1,
            scheduling_strategy="SPREAD",
            max_concurrency=_AT_ONCE,
            max_restarts=-1,
            max_task_retries=_ATTEMPTS - 1,
            # Ray would set it to 1, while a local ingest uses every processor.
            runtime_env={"env_vars": {_THREADS: os.environ.get(_THREADS) or str(cpu_count())}},
            **accelerators.get(kind, {}),
        )
        return [actor.remote(load) for _ in range(count)]

    def _loaded_model(self) -> WorkerModel:
        tasks = [actor.model.remote() for actor in self._actors]
        ready, _ = self._ray.wait(tasks, num_returns=len(tasks), timeout=_START_S)
        if len(ready) < len(tasks):
            raise WorkerError(
                f"expected {len(tasks)} workers within {_START_S / 60:g} minutes, found "
                f"{len(ready)}; use fewer --workers, or wait until the cluster has room"
            )
        models: list[WorkerModel] = [self._result(task, _LOADING) for task in tasks]
        for model in models:
            if model.provenance.fingerprint != models[0].provenance.fingerprint:
                raise WorkerError(
                    f"expected one model on all machines, found {models[0].provenance.fingerprint} "
                    f"and {model.provenance.fingerprint}; copy the same files to each"
                )
        return models[0]

    def _result(self, task: Any, what: str, *, may_repeat: bool = False) -> Any:
        """The result of a task; None if its worker has ended and the task may be repeated."""
        try:
            result = self._ray.get(task)
        except self._ray.exceptions.RayError as error:
            if may_repeat and not isinstance(error, self._ray.exceptions.RayTaskError):
                return None
            raise WorkerError(
                f"{what}: Ray workers failed {_ATTEMPTS} times or could not run "
                f"({first_line(error)}); see Ray's logs, then run the same command to continue"
            ) from error
        if isinstance(result, RsicdEmbedError):
            raise result
        return result


def _ready(actor: Any) -> Any:
    """A task that ends when a worker is there, however long its machine takes to return."""
    return actor.model.options(max_task_retries=-1).remote()


def _connect(address: str) -> Any:
    """Connects to a cluster, or starts one; returns the module `ray`."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Where a task has no accelerators, Ray would hide those of the machine.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError as error:
        raise WorkerError(
            "expected ray, found none; install: pip install 'rsicd-embed[ray]'"
        ) from error
    own: dict[str, Any] = {}
    if address == _LOCAL:
        own = {"num_cpus": cpu_count(), "include_dashboard": False}
    _require_listener(address)
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL, **own)
    except Exception as error:  # Ray raises many types, also plain Exception
        ray.shutdown()
        raise _no_cluster(address, error) from error
    return ray


def _require_listener(address: str) -> None:
    """Raises an error if nobody listens at `HOST:PORT`, for which Ray would wait for minutes."""
    if address in (_LOCAL, _RUNNING):
        return
    try:
        parts = urlsplit(address if "://" in address else f"//{address}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or not port or parts.scheme not in ("", "ray"):
        raise ArgumentError(
            f"expected --address HOST:PORT, ray://HOST:PORT or {_RUNNING}, found {address!r}"
        )
    try:
        socket.create_connection((host, port), _CONNECT_S).close()
    except OSError as error:
        raise _no_cluster(address, error) from error


def _no_cluster(address: str, error: Exception) -> WorkerError:
    if address == _LOCAL:
        return WorkerError(
            f"expected to start Ray on this machine, found: {first_line(error)}; see "
            "/tmp/ray/session_latest/logs, or leave out --engine ray"
        )
    return WorkerError(
        f"expected a Ray cluster at {address}, found none ({first_line(error)}); start one with: "
        "ray start --head, or leave out --address to use this machine alone"
    )
