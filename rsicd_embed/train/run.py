"""A training run's folder: what is trained, on what, and the best model so far.

OUT/run.json        settings, and digests of the data and of the checkpoint that was started from
OUT/tokenizer.json  the vocabulary of a model from nothing, learnt on the first start
OUT/best/           the best model, in the Hugging Face layout
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from tokenizers import Tokenizer as FastTokenizer

from rsicd_embed.datasets.base import Example
from rsicd_embed.embedder.clip import directory, weights
from rsicd_embed.embedder.clip.backends.on_jax import JaxTowers
from rsicd_embed.embedder.clip.embedder import ClipEmbedder
from rsicd_embed.embedder.clip.parts import Parts
from rsicd_embed.errors import TrainError
from rsicd_embed.files import storage_errors, sync_file, sync_folder, write_file
from rsicd_embed.train import start as starts
from rsicd_embed.train.card import DataCard, model_card
from rsicd_embed.train.config import TrainConfig, parse
from rsicd_embed.train.distributed import is_writer, wait_for_all
from rsicd_embed.train.start import Start


@dataclass(frozen=True)
class Run:
    """A model being trained, and where its files go."""

    config: TrainConfig
    out: Path
    start: Start
    data: DataCard

    def embedder(self, params: Any) -> ClipEmbedder:
        """The model as it stands, for evaluation."""
        shape, pixels = self.start.shape, self.start.preprocessor
        parts = Parts(shape, weights.params_to_hf(params), self.start.tokenizer, pixels)
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
            directory.save(
                aside,
                self.start.shape,
                params,
                self.start.tokenizer.stored(),
                self.start.preprocessor,
                dtype=np.float16,
            )
            card = model_card(self.config, self.data, row)
            (aside / "README.md").write_text(card, encoding="utf-8")
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
def open_run(config: TrainConfig, examples: Sequence[Example], out: Path) -> Iterator[Run]:
    """Begins a run in `out`, or takes up the one that is there; one process at a time.

    Raises:
        TrainError: another process is at it, or it has other settings, data or another start.
        ModelError: the checkpoint to start from is none.
    """
    with storage_errors(f"cannot write to {out}"), ExitStack() as stack:
        if is_writer():
            out.mkdir(parents=True, exist_ok=True)
            try:
                stack.enter_context(FileLock(out / ".lock", timeout=0))
            except Timeout:
                raise TrainError(
                    f"another process is training in {out}; give another --out"
                ) from None
            start = _start(config, examples, out)
            wait_for_all("run is begun")
        else:
            wait_for_all("run is begun")
            start = _start(config, examples, out)
        yield Run(config, out, start, DataCard.of(examples))


def _start(config: TrainConfig, examples: Sequence[Example], out: Path) -> Start:
    vocabulary = out / "tokenizer.json"
    found = _identity(out)
    if config.model.init is not None:
        begun = starts.from_checkpoint(config.model.init)
    elif found is not None:
        tokens = FastTokenizer.from_file(str(vocabulary))
        begun = starts.from_nothing(config.model.shape, tokens, config.seed)
    else:
        captions = (caption for example in examples for caption in example.captions)
        tokens = starts.learn_vocabulary(captions, config.model.shape)
        write_file(vocabulary, lambda aside: tokens.save(str(aside)))
        begun = starts.from_nothing(config.model.shape, tokens, config.seed)
    said = {"settings": parse.flat(config), "data": _digest(examples), "start": begun.origin}
    said = json.loads(json.dumps(said))  # tuples are lists there
    if found is None:
        text = json.dumps(said, indent=2) + "\n"
        write_file(out / "run.json", lambda aside: aside.write_text(text, "utf-8"))
        sync_folder(out)
        return begun
    for key, what in {"settings": "settings", "data": "data", "start": "first weights"}.items():
        if found.get(key) != said[key]:
            raise TrainError(f"{out} holds a run with other {what}; give another --out")
    if not (out / "best").exists() and (out / "best.old").exists():  # stopped between renames
        (out / "best.old").rename(out / "best")
    return begun


def _identity(out: Path) -> dict[str, Any] | None:
    path = out / "run.json"
    if not path.exists():
        return None
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _digest(examples: Sequence[Example]) -> str:
    """Hash of the images' ids, captions and classes."""
    sha = hashlib.sha256()
    for example in examples:
        sha.update(json.dumps([example.id, example.captions, example.label]).encode())
    return sha.hexdigest()[:16]
