"""The folder of a training run: its manifest, vocabulary, checkpoints and best model.

OUT/run.json        settings, and digests of the data, its images and the initial weights
OUT/tokenizer.json  the vocabulary learnt on the first start of a run from scratch
OUT/best/           the best model, in the Hugging Face layout
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import FileLock, Timeout
from tokenizers import Tokenizer as FastTokenizer

from rsicd_embed.datasets.base import Example
from rsicd_embed.embedder import export_model
from rsicd_embed.embedder.clip import weights
from rsicd_embed.embedder.clip.backends.on_jax import JaxTowers
from rsicd_embed.embedder.clip.embedder import ClipEmbedder
from rsicd_embed.embedder.clip.parts import ModelParts
from rsicd_embed.embedder.training_words import TrainingWords
from rsicd_embed.errors import TrainError
from rsicd_embed.files import (
    TEMPORARY,
    storage_errors,
    sync_file,
    sync_folder,
    write_file,
)
from rsicd_embed.train import initialization
from rsicd_embed.train.card import DataCard, model_card
from rsicd_embed.train.checkpoint import has_checkpoints
from rsicd_embed.train.config import SHAPES, TrainConfig, parse
from rsicd_embed.train.distributed import is_writer, wait_for_all
from rsicd_embed.train.initialization import Start
from rsicd_embed.train.input.caption_draws import trained_words
from rsicd_embed.train.input.pixels import contents_digest
from rsicd_embed.train.input.training_data import TrainingData
from rsicd_embed.train.observers import Row

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_MANIFEST, _LOCK = "run.json", ".lock"

# Settings that do not affect the results of a run.
_FREE = ("checkpoint_every", "keep_last", "data.cache", "data.workers")
# Settings that earlier versions lacked, with the value that reproduces their behaviour.
_ADDED: Mapping[str, object] = {"data.class_synonyms": False}


@dataclass(frozen=True)
class Run:
    """A model being trained, and the folder of its files.

    Attributes:
        config: settings.
        out: the run's folder.
        start: the model before its first step.
        data: facts about the data for the model card.
        words: words that the text tower is trained on; None if those of the checkpoint are unknown.
    """

    config: TrainConfig
    out: Path
    start: Start
    data: DataCard
    words: TrainingWords | None

    def embedder(self, params: Any) -> ClipEmbedder:
        """The model with these parameters, for evaluation."""
        shape, pixels = self.start.shape, self.start.preprocessor
        parts = ModelParts(shape, weights.params_to_hf(params), self.start.tokenizer, pixels)
        return ClipEmbedder(parts, JaxTowers(shape, params, pixels), name=str(self.best))

    @property
    def best(self) -> Path:
        """Directory of the best model."""
        return self.out / "best"

    def export(self, params: Any, row: Row) -> None:
        """Replaces `best` atomically with a model in float16: written aside, synced, renamed."""

        def write(aside: Path) -> None:
            export_model.save(
                aside,
                self.start.shape,
                params,
                self.start.tokenizer,
                self.start.preprocessor,
                dtype=np.float16,
            )
            card = model_card(self.config, self.data, row, self.start.licence)
            (aside / "README.md").write_text(card, encoding="utf-8")
            if self.words is not None:
                self.words.write(aside)

        replace_directory(self.best, write)


def replace_directory(directory: Path, write: Callable[[Path], object]) -> None:
    """Replaces a directory of files atomically: `write` fills a new one, synced and renamed.

    Raises:
        StoreError: it cannot be written; the earlier one is kept, perhaps as `NAME.old`.
    """
    aside = directory.with_name(f"{directory.name}.new")
    old = directory.with_name(f"{directory.name}.old")
    with storage_errors(f"cannot write {directory}"):
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir()
        write(aside)
        for path in aside.iterdir():
            sync_file(path)
        sync_folder(aside)
        shutil.rmtree(old, ignore_errors=True)
        if directory.exists():
            directory.rename(old)
        aside.rename(directory)
        sync_folder(directory.parent)
        shutil.rmtree(old, ignore_errors=True)


@dataclass(frozen=True)
class RunManifest:
    """Contents of run.json, which identify a run.

    Attributes:
        settings: settings by dotted name, as JSON reads them.
        data: digest of the data; None in a file that lacks it.
        start: fingerprint of the checkpoint that training starts from; empty from scratch.
        images: digest of the contents of image files; None in a file that lacks it, and in
            processes that do not write.
        captioner: digest of the captioner or GPT-2 that training a captioner starts from; None in a
            file that lacks it, and from scratch.
    """

    settings: dict[str, object]
    data: str | None
    start: str | None
    images: str | None = None
    captioner: str | None = None

    @classmethod
    def of(
        cls, config: DataclassInstance, data: TrainingData, start: str | None = None
    ) -> RunManifest:
        """Describes a run. Reads all images, which takes less time than an epoch.

        Raises:
            TrainError: an image cannot be read.
        """
        settings = json.loads(json.dumps(parse.flat(config)))  # lists instead of tuples
        images = contents_digest((*data.train, *data.val)) if is_writer() else None
        return cls(settings, _digest(data), start, images)

    @classmethod
    def read(cls, out: Path) -> RunManifest | None:
        """Reads the manifest of the run in `out`; None if there is none."""
        path = out / _MANIFEST
        if not path.exists():
            return None
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if isinstance(content, dict) and isinstance(content.get("settings"), dict):
                facts = (content.get(name) for name in ("data", "start", "images", "captioner"))
                return cls(content["settings"], *facts)
        except ValueError:
            pass
        raise TrainError(
            f"{path}: expected the manifest of a run, found something else; give another --out"
        )

    def write(self, out: Path) -> None:
        """Writes run.json."""
        text = json.dumps(asdict(self), indent=2) + "\n"
        write_file(out / _MANIFEST, lambda aside: aside.write_text(text, "utf-8"))
        sync_folder(out)

    def require_same(self, out: Path, other: RunManifest) -> None:
        """Raises unless the run in `out`, which this describes, can resume as `other`."""
        old, new = {**_ADDED, **self.settings}, {**_ADDED, **other.settings}
        changed = [
            f"{name}={_shown(old, name)}, not {_shown(new, name)}"
            for name in sorted({*old, *new} - {*_FREE})
            if _shown(old, name) != _shown(new, name)
        ]
        if changed:
            raise TrainError(
                f"{out} contains a run with other settings ({'; '.join(changed)}); "
                "give another --out"
            )
        differs = {
            "data": other.data != self.data,
            "images": None not in (self.images, other.images) and other.images != self.images,
            "initial weights": other.start not in (None, self.start),
            "initial captioner": None not in (self.captioner, other.captioner)
            and other.captioner != self.captioner,
        }
        for subject, differ in differs.items():
            if differ:
                raise TrainError(f"{out} contains a run with other {subject}; give another --out")


@contextmanager
def open_run(config: TrainConfig, data: TrainingData, out: Path) -> Iterator[Run]:
    """Starts a run in `out`, or resumes the one there; locks the folder meanwhile.

    Raises:
        TrainError: another process is training there, the run there has other settings, data or
            initial weights, or the folder contains something else.
        ModelError: the checkpoint to start from cannot be used.
    """
    with storage_errors(f"cannot write to {out}"), ExitStack() as stack:
        if is_writer():
            stack.enter_context(claimed(out))
            start = _start(config, data, out)
            wait_for_all("run has started")
        else:
            wait_for_all("run has started")
            start = _start(config, data, out)
        card = DataCard.of(data.train, data.val, data.names)
        yield Run(config, out, start, card, _words(config, data, start))


@contextmanager
def claimed(out: Path) -> Iterator[None]:
    """Creates and locks the folder of a run.

    Raises:
        TrainError: another process is training there, or the folder holds something else.
    """
    _require_own(out)
    out.mkdir(parents=True, exist_ok=True)
    lock = FileLock(out / _LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise TrainError(f"another process is training in {out}; give another --out") from None
    try:
        yield
    finally:
        lock.release()


def _words(config: TrainConfig, data: TrainingData, start: Start) -> TrainingWords | None:
    if start.words is None or not is_writer():
        return None
    classes, synonyms = config.data.class_captions > 0, config.data.class_synonyms
    return start.words.merged(trained_words(data.train, classes, synonyms=synonyms))


def _start(config: TrainConfig, data: TrainingData, out: Path) -> Start:
    vocabulary, manifest = out / "tokenizer.json", RunManifest.of(config, data)
    stored = RunManifest.read(out)
    if stored is not None and is_writer() and not has_checkpoints(out / "checkpoints"):
        stored = None  # the run never completed a step, perhaps because of a wrong setting
    if stored is not None:
        stored.require_same(out, manifest)
    learnt = None
    if config.model.init is not None:
        start = initialization.from_checkpoint(config.model.init)
    else:
        shape = config.model.shape
        if stored is None or not vocabulary.exists():
            captions = (caption for example in data.train for caption in example.captions)
            learnt = initialization.learn_vocabulary(captions, SHAPES[shape].vocab_size)
        tokens = learnt or _read_vocabulary(vocabulary)
        start = initialization.from_scratch(shape, tokens, config.seed)
    manifest = replace(manifest, start=start.origin)
    if stored is None:
        manifest.write(out)
    else:
        stored.require_same(out, manifest)
    if learnt is not None:  # after run.json, which marks the folder as a run's
        write_file(vocabulary, lambda aside: learnt.save(str(aside)))
    if not (out / "best").exists() and (out / "best.old").exists():  # stopped between renames
        (out / "best.old").rename(out / "best")
    return start


def _require_own(out: Path) -> None:
    """Refuses a folder with foreign files, which a run might overwrite."""
    if (out / _MANIFEST).exists() or not out.is_dir():
        return
    names = sorted(path.name for path in out.iterdir())
    foreign = [name for name in names if name != _LOCK and not name.startswith(TEMPORARY)]
    if foreign:
        raise TrainError(
            f"expected an empty or absent folder, or that of a run, found {foreign[0]} in {out} "
            f"and no {_MANIFEST}; give another --out"
        )


def _read_vocabulary(path: Path) -> FastTokenizer:
    try:
        return FastTokenizer.from_file(str(path))
    except Exception as error:  # the library raises no narrower class
        raise TrainError(
            f"{path}: expected a vocabulary, found something else; delete it, and it is learnt "
            "again from the same captions"
        ) from error


def _shown(settings: Mapping[str, object], name: str) -> str:
    return json.dumps(settings[name]) if name in settings else "unknown"


def _digest(data: TrainingData) -> str:
    """Hash of ids, captions, labels and file sizes, to notice another dataset."""
    sha = hashlib.sha256()
    for part in (*_rows(data.train), list(data.weights), "val", *_rows(data.val)):
        sha.update(json.dumps(part).encode())
    return sha.hexdigest()[:16]


def _rows(examples: Sequence[Example]) -> Iterator[list[Any]]:
    for example in examples:
        try:
            size = example.path.stat().st_size
        except OSError:  # reported when the image is read
            size = None
        yield [example.id, example.captions, example.label, size]
