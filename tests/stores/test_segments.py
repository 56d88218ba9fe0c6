"""Stores on a folder of segments, beyond the contract."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import filelock
import numpy as np
import pytest

from rsicd_embed import files
from rsicd_embed.errors import (
    StoreCorruptError,
    StoreError,
    StoreLockedError,
    StoreNotFoundError,
    StoreURIError,
)
from rsicd_embed.stores import nmslib, opening
from rsicd_embed.stores.base import open_store, require_versioned
from rsicd_embed.stores.planner import SearchCosts
from tests.stress.workers import StressWorker

from .contract import MADE_BY, batch, stored, unit

SCHEMES = ("exact", "nmslib")


@pytest.fixture(autouse=True)
def search_graphs_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nmslib, "_COSTS", SearchCosts(0, 0, 1))


@pytest.fixture(params=SCHEMES)
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"{request.param}:{tmp_path / 'store'}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "store"


def filled(uri: str, rows: int = 1200) -> None:
    """A store with a merged segment (and a graph), fresh rows and dead rows."""
    with open_store(uri, MADE_BY) as store:
        store.upsert([batch([f"i{i}" for i in range(rows)], unit(rows), n=[0] * rows)])
        store.optimize()
        store.upsert([batch(["i1", "new"], unit(2, seed=1), n=[1, 1])])
        store.delete(["i2"])


def used(uri: str) -> dict[str, object]:
    """Opens, reads and searches everything."""
    with open_store(uri) as store:
        hits = store.search(unit(5, seed=9), k=10)
        return {"rows": stored(store), "hits": hits.to_pylist()}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock")


@pytest.mark.parametrize("prefix", ["manifest", "vectors", "rows", "dead", "graph"])
def test_damage_is_an_error(uri: str, folder: Path, prefix: str) -> None:
    """Flipped bytes, truncation, loss, garbage and swaps give an error, never a crash or hits."""
    filled(uri)
    files = [name for name in names(folder) if name.startswith(prefix)]
    if prefix == "graph" and uri.startswith("exact"):
        assert files == []
        return
    assert files
    others = [name for name in names(folder) if name not in files]
    random = np.random.default_rng(0)
    for name in files:
        path = folder / name
        whole = path.read_bytes()

        def flipped(whole: bytes = whole) -> bytes:
            raw = bytearray(whole)
            raw[random.integers(len(raw))] ^= 1 << int(random.integers(8))
            return bytes(raw)

        damages: list[Callable[[], bytes]] = [flipped] * 8
        damages += [lambda w=whole: w[:-1], lambda w=whole: w + b"\0", lambda: b""]
        damages += [lambda w=whole: bytes(len(w)), lambda w=whole: w[: len(w) // 2]]
        damages += [(folder / others[0]).read_bytes]
        for damage in damages:
            path.write_bytes(damage())
            with pytest.raises((StoreCorruptError, StoreError)) as caught:
                used(uri)
            assert str(folder) in str(caught.value)
            assert "\n" not in str(caught.value)
        path.unlink()
        with pytest.raises(StoreError, match=r"is gone|is not a store"):
            used(uri)
        path.write_bytes(whole)
        used(uri)


def test_optimize_rebuilds_a_damaged_graph(tmp_path: Path) -> None:
    uri = f"nmslib:{tmp_path}/store"
    filled(uri)
    expected = used(uri)["rows"]
    (graph,) = (tmp_path / "store").glob("graph-*")
    graph.write_bytes(graph.read_bytes()[::-1])
    with pytest.raises(StoreCorruptError, match=r"optimize\(\)"):
        used(uri)
    with open_store(uri) as store:
        store.optimize()
    assert used(uri)["rows"] == expected


def test_manifest_of_another_version_or_program(uri: str, folder: Path) -> None:
    filled(uri, rows=3)
    path = folder / "manifest.json"
    whole = json.loads(path.read_text())
    path.write_text(json.dumps(whole | {"version": 1}))
    with pytest.raises(StoreCorruptError, match="expected format version 2, found 1; read it"):
        open_store(uri)
    for other in ('{"format": "another"}', "[]", "3", "", "\x00", '{"format"'):
        path.write_text(other)
        with pytest.raises(StoreCorruptError, match="is damaged or not a manifest"):
            open_store(uri, MADE_BY)


def test_another_kind(tmp_path: Path) -> None:
    filled(f"exact:{tmp_path}/store", rows=3)
    with pytest.raises(StoreError, match=r"of kind 'exact', not 'nmslib'; open it as exact:"):
        open_store(f"nmslib:{tmp_path}/store", MADE_BY)


@pytest.mark.parametrize("scheme", ["exact", "nmslib", "lancedb"])
def test_a_store_in_the_current_folder(
    scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    filled(f"{scheme}:.", rows=3)
    with open_store(f"{scheme}:{tmp_path}") as store:
        assert len(store) == 3


def test_invalid_uris(uri: str) -> None:
    with pytest.raises(StoreURIError, match="have no tables"):
        open_store(f"{uri}#tiles", MADE_BY)
    with pytest.raises(StoreError, match="there is no home folder ~nobody-there"):
        open_store("exact:~nobody-there/store", MADE_BY)
    with pytest.raises(StoreURIError, match="expected a local folder"):
        open_store(f"{uri.partition(':')[0]}:s3://bucket/store", MADE_BY)


def test_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    open_store("exact:~/tiles", MADE_BY).close()
    assert (tmp_path / "tiles" / "manifest.json").exists()


def test_many_small_upserts_leave_few_files(uri: str, folder: Path) -> None:
    with open_store(uri, MADE_BY) as store:
        for i in range(80):
            store.upsert([batch([f"i{i}"], unit(1, seed=i), n=[i])])
        assert len(names(folder)) < 12
        assert len(store) == 80
        assert {row["n"] for row in stored(store).values()} == set(range(80))
        for i in range(79):
            store.delete([f"i{i}"])
        assert set(stored(store)) == {"i79"}
        store.optimize()
        assert len(names(folder)) == 3


def test_locked(uri: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(uri, rows=3)
    monkeypatch.setattr(opening, "LOCK_TIMEOUT_S", 0.01)
    with open_store(uri) as store, filelock.FileLock(folder / ".lock"):
        before = stored(store)
        for write in (
            lambda: store.upsert([batch(["z"])]),
            lambda: store.delete(["i1"]),
            store.optimize,
        ):
            with pytest.raises(StoreLockedError, match="another process"):
                write()
        assert stored(store) == before


@pytest.mark.parametrize("function", ["fsync", "replace"])
@pytest.mark.parametrize("turn", range(8))
def test_full_disk(
    uri: str, folder: Path, function: str, turn: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each step of a write may fail, and leaves the old state or the new one."""
    filled(uri, rows=30)
    calls = iter(range(10**6))
    real = getattr(os, function)

    def fails_once(*args: object) -> object:
        if next(calls) == turn:
            raise OSError(28, "No space left on device")
        return real(*args)

    with open_store(uri) as store:
        old = stored(store)
        files = names(folder)
        with monkeypatch.context() as patch:
            patch.setattr(os, function, fails_once)
            failed = None
            try:
                store.upsert([batch(["i1", "z"], unit(2, seed=4), n=[2, 2])])
            except StoreError as error:
                failed = str(error)
        assert failed is None or "No space left on device; free some space" in failed
        new = stored(store)
        if new == old:
            assert failed
            assert names(folder) == files
        else:
            assert set(new) == set(old) | {"z"}
            assert new["i1"]["n"] == 2
        with open_store(uri) as other:
            assert stored(other) == new
        store.upsert([batch(["y"])])
        assert set(stored(store)) == set(new) | {"y"}


