"""Damaged copies of a store must give an error or the correct result."""

from __future__ import annotations

import os
import resource
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from rsicd_embed.errors import RsicdEmbedError
from rsicd_embed.stores.base import VectorStore, open_store, require_versioned
from rsicd_embed.testing.stores import MADE_BY, batch, stored, unit

from .damage import Files, damage
from .workers import StressWorker, opened, scratch

_ROWS = 240
_MEMORY_BYTES = 4 << 30  # limit beyond what libraries reserve
_EXAMPLES = 20

Results = Mapping[str, object]


@dataclass
class Damaged:
    """The number of damaged copies by outcome.

    Attributes:
        mutations: number of copies.
        refused: a one-line error, from opening the store or from a later call.
        right: every result is correct, as the damage does not matter.
        unclear: an error of another library, or of several lines.
        wrong: a wrong result.
        crashed: the process died or hung.
        kinds: number of copies by kind of damage.
        examples: seeds and details of bad outcomes.
    """

    mutations: int = 0
    refused: int = 0
    right: int = 0
    unclear: int = 0
    wrong: int = 0
    crashed: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    examples: list[dict[str, Any]] = field(default_factory=list)

    def count(self, outcome: str, seed: int, detail: str) -> None:
        """Counts a copy."""
        self.mutations += 1
        setattr(self, outcome, getattr(self, outcome) + 1)
        examples = sum(example["outcome"] == outcome for example in self.examples)
        if outcome not in ("refused", "right") and examples < _EXAMPLES:
            self.examples.append({"outcome": outcome, "seed": seed, "detail": detail})


def corrupt(scheme: str, mutations: int, seed: int) -> Damaged:
    """Opens `mutations` damaged copies, with seeds from `seed` on."""
    done = Damaged()
    with scratch() as folder:
        uri = f"{scheme}:{folder}/store"
        list(StressWorker(make, uri).messages())
        files = read_files(Path(folder, "store"))
        following = seed
        while done.mutations < mutations:
            worker = StressWorker(judge, uri, files, range(following, seed + mutations))
            detail = "before the first"
            try:
                for word, value, detail in worker.messages():
                    if word == "try":
                        following = value + 1
                        done.kinds[detail.partition(" of ")[0]] += 1
                    else:
                        done.count(word, following - 1, detail)
                detail += f": ended by signal {worker.signal}"
            except TimeoutError as error:
                detail += f": {error}"
            if done.mutations < following - seed:
                done.count("crashed", following - 1, detail)
            elif worker.process.exitcode:
                raise RuntimeError(f"the worker ended by itself: {detail}")
    return done


def make(send: Callable[..., None], uri: str) -> None:
    """Creates a small store with an index, fresh, dead and equal rows, and tags."""
    vectors = unit(_ROWS)
    vectors[5:10] = vectors[4]
    ids = [f"i{i}" for i in range(_ROWS)]
    words = [f"a caption of {i}" if i % 7 else None for i in range(_ROWS)]
    with open_store(uri, MADE_BY) as opened_store:
        store = require_versioned(opened_store)
        store.upsert([batch(ids, vectors, n=list(range(_ROWS)), caption=words)])
        store.optimize()
        store.tag("first")
        store.upsert([batch([*ids[:9], "new"], unit(10, seed=1), n=[7] * 10, caption=["c"] * 10)])
        store.delete(ids[20:24])
        store.tag("second")
        store.upsert([batch(["last"], unit(1, seed=2), n=[8], extra=[True])])
        store.delete(ids[30:32])
    send("made")


def judge(send: Callable[..., None], uri: str, files: Files, seeds: range) -> None:
    """For each seed: damages the copy at `uri`, queries it, and repairs it."""
    folder = Path(uri.partition(":")[2])
    _write(folder, files, files)
    expected = {name: query() for name, query in _queries(uri)}
    _limit_memory()
    with Path(os.devnull).open("wb") as nothing:  # hides panics of Rust libraries
        os.dup2(nothing.fileno(), 2)
    for seed in seeds:
        damaged = damage(files, seed)
        send("try", seed, str(damaged))
        _write(folder, damaged.changed, files)
        outcome, detail = _outcome(uri, expected)
        send(outcome, seed, f"{damaged}: {detail}")
        _write(folder, {name: files[name] for name in damaged.changed}, files)


def read_files(folder: Path) -> dict[str, bytes]:
    """The files of a store by relative path, without lock files."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in paths
        if not path.name.endswith(".lock")
    }


def _write(folder: Path, changed: Mapping[str, bytes | None], files: Files) -> None:
    """Writes contents as new files, as the old ones may still be mapped."""
    for name, content in changed.items():
        path = folder / name
        path.unlink(missing_ok=True)
        if content is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


def _outcome(uri: str, expected: Results) -> tuple[str, str]:
    """The worst outcome of all queries, and its details."""
    worst, detail = "right", ""
    for name, query in _queries(uri):
        try:
            result = query()
        except RsicdEmbedError as error:
            if "\n" in str(error):
                worst, detail = "unclear", f"{name}: {error}"
            elif worst == "right":
                worst, detail = "refused", f"{name}: {error}"
        except Exception as error:
            worst, detail = "unclear", f"{name}: {type(error).__name__}: {error}"
        except BaseException as error:  # a panic of a Rust library is not an Exception
            return "crashed", f"{name}: {type(error).__name__}: {error}"
        else:
            if result != expected[name]:
                return (
                    "wrong",
                    f"{name}: expected {_brief(expected[name])}, found {_brief(result)}",
                )
    return worst, detail


def _queries(uri: str) -> Iterator[tuple[str, Callable[[], object]]]:
    """Queries of a store by name; the first one that succeeds opens it."""
    stores: list[VectorStore] = []

    def now() -> VectorStore:
        if not stores:
            stores.append(stack.enter_context(opened(uri)))
        return stores[0]

    def as_of(tag: str) -> VectorStore:
        return stack.enter_context(require_versioned(now()).as_of(tag))

    def scan_of(tag: str) -> object:
        return stored(as_of(tag))

    def search_of(tag: str) -> object:
        return as_of(tag).search(queries, k=3).to_pylist()

    queries = unit(3, seed=9)
    with ExitStack() as stack:
        yield "search", lambda: now().search(queries, k=7).to_pylist()
        yield "where", lambda: now().search(queries, k=300, where="n < 50").to_pylist()
        yield "scan", lambda: stored(now())
        yield "some", lambda: _rows(now(), ["id", "extra"], "caption IS NOT NULL")
        yield "info", lambda: _info(now())
        yield "tags", lambda: require_versioned(now()).tags()
        for tag in ("first", "second"):
            yield f"scan of {tag}", partial(scan_of, tag)
            yield f"search of {tag}", partial(search_of, tag)


def _rows(store: VectorStore, columns: list[str], where: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = store.scan(columns, where).read_all().to_pylist()
    return sorted(rows, key=lambda row: str(row["id"]))


def _info(store: VectorStore) -> tuple[object, ...]:
    """Everything but the size, and the index, of which `info` says that it is damaged."""
    info = store.info()
    names = sorted(vars(info).keys() - {"bytes", "index"})
    return len(store), *(getattr(info, name) for name in names)


def _limit_memory() -> None:
    reserved = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (reserved + _MEMORY_BYTES,) * 2)


def _brief(result: object) -> str:
    text = repr(result)
    return text if len(text) < 200 else f"{text[:120]} … of {len(text)} characters"
