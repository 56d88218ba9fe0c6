"""A training run's folder: what is trained, on what, and the best model so far.

OUT/run.json        settings, and a digest of the data
OUT/tokenizer.json  the vocabulary, learnt on the first start
OUT/best/           the best model, in the Hugging Face layout
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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
from rsicd_embed.embedder.preprocess import Preprocessor
from rsicd_embed.embedder.tokenizer import Tokenizer
from rsicd_embed.errors import TrainError
from rsicd_embed.files import storage_errors, sync_file, sync_folder, write_file
from rsicd_embed.train import tokenizer as bpe
from rsicd_embed.train.config import TrainConfig
from rsicd_embed.train.shapes import SHAPES


@dataclass(frozen=True)
class Run:
    """A model being trained from scratch, and where its files go."""

    config: TrainConfig
    out: Path
    tokens: FastTokenizer

    @property
    def shape(self) -> Any:
        """The model's ClipConfig."""
        return SHAPES[self.config.model.shape]

    @property
    def preprocessor(self) -> Preprocessor:
        """Squares of the model's size."""
        size = self.shape.image_size
        return Preprocessor(resize=size, crop=(size, size))

    @property
    def tokenizer(self) -> Tokenizer:
        """`tokens` with the model's context."""
        return Tokenizer(
            self.tokens,
            context_length=self.shape.context_length,
            pad_id=self.shape.eos_token_id,
        )

    def embedder(self, params: Any) -> ClipEmbedder:
        """The model as it stands, for evaluation."""
        tensors = weights.params_to_hf(params)
        parts = Parts(self.shape, tensors, self.tokenizer, self.preprocessor)
        towers = JaxTowers(self.shape, params, self.preprocessor)
        return ClipEmbedder(parts, towers, name=str(self.out / "best"))

    @property
    def best(self) -> Path:
        """Where the best model is."""
        return self.out / "best"

    def export(self, params: Any) -> None:
        """Puts a model in `best`, in float16, whole: written aside, synced, renamed."""
        aside, old = self.out / "best.new", self.out / "best.old"
        with storage_errors(f"cannot write {self.best}"):
            shutil.rmtree(aside, ignore_errors=True)
            directory.save(
                aside, self.shape, params, self.tokens, self.preprocessor, dtype=np.float16
            )
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
        TrainError: another process is at it, or it has other settings or other data.
    """
    with storage_errors(f"cannot write to {out}"):
        out.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(out / ".lock", timeout=0):
                yield Run(config, out, _vocabulary(config, examples, out))
        except Timeout:
            raise TrainError(f"another process is training in {out}; give another --out") from None


def _vocabulary(config: TrainConfig, examples: Sequence[Example], out: Path) -> FastTokenizer:
    path, identity = out / "tokenizer.json", out / "run.json"
    said = {"settings": dataclasses.asdict(config), "data": _digest(examples)}
    if identity.exists():
        found = json.loads(identity.read_text(encoding="utf-8"))
        for key, what in (("settings", "settings"), ("data", "data")):
            if found.get(key) != said[key]:
                raise TrainError(f"{out} holds a run with other {what}; give another --out")
        if not (out / "best").exists() and (out / "best.old").exists():  # stopped between renames
            (out / "best.old").rename(out / "best")
        return FastTokenizer.from_file(str(path))
    captions = (caption for example in examples for caption in example.captions)
    tokenizer = bpe.train(captions, SHAPES[config.model.shape].vocab_size)
    write_file(path, lambda aside: tokenizer.save(str(aside)))
    text = json.dumps(said, indent=2) + "\n"
    write_file(identity, lambda aside: aside.write_text(text, "utf-8"))
    sync_folder(out)
    return tokenizer


def _digest(examples: Sequence[Example]) -> str:
    """Hash of the images' ids, captions and classes."""
    sha = hashlib.sha256()
    for example in examples:
        sha.update(json.dumps([example.id, example.captions, example.label]).encode())
    return sha.hexdigest()[:16]