def test_read_only_folder(uri: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(uri, rows=3)
    real = os.open

    def refuse(path: object, flags: int, *args: object, **kwargs: object) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            raise PermissionError(13, "Permission denied", path)
        return real(path, flags, *args, **kwargs)  # type: ignore[arg-type]

    with open_store(uri) as store:
        before = stored(store)
        with monkeypatch.context() as patch:
            patch.setattr(os, "open", refuse)
            with pytest.raises(StoreError, match="Permission denied; make the folder writable"):
                store.upsert([batch(["z"])])
            assert stored(store) == before


def upsert_and_merge(send: Callable[..., None], uri: str, turn: int) -> None:
    """Dies before the `turn`-th fsync or rename of an upsert and a merge."""
    steps = 0

    def dies(real: Callable[..., None]) -> Callable[..., None]:
        def call(*arguments: object) -> None:
            nonlocal steps
            steps += 1
            if steps == turn:
                os.kill(os.getpid(), signal.SIGKILL)
            real(*arguments)

        return call

    with open_store(uri) as store:
        os.fsync, os.replace = dies(os.fsync), dies(os.replace)
        store.upsert([batch(["i1", "z"], unit(2, seed=4), n=[2, 2])])
        store.optimize()
    send("finished")


def test_killed_at_each_step(uri: str, folder: Path) -> None:
    filled(uri)
    with open_store(uri) as store:
        old = stored(store)
    finished = False
    upserted = False
    for turn in range(1, 40, 3):
        worker = StressWorker(upsert_and_merge, uri, turn)
        finished = list(worker.messages()) == [("finished",)]
        with open_store(uri) as store:
            new = stored(store)
            assert new == old or (set(new) == set(old) | {"z"} and new["z"]["n"] == 2)
            upserted = upserted or new != old
            assert upserted == (new != old)
            used(uri)
        assert worker.process.exitcode == (0 if finished else -signal.SIGKILL)
        if finished:
            break
    assert finished
    assert upserted
    with open_store(uri) as store:
        store.upsert([batch(["y"])])
        assert not [name for name in names(folder) if name.startswith(".tmp-")]
        assert set(stored(store)) == set(old) | {"y", "z"}


def test_state_replaced_during_a_read(
    uri: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files of the manifest just read may be gone, as a newer manifest lists others."""
    from rsicd_embed.stores.segments.segment_log import SegmentLog

    filled(uri, rows=30)
    writer = open_store(uri)
    reader = open_store(uri)
    real = SegmentLog._load
    turns = iter(range(3))

    def slow(log: SegmentLog, raw: bytes) -> object:
        if log is reader._log and next(turns, None) is not None:
            writer.upsert([batch(["late"], n=[len(raw)])])
            writer.optimize()
        return real(log, raw)

    writer.upsert([batch(["i3"], n=[5])])
    monkeypatch.setattr(SegmentLog, "_load", slow)
    assert set(stored(reader)) >= {"late", "i3"}
    assert next(turns, None) is None


def test_store_is_moved(uri: str, folder: Path) -> None:
    filled(uri, rows=3)
    store = open_store(uri)
    folder.rename(folder.with_name("elsewhere"))
    with pytest.raises(StoreError, match="is gone"):
        store.search(unit(1))
    with pytest.raises(StoreNotFoundError):
        open_store(uri)


def test_scan_survives_later_writes(uri: str) -> None:
    filled(uri, rows=500)
    with open_store(uri) as store:
        reader = store.scan(["id", "n"])
        store.delete([f"i{i}" for i in range(400)])
        store.optimize()
        assert reader.read_all().num_rows == 500


def test_swapped_lost_and_promoted_tags(uri: str, folder: Path) -> None:
    """Each manifest names its state, and the newest one lists the tags."""
    filled(uri, rows=30)
    with open_store(uri) as opened:
        store = require_versioned(opened)
        store.tag("one")
        store.upsert([batch(["z"])])
        store.tag("two")
    first, second, newest = (
        folder / name for name in ("tag-one.json", "tag-two.json", "manifest.json")
    )
    contents = {path: path.read_bytes() for path in (first, second, newest)}
    first.write_bytes(contents[second])
    second.write_bytes(contents[first])
    store = require_versioned(open_store(uri))
    for use in (store.tags, lambda: store.as_of("one"), lambda: store.restore("two")):
        with pytest.raises(StoreCorruptError, match="is damaged"):
            use()
    first.unlink()
    for use in (store.tags, lambda: store.as_of("one")):
        with pytest.raises(StoreCorruptError, match=r"tag-one.json is gone"):
            use()
    store.untag("one")  # a damaged tag can be deleted
    second.write_bytes(contents[second])
    assert list(store.tags()) == ["two"]
    newest.write_bytes(contents[second])
    with pytest.raises(StoreCorruptError, match="is damaged: it describes another state"):
        open_store(uri)


def test_failed_sync_undoes_the_last_rename(
    uri: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(uri, rows=30)
    renamed = []
    replace, sync = os.replace, files.sync_folder

    def notes(source: Path, target: Path) -> None:
        renamed.append(target.name)
        replace(source, target)

    def fails(path: Path) -> None:
        if renamed[-1:] == ["manifest.json"]:
            raise OSError(5, "Input/output error")
        sync(path)

    with open_store(uri) as store:
        before, left = stored(store), names(folder)
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", notes)
            patch.setattr(files, "sync_folder", fails)
            with pytest.raises(StoreError, match="stays as it was: Input/output error"):
                store.upsert([batch(["z"])])
        assert stored(store) == before
        assert names(folder) == left
