"""`ingest --engine ray`: chunks, failures and errors with a stand-in for Ray."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import rsicd_embed
from rsicd_embed.errors import ModelError, RsicdEmbedError, WorkerError
from rsicd_embed.indexing import ray_workers
from rsicd_embed.indexing.ingest import ingest_with
from rsicd_embed.indexing.ray_workers import RayWorkers
from rsicd_embed.stores.base import open_store

from .helpers import Counting, rows, run


class RayError(Exception):
    """Stands for `ray.exceptions.RayError`, whose messages have many lines."""


class RayTaskError(RayError):
    """Stands for Ray's error of code that raised one."""


class Task:
    """The result of a call, or what it raised."""

    def __init__(self, call: Callable[[], Any], *, is_waiting: bool) -> None:
        self.is_waiting = is_waiting
        if is_waiting:
            return
        try:
            self.result, self.error = call(), None
        except RayError as error:
            self.result, self.error = None, error


class FakeRay:
    """Runs actors in this process; the newest task is the first one to end."""

    exceptions = SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError)

    def __init__(self, **resources: float) -> None:
        self.resources = resources or {"CPU": 2.0}
        self.options: dict[str, Any] = {}
        self.calls: list[Sequence[Any]] = []
        self.callees: list[Any] = []
        self.gone: list[Any] = []
        self.failing: Callable[[Sequence[Any]], None] = lambda chunk: None
        self.is_busy = False
        self.most_at_once = self.is_shut_down = 0

    def remote(self, actor: type) -> Any:
        def options(**given: Any) -> Any:
            self.options = given
            return SimpleNamespace(remote=lambda load: self._actor(actor(load)))

        return SimpleNamespace(options=options)

    def _actor(self, inner: Any) -> Any:
        def embed(chunk: Sequence[Any], *arguments: Any) -> Any:
            self.calls.append(chunk)
            self.callees.append(inner)
            self.failing(chunk)
            return inner.embed(chunk, *arguments)

        def model() -> Task:
            return Task(inner.model, is_waiting=inner in self.gone)

        def patient_model(max_task_retries: int) -> Any:
            assert max_task_retries == -1  # a lost machine soon uses up any number
            return SimpleNamespace(remote=model)

        def embed_once(max_task_retries: int) -> Any:
            assert max_task_retries == 0  # Ray would return to the same worker
            return SimpleNamespace(
                remote=lambda *words: Task(lambda: embed(*words), is_waiting=False)
            )

        return SimpleNamespace(
            model=SimpleNamespace(remote=model, options=patient_model),
            embed=SimpleNamespace(options=embed_once),
        )

    def wait(
        self, tasks: list[Task], num_returns: int, timeout: float = 0
    ) -> tuple[list[Task], list[Task]]:
        self.most_at_once = max(self.most_at_once, len(tasks))
        if self.is_busy:
            return [], tasks
        ended = [task for task in tasks if not task.is_waiting]
        assert len(ended) >= num_returns
        return ended[-num_returns:], []

    def get(self, task: Task) -> Any:
        if task.error is not None:
            raise task.error
        return task.result

    def cluster_resources(self) -> dict[str, float]:
        return self.resources

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True}, {"Alive": False}]

    def shutdown(self) -> None:
        self.is_shut_down += 1


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeRay:
    ray = FakeRay()
    monkeypatch.setattr(ray_workers, "_connect", lambda address: ray)
    return ray


