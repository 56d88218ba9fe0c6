"""Marian translation models (Junczys-Dowmunt et al. 2018, arXiv:1804.00344) in transformers.

`Translations` keeps their results on disk, so that an interrupted run can resume.
"""

from __future__ import annotations

import hashlib
import sqlite3
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rsicd_embed._lazy_torchvision import mend_torchvision
from rsicd_embed.embedder.layout import CheckpointLayout
from rsicd_embed.embedder.locate import locate
from rsicd_embed.errors import (
    ModelError,
    StoreCorruptError,
    StoreError,
    TrainError,
    WeightsError,
    first_line,
    one_line,
)
from rsicd_embed.files import Closing, digest, make_folder, read_json, storage_errors

LAYOUT = CheckpointLayout(
    kind="Marian",
    example="Helsinki-NLP/opus-mt-en-ROMANCE",
    settings=("config.json",),
    vocabularies=(("vocab.json", "source.spm", "target.spm"),),
    optional=("target_vocab.json", "tokenizer_config.json", "generation_config.json"),
    weights=("model.safetensors", "pytorch_model.bin"),
)
_ENGLISH = ("en", "eng")


@dataclass(frozen=True)
class Checkpoint:
    """A Marian model on this machine, not yet loaded.

    Attributes:
        name: its name as requested.
        directory: directory of its files.
        digest: SHA-256 of everything that its translations depend on.
        languages: target languages selected by tokens such as `>>fr<<`; empty if there is one.
    """

    name: str
    directory: Path
    digest: str
    languages: frozenset[str]

    def target_token(self, language: str) -> str:
        """Prefix for texts to be translated into a language; may be empty."""
        if language in self.languages:
            return f">>{language}<< "
        # A model into English needs no token, even if its vocabulary has some.
        if not self.languages or language in _ENGLISH:
            return ""
        raise ModelError(
            f"{self.name}: expected a model into {language!r}, found a model into "
            f"{', '.join(sorted(self.languages))}; use one of these codes"
        )


def find(model: str) -> Checkpoint:
    """Finds a Marian model, given as a directory or a Hugging Face id to download if needed."""
    located = locate(model, LAYOUT)
    folder = located.directory
    kind = read_json(folder / "config.json").get("model_type")
    if kind != "marian":
        raise ModelError(f"{model}: expected a Marian model, found type {kind!r}")
    LAYOUT.require(folder)
    tokens = read_json(folder / "vocab.json")
    languages = (token[2:-2] for token in tokens if token.startswith(">>") and token.endswith("<<"))
    names = LAYOUT.used(lambda name: (folder / name).is_file())
    with storage_errors(f"{folder} cannot be read"):
        parts = [(name, digest(folder / name)) for name in names]
    sha256 = hashlib.sha256(repr(parts).encode()).hexdigest()
    return Checkpoint(located.name, folder, sha256, frozenset(languages))


def choose_device(name: str | None) -> str:
    """Checks that a torch device works; by default chooses a GPU if there is one."""
    import torch

    if name is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # depends on the device
        raise TrainError(
            f"expected a torch device such as cpu or cuda, found {name!r}: {first_line(error)}"
        ) from error
    return name


