"""What a run is, in OUT/run.json: settings, and digests of its data and its first weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rsicd_embed.datasets.base import Example
from rsicd_embed.errors import TrainError
from rsicd_embed.files import TEMPORARY, sync_folder, write_file
from rsicd_embed.train.config import TrainConfig, parse
from rsicd_embed.train.input.training_data import TrainingData

FILE, LOCK = "run.json", ".lock"

# Whatever these are, a run computes the same.
_FREE = ("checkpoint_every", "keep_last", "data.cache", "data.workers")


def require_own(out: Path) -> None:
    """Refuses a folder that holds what no run put there: files of a run would replace it.

    Raises:
        TrainError: naming one of its files.
    """
    if (out / FILE).exists() or not out.is_dir():
        return
    names = sorted(path.name for path in out.iterdir())
    foreign = [name for name in names if name != LOCK and not name.startswith(TEMPORARY)]
    if foreign:
        raise TrainError(
            f"expected the folder of a run, an empty one or none, found {foreign[0]} in {out} "
            f"and no {FILE}; give another --out"
        )


def of(config: TrainConfig, data: TrainingData) -> dict[str, Any]:
    """What a run is, but for `start`: the fingerprint of the checkpoint that it starts from."""
    said = {"settings": parse.flat(config), "data": _digest(data)}
    found: dict[str, Any] = json.loads(json.dumps(said))  # tuples are lists there
    return found


def read(out: Path) -> dict[str, Any] | None:
    """What the run in `out` is; None where there is none.

    Raises:
        TrainError: it cannot be read.
    """
    path = out / FILE
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(found, dict) and isinstance(found.get("settings"), dict):
            return found
    except ValueError:
        pass
    raise TrainError(f"{path}: expected what a run wrote, found something else; give another --out")


def write(out: Path, said: Mapping[str, Any]) -> None:
    """Begins a run."""
    text = json.dumps(said, indent=2) + "\n"
    write_file(out / FILE, lambda aside: aside.write_text(text, "utf-8"))
    sync_folder(out)


# Settings that earlier versions lacked, with the value that stands for what those did.
_ADDED: Mapping[str, Any] = {"data.class_synonyms": False}


def require_same(out: Path, found: Mapping[str, Any], said: Mapping[str, Any]) -> None:
    """Refuses to go on with the run `found` as what is `said`, as far as it is said.

    Raises:
        TrainError: settings that count, data or first weights differ.
    """
    changed = _changes(found["settings"], said.get("settings", found["settings"]))
    if changed:
        raise TrainError(
            f"{out} holds a run with other settings ({'; '.join(changed)}); give another --out"
        )
    for key, what in {"data": "data", "start": "first weights"}.items():
        if key in said and found.get(key) != said[key]:
            raise TrainError(f"{out} holds a run with other {what}; give another --out")


def _changes(was: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """`name=old, not new` of each setting that counts."""
    was, wanted = {**_ADDED, **was}, {**_ADDED, **wanted}
    return [
        f"{name}={_shown(was, name)}, not {_shown(wanted, name)}"
        for name in sorted({*was, *wanted} - {*_FREE})
        if _shown(was, name) != _shown(wanted, name)
    ]


def _shown(settings: Mapping[str, Any], name: str) -> str:
    return json.dumps(settings[name]) if name in settings else "unknown"


def _digest(data: TrainingData) -> str:
    """Hash of what is known of the images without reading them: another data set is told."""
    sha = hashlib.sha256()
    for part in (*_rows(data.train), list(data.weights), "val", *_rows(data.val)):
        sha.update(json.dumps(part).encode())
    return sha.hexdigest()[:16]


def _rows(examples: Sequence[Example]) -> Iterator[list[Any]]:
    for example in examples:
        try:
            size = example.path.stat().st_size
        except OSError:  # told when it is read
            size = None
        yield [example.id, example.captions, example.label, size]
