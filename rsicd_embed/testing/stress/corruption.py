"""Damaged copies of a store, opened, searched and scanned: an error or the right answer."""

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
from rsicd_embed.testing.stores.sample_rows import MADE_BY, batch, stored, unit
from rsicd_embed.testing.stress.damage import Files, damage
from rsicd_embed.testing.stress.stress_workers import StressWorker, opened, scratch

_ROWS = 240
_MEMORY_BYTES = 4 << 30  # that an answer may take beyond what libraries reserve
_EXAMPLES = 20

Answers = Mapping[str, object]


@dataclass
class Damaged:
    """How many copies gave what.

    Attributes:
        refused: an error of one line, from opening or from some later call.
        right: the damage does not matter: every answer is as before.
        unclear: an error, but not one of ours, or not in one line.
        wrong: an answer that is not the right one.
        crashed: the process died, or was stuck.
        kinds: of damage.
        examples: seeds and circumstances of the last three.
    """

    mutations: int = 0
    refused: int = 0
    right: int = 0
    unclear: int = 0
    wrong: int = 0
    crashed: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    examples: list[dict[str, Any]] = field(default_factory=list)

    def told(self, outcome: str, seed: int, detail: str) -> None:
        """Counts one copy."""
        self.mutations += 1
        setattr(self, outcome, getattr(self, outcome) + 1)
        same = sum(one["outcome"] == outcome for one in self.examples)
        if outcome not in ("refused", "right") and same < _EXAMPLES:
            self.examples.append({"outcome": outcome, "seed": seed, "detail": detail})


def corrupt(scheme: str, mutations: int, seed: int) -> Damaged:
    """Opens `mutations` damaged copies; the seeds are those from `seed` on."""
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
                for word, what, detail in worker.messages():
                    if word == "try":
                        following = what + 1
                        done.kinds[detail.partition(" of ")[0]] += 1
                    else:
                        done.told(word, following - 1, detail)
                detail += f": ended by signal {worker.signal}"
            except TimeoutError as error:
                detail += f": {error}"
            if done.mutations < following - seed:
                done.told("crashed", following - 1, detail)
            elif worker.process.exitcode:
                raise RuntimeError(f"the worker ended by itself: {detail}")
    return done


def make(tell: Callable[..., None], uri: str) -> None:
    """A small store with everything: an index, rows beside it, dead ones, equal ones, tags."""
    vectors = unit(_ROWS)
    vectors[5:10] = vectors[4]
    ids = [f"i{i}" for i in range(_ROWS)]
    words = [f"a caption of {i}" if i % 7 else None for i in range(_ROWS)]
    with open_store(uri, MADE_BY) as made:
        store = require_versioned(made)
        store.upsert([batch(ids, vectors, n=list(range(_ROWS)), caption=words)])
        store.optimize()
        store.tag("first")
        store.upsert([batch([*ids[:9], "new"], unit(10, seed=1), n=[7] * 10, caption=["c"] * 10)])
        store.delete(ids[20:24])
        store.tag("second")
        store.upsert([batch(["last"], unit(1, seed=2), n=[8], extra=[True])])
        store.delete(ids[30:32])
    tell("made")


def judge(tell: Callable[..., None], uri: str, files: Files, seeds: range) -> None:
    """Damages the copy at `uri`, asks, and mends it, for each seed."""
    folder = Path(uri.partition(":")[2])
    _write(folder, files, files)
    wanted = {name: ask() for name, ask in _questions(uri)}
    _limit_memory()
    with Path(os.devnull).open("wb") as nothing:  # panics of libraries in Rust
        os.dup2(nothing.fileno(), 2)
    for seed in seeds:
        hurt = damage(files, seed)
        tell("try", seed, str(hurt))
        _write(folder, hurt.changed, files)
        outcome, detail = _outcome(uri, wanted)
        tell(outcome, seed, f"{hurt}: {detail}")
        _write(folder, {name: files[name] for name in hurt.changed}, files)


def read_files(folder: Path) -> dict[str, bytes]:
    """The files of a store by their path in it, without locks."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in paths
        if not path.name.endswith(".lock")
    }


def _write(folder: Path, changed: Mapping[str, bytes | None], files: Files) -> None:
    """Puts contents in place, as new files: what is mapped from the old ones stays as it is."""
    for name, content in changed.items():
        path = folder / name
        path.unlink(missing_ok=True)
        if content is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


def _outcome(uri: str, wanted: Answers) -> tuple[str, str]:
    """How the store answers: the worst of all answers, and what it was."""
    worst, detail = "right", ""
    for name, ask in _questions(uri):
        try:
            answer = ask()
        except RsicdEmbedError as error:
            if "\n" in str(error):
                worst, detail = "unclear", f"{name}: {error}"
            elif worst == "right":
                worst, detail = "refused", f"{name}: {error}"
        except Exception as error:
            worst, detail = "unclear", f"{name}: {type(error).__name__}: {error}"
        except BaseException as error:  # a panic of a library in Rust is no Exception
            return "crashed", f"{name}: {type(error).__name__}: {error}"
        else:
            if answer != wanted[name]:
                return "wrong", f"{name}: expected {_brief(wanted[name])}, found {_brief(answer)}"
    return worst, detail


def _questions(uri: str) -> Iterator[tuple[str, Callable[[], object]]]:
    """What is asked of a store, each in its turn; all but the first come from one that is open."""
    held: list[VectorStore] = []

    def now() -> VectorStore:
        if not held:
            held.append(stack.enter_context(opened(uri)))
        return held[0]

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
    info = store.info()
    return len(store), *(getattr(info, name) for name in sorted(vars(info)) if name != "bytes")


def _limit_memory() -> None:
    reserved = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (reserved + _MEMORY_BYTES,) * 2)


def _brief(answer: object) -> str:
    text = repr(answer)
    return text if len(text) < 200 else f"{text[:120]} … of {len(text)} characters"