def test_rows_are_those_of_the_local_engine(
    fake: FakeRay, embedder: Counting, pictures: Path, uri: str, tmp_path: Path
) -> None:
    (pictures / "broken.png").write_bytes(b"no")
    sources = rsicd_embed.open_sources([pictures])
    local = f"exact:{tmp_path / 'local'}"
    with open_store(local, embedder=embedder) as store:
        expected = rsicd_embed.ingest(sources, embedder, store)
    progress: list[int] = []
    with RayWorkers(lambda: embedder, count=2) as workers:
        with open_store(uri, workers.provenance) as store:
            summary = ingest_with(sources, workers, store, progress=progress.append)
        assert rows(uri) == rows(local)
        assert list(rows(uri)) == list(rows(local))  # although later chunks ended first
        assert (summary.embedded, summary.skipped) == (5, expected.skipped)
        assert sum(progress) == 6
        assert len(fake.calls) == 3
        embedder.taken()
        with open_store(uri, workers.provenance) as store:
            again = ingest_with(sources, workers, store)
        assert (again.embedded, again.unchanged, embedder.taken()) == (0, 5, 0)
    assert fake.is_shut_down == 1


def test_few_chunks_are_sent_at_once(fake: FakeRay, embedder: Counting, tmp_path: Path) -> None:
    for number in range(60):
        (tmp_path / f"{number:02}.png").write_bytes(b"no")
    sources = rsicd_embed.open_sources([tmp_path])
    with (
        RayWorkers(lambda: embedder, count=1) as workers,
        open_store(f"exact:{tmp_path / 'store'}", workers.provenance) as store,
    ):
        summary = ingest_with(sources, workers, store)
    assert [Path(item.uri).stem for item in summary.skipped] == [f"{n:02}" for n in range(60)]
    assert fake.most_at_once == 2


def test_a_chunk_that_ends_its_workers(
    fake: FakeRay, embedder: Counting, pictures: Path, uri: str
) -> None:
    def failing(chunk: Sequence[Any]) -> None:
        if chunk[0].id == "c.jpg":
            raise RayError("The actor died unexpectedly\n\tclass_name: _Actor\n\tand more")

    fake.failing = failing
    sources = rsicd_embed.open_sources([pictures])
    with RayWorkers(lambda: embedder, count=1) as workers:
        with open_store(uri, workers.provenance) as store, pytest.raises(WorkerError) as caught:
            ingest_with(sources, workers, store)
        words = str(caught.value)
        assert "c.jpg to " in words
        assert "failed 8 times or could not run (The actor died unexpectedly); see" in words
        assert "\n" not in words
        assert [chunk[0].id for chunk in fake.calls].count("c.jpg") == 8
        fake.failing = lambda chunk: None
        with open_store(uri, workers.provenance) as store:
            summary = ingest_with(sources, workers, store)
        assert summary.embedded + summary.unchanged == 5


def test_a_worker_that_does_not_return(
    fake: FakeRay, embedder: Counting, pictures: Path, uri: str, tmp_path: Path
) -> None:
    def failing(chunk: Sequence[Any]) -> None:
        if not fake.gone:
            fake.gone.append(fake.callees[-1])
        if fake.callees[-1] in fake.gone:
            raise RayError("The actor died unexpectedly")

    sources = rsicd_embed.open_sources([pictures])
    local = f"exact:{tmp_path / 'local'}"
    with open_store(local, embedder=embedder) as store:
        rsicd_embed.ingest(sources, embedder, store)
    fake.failing = failing
    with (
        RayWorkers(lambda: embedder, count=2) as workers,
        open_store(uri, workers.provenance) as store,
    ):
        assert ingest_with(sources, workers, store).embedded == 5
        calls_before = len(fake.calls)
        assert ingest_with(sources, workers, store).unchanged == 5
    assert not {*fake.gone} & {*fake.callees[calls_before:]}
    assert rows(uri) == rows(local)
    calls = list(zip(fake.calls, fake.callees, strict=True))
    lost = [chunk for chunk, callee in calls if callee in fake.gone]
    assert lost
    embedded = [chunk for chunk, callee in calls if callee not in fake.gone]
    assert all(chunk in embedded for chunk in lost)


def test_code_that_fails_is_not_repeated(
    fake: FakeRay, embedder: Counting, pictures: Path, uri: str
) -> None:
    def failing(chunk: Sequence[Any]) -> None:
        raise RayTaskError("MemoryError: too much")

    fake.failing = failing
    with (
        RayWorkers(lambda: embedder, count=1) as workers,
        open_store(uri, workers.provenance) as store,
        pytest.raises(WorkerError, match=r"could not run \(MemoryError: too much\)"),
    ):
        ingest_with(rsicd_embed.open_sources([pictures]), workers, store)
    assert len(fake.calls) == 1


