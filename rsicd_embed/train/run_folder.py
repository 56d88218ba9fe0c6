"""A training run's folder: what is trained, on what, and the best model so far.

OUT/run.json        see `identity`
OUT/tokenizer.json  the vocabulary of a model from nothing, learnt on the first start
OUT/best/           the best model, in the Hugging Face layout
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from tokenizers import Tokenizer as FastTokenizer

from rsicd_embed.embedder import export_model
from rsicd_embed.embedder.clip import weights
from rsicd_embed.embedder.clip.backends.on_jax import JaxTowers
from rsicd_embed.embedder.clip.embedder import ClipEmbedder
from rsicd_embed.embedder.clip.parts import ModelParts
from rsicd_embed.embedder.training_words import TrainingWords
from rsicd_embed.errors import TrainError
from rsicd_embed.files import storage_errors, sync_file, sync_folder, write_file
from rsicd_embed.train import initialization as starts
from rsicd_embed.train import run_manifest
from rsicd_embed.train.card import DataCard, model_card
from rsicd_embed.train.checkpoint import saved
from rsicd_embed.train.config import TrainConfig
from rsicd_embed.train.distributed import is_writer, wait_for_all
from rsicd_embed.train.initialization import Start
from rsicd_embed.train.input.caption_draws import trained_words
from rsicd_embed.train.input.training_data import TrainingData


@dataclass(frozen=True)
class Run:
    """A model being trained, and where its files go.

    Attributes:
        config: settings.
        out: the run's folder.
        start: the model before its first step.
        data: the figures of the data for the model card.
        words: what the text tower is trained on; None where it began with captions not known here.
    """

    config: TrainConfig
    out: Path
    start: Start
    data: DataCard
    words: TrainingWords | None

    def embedder(self, params: Any) -> ClipEmbedder:
        """The model as it stands, for evaluation."""
        shape, pixels = self.start.shape, self.start.preprocessor
        parts = ModelParts(shape, weights.params_to_hf(params), self.start.tokenizer, pixels)
        return ClipEmbedder(parts, JaxTowers(shape, params, pixels), name=str(self.best))

    @property
    def best(self) -> Path:
        """Where the best model is."""
        return self.out / "best"

    def export(self, params: Any, row: Mapping[str, Any]) -> None:
        """Puts a model in `best`, in float16, whole: written aside, synced, renamed.

        Args:
            params: of the model.
            row: the journal's row of its epoch, for the card.
        """
        aside, old = self.out / "best.new", self.out / "best.old"
        with storage_errors(f"cannot write {self.best}"):
            shutil.rmtree(aside, ignore_errors=True)
            export_model.save(
                aside,
                self.start.shape,
                params,
                self.start.tokenizer.stored(),
                self.start.preprocessor,
                dtype=np.float16,
            )
            card = model_card(self.config, self.data, row, self.start.licence)
            (aside / "README.md").write_text(card, encoding="utf-8")
            if self.words is not None:
                self.words.write(aside)
            for path in aside.iterdir():
                sync_file(path)
            sync_folder(aside)
            shutil.rmtree(old, ignore_errors=True)
            if self.best.exists():
                self.best.rename(old)
            aside.rename(self.best)
            sync_folder(self.out)
            shutil.rmtree(old, ignore_errors=True)


@contextmanager
def open_run(config: TrainConfig, data: TrainingData, out: Path) -> Iterator[Run]:
    """Begins a run in `out`, or takes up the one that is there; one process at a time.

    Raises:
        TrainError: another process is at it, it has other settings, data or another start, or the
            folder holds something else.
        ModelError: the checkpoint to start from is none.
    """
    with storage_errors(f"cannot write to {out}"), ExitStack() as stack:
        if is_writer():
            run_manifest.require_own(out)
            out.mkdir(parents=True, exist_ok=True)
            try:
                stack.enter_context(FileLock(out / run_manifest.LOCK, timeout=0))
            except Timeout:
                raise TrainError(
                    f"another process is training in {out}; give another --out"
                ) from None
            start = _start(config, data, out)
            wait_for_all("run is begun")
        else:
            wait_for_all("run is begun")
            start = _start(config, data, out)
        card = DataCard.of(data.train, data.val, data.names)
        yield Run(config, out, start, card, _words(config, data, start))


def _words(config: TrainConfig, data: TrainingData, start: Start) -> TrainingWords | None:
    if start.words is None or not is_writer():
        return None
    classes, synonyms = config.data.class_captions > 0, config.data.class_synonyms
    return start.words.merged(trained_words(data.train, classes, synonyms=synonyms))


def _start(config: TrainConfig, data: TrainingData, out: Path) -> Start:
    vocabulary, said, found = (
        out / "tokenizer.json",
        run_manifest.of(config, data),
        run_manifest.read(out),
    )
    if found is not None and is_writer() and not saved(out / "checkpoints"):
        found = None  # it never got anywhere, perhaps since a setting was wrong
    if found is not None:
        run_manifest.require_same(out, found, said)
    learnt = None
    if config.model.init is not None:
        begun = starts.from_checkpoint(config.model.init)
    else:
        if found is None or not vocabulary.exists():
            captions = (caption for example in data.train for caption in example.captions)
            learnt = starts.learn_vocabulary(captions, config.model.shape)
        tokens = learnt or _vocabulary(vocabulary)
        begun = starts.from_nothing(config.model.shape, tokens, config.seed)
    start = {"start": begun.origin}
    if found is None:
        run_manifest.write(out, said | start)
    else:
        run_manifest.require_same(out, found, start)
    if learnt is not None:  # after run.json, which says whose folder it is
        write_file(vocabulary, lambda aside: learnt.save(str(aside)))
    if not (out / "best").exists() and (out / "best.old").exists():  # stopped between renames
        (out / "best.old").rename(out / "best")
    return begun


def _vocabulary(path: Path) -> FastTokenizer:
    try:
        return FastTokenizer.from_file(str(path))
    except Exception as error:  # the library raises no other kind
        raise TrainError(
            f"{path}: expected a vocabulary, found something else; remove it, and it is learnt "
            "again from the same captions"
        ) from error