class Translator:
    """A loaded model, in float32.

    Decoding uses beam search and is deterministic; the rest of a batch affects a translation only
    by rounding.

    Attributes:
        max_tokens: maximum length of a text; longer ones are truncated.
        truncated: number of texts truncated so far.
    """

    def __init__(self, checkpoint: Checkpoint, device: str) -> None:
        """Loads the model."""
        import torch

        mend_torchvision()
        import transformers

        logging: Any = transformers.logging
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        folder = str(checkpoint.directory)
        try:
            with warnings.catch_warnings():
                # Only needed to normalise punctuation, which is not used.
                warnings.filterwarnings("ignore", message=".*sacremoses")
                tokenizer: Any = transformers.MarianTokenizer.from_pretrained(
                    folder, local_files_only=True
                )
            loaded: Any = transformers.MarianMTModel.from_pretrained(
                folder, dtype=torch.float32, local_files_only=True, output_loading_info=True
            )
        except Exception as error:  # each parser has its own errors
            raise ModelError(
                f"{folder} cannot be read as a Marian model: {one_line(error)}"
            ) from error
        model, report = loaded
        for problem in ("missing_keys", "mismatched_keys"):
            if report[problem]:
                keys = ", ".join(sorted(map(str, report[problem])))
                raise WeightsError(f"{folder}: weights do not fit config.json: {problem}: {keys}")
        if max(tokenizer.get_vocab().values()) >= model.config.vocab_size:
            raise ModelError(
                f"{folder}: expected at most {model.config.vocab_size} tokens in vocab.json, "
                f"found {len(tokenizer)}; use both files of the same model"
            )
        self._tokenizer = tokenizer
        self._model = model.to(device).eval()
        self._device = device
        self.max_tokens = min(tokenizer.model_max_length, model.config.max_position_embeddings)
        self.truncated = 0

    def translate(self, texts: Sequence[str], num_beams: int) -> list[str]:
        """Translates a batch, truncating texts longer than `max_tokens`."""
        import torch

        end = self._tokenizer.eos_token_id
        ids: list[list[int]] = self._tokenizer(list(texts))["input_ids"]
        rows = [
            row if len(row) <= self.max_tokens else [*row[: self.max_tokens - 1], end]
            for row in ids
        ]
        self.truncated += sum(len(row) > self.max_tokens for row in ids)
        batch = self._tokenizer.pad({"input_ids": rows}, return_tensors="pt").to(self._device)
        longest = max(map(len, rows))
        try:
            with torch.inference_mode():
                generated = self._model.generate(
                    **batch,
                    num_beams=num_beams,
                    do_sample=False,
                    bad_words_ids=[[self._tokenizer.pad_token_id]],
                    # Limits endless repetition; no real translation is so much longer.
                    max_length=min(self._model.config.max_position_embeddings, 2 * longest + 16),
                )
        except torch.OutOfMemoryError as error:
            raise ModelError(
                f"{self._device} has too little memory for {len(rows)} captions of up to "
                f"{longest} tokens at once; lower the batch size"
            ) from error
        decoded: list[str] = self._tokenizer.batch_decode(
            generated,
            skip_special_tokens=True,
            use_source_tokenizer=False,
            clean_up_tokenization_spaces=False,
        )
        return [" ".join(text.split()) for text in decoded]


_TABLE = """
CREATE TABLE IF NOT EXISTS translations (
    model TEXT NOT NULL, text TEXT NOT NULL, translation TEXT NOT NULL,
    PRIMARY KEY (model, text)
) WITHOUT ROWID
"""
_WAIT_S = 60.0  # for another process to finish writing


class Translations(Closing):
    """A SQLite file that several processes may use at the same time.

    `add` is atomic: all of its translations are on disk when it returns, none if it is interrupted.
    """

    def __init__(self, path: Path) -> None:
        """Opens the file, creating it and its folder if absent."""
        self.path = path
        with storage_errors(f"cannot create {path.parent}"):
            make_folder(path.parent)
        with self._errors():
            self._connection = sqlite3.connect(path, timeout=_WAIT_S)
            try:
                # Survive a power cut too, whatever the default of this SQLite build.
                self._connection.execute("PRAGMA synchronous = FULL")
                with self._connection:
                    self._connection.execute(_TABLE)
                    self._connection.execute("SELECT model, text, translation FROM translations")
            except BaseException:
                self._connection.close()
                raise

    def find(self, model: str, texts: Sequence[str]) -> dict[str, str]:
        """Returns the cached translations by `model`, by text."""
        query = "SELECT translation FROM translations WHERE model = ? AND text = ?"
        translations = {}
        with self._errors():
            for text in texts:
                row = self._connection.execute(query, (model, text)).fetchone()
                if row is not None:
                    translations[text] = row[0]
        return translations

    def add(self, model: str, translations: Mapping[str, str]) -> None:
        """Stores translations by `model`, by text."""
        insert = "INSERT OR REPLACE INTO translations VALUES (?, ?, ?)"
        with self._errors(), self._connection:
            self._connection.executemany(
                insert, ((model, text, translation) for text, translation in translations.items())
            )

    def close(self) -> None:
        """Closes the file."""
        self._connection.close()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            remedy = (
                "free some space and run the same command again"
                if error.sqlite_errorcode == sqlite3.SQLITE_FULL
                else "check the disk and its permissions, or choose another file"
            )
            raise StoreError(
                f"cannot store translations in {self.path}: {error}; {remedy}"
            ) from error
        except sqlite3.DatabaseError as error:
            raise StoreCorruptError(
                f"{self.path} is not a file of translations, or is damaged ({error}); "
                "delete it, and its texts are translated again"
            ) from error