@pytest.mark.parametrize(
    ("resources", "count", "most"),
    [({"CPU": 2}, 3, "2 CPUs"), ({"CPU": 8, "GPU": 1}, 2, "1 GPUs"), ({"object": 1}, 1, "0 CPUs")],
)
def test_too_many_workers(
    fake: FakeRay, embedder: Counting, resources: Any, count: int, most: str
) -> None:
    fake.resources = resources
    with pytest.raises(WorkerError, match=f"as the cluster has {most}, found {count}; use fewer"):
        RayWorkers(lambda: embedder, count=count)
    assert fake.is_shut_down


def test_one_worker_per_accelerator(fake: FakeRay, embedder: Counting) -> None:
    for resources, options in (
        ({"CPU": 8.0, "GPU": 4.0}, {"num_gpus": 1}),
        ({"CPU": 8.0, "TPU": 4.0}, {"resources": {"TPU": 1}}),
        ({"CPU": 8.0}, {}),
    ):
        fake.resources = resources
        with RayWorkers(lambda: embedder) as workers:
            assert len(workers._actors) == (4 if options else 1)
            assert {name: fake.options.get(name) for name in options} == options


def test_models_that_cannot_be_loaded(fake: FakeRay, embedder: Counting, other_model: Path) -> None:
    def missing() -> Any:
        raise ModelError("expected a model, found nothing at /there")

    with pytest.raises(ModelError, match="found nothing at /there"):
        RayWorkers(missing)
    models = [embedder, rsicd_embed.load_embedder(other_model)]
    with pytest.raises(WorkerError, match="expected one model on all machines, found "):
        RayWorkers(models.pop, count=2)
    fake.is_busy = True
    with pytest.raises(WorkerError, match="expected 2 workers within 15 minutes, found 0; use"):
        RayWorkers(lambda: embedder, count=2)


def test_addresses() -> None:
    pytest.importorskip("ray")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    for address, words in (
        (f"127.0.0.1:{port}", f"expected a Ray cluster at 127.0.0.1:{port}, found none ("),
        (f"ray://127.0.0.1:{port}", "Connection refused); start one with: ray start --head"),
        ("nonsense", "expected --address HOST:PORT, ray://HOST:PORT or auto, found 'nonsense'"),
        ("http://a:1", "expected --address HOST:PORT, ray://HOST:PORT or auto, found"),
        ("a:b", "expected --address HOST:PORT"),
    ):
        with pytest.raises(RsicdEmbedError) as caught:
            ray_workers._connect(address)
        assert words in str(caught.value)


def test_command_line_errors(
    pictures: Path, uri: str, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("ingest", pictures, "--store", uri, "--model", tiny_model)
    for options in (["--workers", "2"], ["--address", "auto"]):
        outcome = run(*words, *options)
        assert outcome.status == 2
        assert "--address and --workers need --engine ray" in outcome.stderr
    assert run(*words, "--engine", "ray", "--workers", "0").status == 2
    monkeypatch.setitem(sys.modules, "ray", None)
    error = run(*words, "--engine", "ray").error
    assert error.endswith("expected ray, found none; install: pip install 'rsicd-embed[ray]'")


def test_notices_of_ray_are_not_on_stdout(
    fake: FakeRay, pictures: Path, uri: str, tiny_model: Path
) -> None:
    fake.failing = lambda chunk: print("(raylet) Task _Actor.model failed")  # noqa: T201
    words = ("ingest", pictures, "--store", uri, "--model", tiny_model, "--engine", "ray")
    outcome = run(*words, "--json")
    assert json.loads(outcome.stdout)["embedded"] == 5
    assert "(raylet) Task _Actor.model failed" in outcome.stderr
