"""Marian translation models (Junczys-Dowmunt et al. 2018, arXiv:1804.00344), by transformers."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rsicd_embed._lazy_torchvision import mend_torchvision
from rsicd_embed.embedder.layout import CheckpointLayout
from rsicd_embed.embedder.locate import locate
from rsicd_embed.errors import ModelError, TrainError, WeightsError, first_line, one_line
from rsicd_embed.files import digest, read_json, storage_errors

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
        name: how it was asked for.
        directory: where its files are.
        digest: SHA-256 of all that its translations depend on.
        languages: what it can be asked for by a token such as `>>fr<<`; empty where it has one
            target language.
    """

    name: str
    directory: Path
    digest: str
    languages: frozenset[str]

    def target_token(self, language: str) -> str:
        """What a text must start with to be translated into a language; may be empty.

        Raises:
            ModelError: the model has several target languages, and not this one.
        """
        if language in self.languages:
            return f">>{language}<< "
        # A model into English has no need of a token, whatever else its vocabulary holds.
        if not self.languages or language in _ENGLISH:
            return ""
        raise ModelError(
            f"{self.name}: expected a model into {language!r}, found one into "
            f"{', '.join(sorted(self.languages))}; write the language as one of these"
        )


def find(model: str) -> Checkpoint:
    """Finds a Marian model, a directory or a Hugging Face id, which is fetched if need be.

    Raises:
        ModelError: there is none, it is of another kind, or a file of it is missing.
    """
    located = locate(model, LAYOUT)
    folder = located.directory
    kind = read_json(folder / "config.json").get("model_type")
    if kind != "marian":
        raise ModelError(f"{model}: expected a Marian model, found one of the type {kind!r}")
    LAYOUT.require(folder)
    tokens = read_json(folder / "vocab.json")
    languages = (token[2:-2] for token in tokens if token.startswith(">>") and token.endswith("<<"))
    names = LAYOUT.used(lambda name: (folder / name).is_file())
    with storage_errors(f"{folder} cannot be read"):
        parts = [(name, digest(folder / name)) for name in names]
    whole = hashlib.sha256(repr(parts).encode()).hexdigest()
    return Checkpoint(located.name, folder, whole, frozenset(languages))


def choose_device(name: str | None) -> str:
    """A device of torch that works: `name`, or the GPU if there is one.

    Raises:
        TrainError: torch knows no such device, or it is not there.
    """
    import torch

    if name is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # by kind of device
        raise TrainError(
            f"expected a device of torch such as cpu or cuda, found {name!r}: {first_line(error)}"
        ) from error
    return name


class Translator:
    """A loaded model, in float32.

    Decoding is beam search and draws nothing at random. What shares a batch with a text changes
    its translation by no more than rounding does.

    Attributes:
        most_tokens: of a text that is translated whole.
        cut: texts so far that were longer.
    """

    def __init__(self, checkpoint: Checkpoint, device: str) -> None:
        """Loads the model.

        Raises:
            WeightsError: tensors are missing or misshapen.
            ModelError: its files cannot be read, or do not fit each other.
        """
        import torch

        mend_torchvision()
        import transformers

        logging: Any = transformers.logging
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        folder = str(checkpoint.directory)
        try:
            with warnings.catch_warnings():
                # It normalizes punctuation on request only, and is not asked to.
                warnings.filterwarnings("ignore", message=".*sacremoses")
                tokenizer: Any = transformers.MarianTokenizer.from_pretrained(
                    folder, local_files_only=True
                )
            loaded: Any = transformers.MarianMTModel.from_pretrained(
                folder, dtype=torch.float32, local_files_only=True, output_loading_info=True
            )
        except Exception as error:  # every parser has errors of its own
            raise ModelError(
                f"{folder} cannot be read as a Marian model: {one_line(error)}"
            ) from error
        model, report = loaded
        for what in ("missing_keys", "mismatched_keys"):
            if report[what]:
                keys = ", ".join(sorted(map(str, report[what])))
                raise WeightsError(f"{folder}: weights do not fit config.json: {what}: {keys}")
        if max(tokenizer.get_vocab().values()) >= model.config.vocab_size:
            raise ModelError(
                f"{folder}: expected at most {model.config.vocab_size} tokens in vocab.json, "
                f"found {len(tokenizer)}; take both files from one model"
            )
        self._tokenizer = tokenizer
        self._model = model.to(device).eval()
        self._device = device
        self.most_tokens = min(tokenizer.model_max_length, model.config.max_position_embeddings)
        self.cut = 0

    def translate(self, texts: Sequence[str], num_beams: int) -> list[str]:
        """Translates a batch; of a text that is too long, the end is left out, and `cut` counts it.

        Raises:
            ModelError: the device has not enough memory for it.
        """
        import torch

        end = self._tokenizer.eos_token_id
        whole: list[list[int]] = self._tokenizer(list(texts))["input_ids"]
        rows = [
            row if len(row) <= self.most_tokens else [*row[: self.most_tokens - 1], end]
            for row in whole
        ]
        self.cut += sum(len(row) > self.most_tokens for row in whole)
        batch = self._tokenizer.pad({"input_ids": rows}, return_tensors="pt").to(self._device)
        longest = max(map(len, rows))
        try:
            with torch.inference_mode():
                found = self._model.generate(
                    **batch,
                    num_beams=num_beams,
                    do_sample=False,
                    bad_words_ids=[[self._tokenizer.pad_token_id]],
                    # A model may repeat itself without end; no translation is so much longer.
                    max_length=min(self._model.config.max_position_embeddings, 2 * longest + 16),
                )
        except torch.OutOfMemoryError as error:
            raise ModelError(
                f"{self._device} has too little memory for {len(rows)} captions of up to "
                f"{longest} tokens at once; lower the batch size"
            ) from error
        decoded: list[str] = self._tokenizer.batch_decode(
            found,
            skip_special_tokens=True,
            use_source_tokenizer=False,
            clean_up_tokenization_spaces=False,
        )
        return [" ".join(text.split()) for text in decoded]
