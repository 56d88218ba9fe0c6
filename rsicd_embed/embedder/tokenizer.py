"""Tokenizers of CLIP and SigLIP, equal to transformers' and open_clip's, without importing them."""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as FastTokenizer
from tokenizers.processors import TemplateProcessing

from rsicd_embed.arguments import require_items
from rsicd_embed.embedder.clip.config import LEGACY_EOS_TOKEN_ID
from rsicd_embed.embedder.text_cleaning import Cleaning, cleaner
from rsicd_embed.errors import ArgumentError, ModelError
from rsicd_embed.files import read_json

# Sequences are padded to a multiple of this, so that few shapes need compiling.
_BUCKET = 16

# Classes of transformers that clean texts.
_CLEANINGS: dict[Any, Cleaning] = {"SiglipTokenizer": "siglip", "Siglip2Tokenizer": "lowercase"}

BEGIN_OF_TEXT, END_OF_TEXT = "<|startoftext|>", "<|endoftext|>"
WORD_END = "</w>"
# Texts whose ids reveal how a tokenizer treats case, spaces, accents, digits and special tokens.
_PROBES = (
    "A Photo of SEVERAL boats",
    "  tabs\tand\nlines ",
    "it's naïve, don't!!!",
    "É 日本 🛰 ﬁ cafe\u0301",
    "12 3.5 b2b",
    "a <|endoftext|> b",
    "",
)
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


class Tokenizer:
    """A tokenizer that cleans texts, adds begin and end tokens, truncates and pads."""

    def __init__(
        self,
        tokenizer: FastTokenizer,
        *,
        context_length: int,
        pad_id: int,
        cleaning: Cleaning = "none",
        whole_context: bool = False,
    ) -> None:
        """Wraps a tokenizer; `whole_context` always pads to the context, as SigLIP needs it."""
        self.cleaning, self.whole_context = cleaning, whole_context
        self._clean = cleaner(cleaning)
        self._tokenizer = tokenizer
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(context_length)
        self.context_length = context_length
        self.pad_id = pad_id

    def stored(self) -> FastTokenizer:
        """The tokenizer to store in a model directory, without length limits."""
        copy = FastTokenizer.from_str(self._tokenizer.to_str())
        copy.no_truncation()
        copy.no_padding()
        return copy

    @property
    def vocab_size(self) -> int:
        """Number of tokens, including special ones."""
        return int(self._tokenizer.get_vocab_size(with_added_tokens=True))

    def digest(self) -> str:
        """Hash of everything that determines the ids of a text."""
        # The library's own serialisation may change between versions.
        vocabulary = sorted(self._tokenizer.get_vocab(with_added_tokens=True).items())
        merges = json.loads(self._tokenizer.to_str())["model"].get("merges")
        probes = [self._tokenizer.encode(self._clean(text)).ids for text in _PROBES]
        content = json.dumps([self.context_length, self.pad_id, vocabulary, merges, probes])
        if self.cleaning != "none" or self.whole_context:
            content += f" {self.cleaning} {self.whole_context}"
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    def __call__(
        self, texts: Sequence[str], *, length: int | None = None, multiple: int = _BUCKET
    ) -> np.ndarray:
        """Tokenizes texts to int32 (n, t).

        Texts longer than the context are cut but keep their end token, as in the reference, and a
        warning reports their number.

        Args:
            texts: the texts.
            length: t; by default the length of the longest text, rounded up to a `multiple`. It
                is always the whole context for models that need it.
            multiple: see `length`.

        Raises:
            ArgumentError: an item is not text, or contains a lone surrogate.
        """
        texts = list(texts)
        require_items(texts, "texts", str)
        for position, text in enumerate(texts):
            if _SURROGATE.search(text):
                raise ArgumentError(
                    f"expected texts in Unicode, found a lone surrogate in {text[:60]!a} at "
                    f"position {position}; correct it"
                )
        encodings = self._tokenizer.encode_batch([self._clean(text) for text in texts])
        cut = sum(bool(encoding.overflowing) for encoding in encodings)
        if cut:
            warnings.warn(
                f"{cut} of {len(encodings)} texts are longer than the model's context of "
                f"{self.context_length} tokens and were cut",
                stacklevel=3,
            )
        if self.whole_context:
            length = self.context_length
        elif length is None:
            longest = max((len(encoding.ids) for encoding in encodings), default=1)
            length = min(-(-longest // multiple) * multiple, self.context_length)
        ids = np.full((len(encodings), length), self.pad_id, dtype=np.int32)
        for row, encoding in zip(ids, encodings, strict=True):
            row[: len(encoding.ids)] = encoding.ids
        return ids


def clip_bpe(vocabulary: Mapping[str, int], merges: Sequence[tuple[str, str]]) -> FastTokenizer:
    """Creates CLIP's byte-pair encoding, with begin and end tokens."""
    tokenizer = clip_pipeline(
        models.BPE(
            dict(vocabulary), list(merges), end_of_word_suffix=WORD_END, unk_token=END_OF_TEXT
        )
    )
    ids = [(token, vocabulary[token]) for token in (BEGIN_OF_TEXT, END_OF_TEXT)]
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token, _ in ids])
    tokenizer.post_processor = TemplateProcessing(
        single=f"{BEGIN_OF_TEXT} $A {END_OF_TEXT}",
        pair=f"{BEGIN_OF_TEXT} $A {END_OF_TEXT} $B:1 {END_OF_TEXT}:1",
        special_tokens=ids,
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def clip_pipeline(model: models.Model) -> FastTokenizer:
    """Creates a tokenizer with CLIP's normalisation and splitting into words."""
    tokenizer = FastTokenizer(model)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    return tokenizer


def load(
    directory: Path,
    *,
    context_length: int,
    vocab_size: int,
    eos_token_id: int,
    siglip: bool = False,
    cleaning: Cleaning | None = None,
) -> Tokenizer:
    """Reads `tokenizer.json`, or `vocab.json` and `merges.txt`, from a model's directory.

    Args:
        directory: the model's.
        context_length: maximum number of tokens.
        vocab_size: number of tokens of the model.
        eos_token_id: the end token that the model expects; 2 for any.
        siglip: the model is a SigLIP: there may be no begin token, and any end token.
        cleaning: of the texts; None for what `tokenizer_config.json` implies.

    Raises:
        ModelError: the tokenizer is missing or damaged, or produces ids outside the vocabulary.
    """
    path = directory / "tokenizer.json"
    vocabulary = directory / "vocab.json"
    try:
        if path.is_file():
            tokenizer = FastTokenizer.from_file(str(path))
        elif vocabulary.is_file() and (directory / "merges.txt").is_file():
            path = vocabulary
            tokenizer = clip_bpe(*_read_vocabulary(vocabulary, directory / "merges.txt"))
        else:
            raise ModelError(
                f"expected tokenizer.json in {directory} (or vocab.json and merges.txt), found none"
            )
    except ModelError:
        raise
    except Exception as error:  # the bindings raise bare Exception
        raise ModelError(f"{path} is not a tokenizer: {error}; download it again") from error
    highest = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)
    if highest >= vocab_size:
        raise ModelError(
            f"{path}: expected ids below the model's vocabulary of {vocab_size}, found {highest}; "
            "the tokenizer belongs to another model"
        )
    encoded = tokenizer.encode("a").ids
    if len(encoded) < (2 if siglip else 3) or not (
        siglip or eos_token_id in (LEGACY_EOS_TOKEN_ID, encoded[-1])
    ):
        raise ModelError(
            f"{path}: expected begin and end tokens around a text (end {eos_token_id}), "
            f"found {encoded} for 'a'; the tokenizer belongs to another model"
        )
    settings = _settings(directory)
    if cleaning is None:
        implied = _CLEANINGS.get(settings.get("tokenizer_class"), "lowercase" if siglip else "none")
        cleaning = settings.get("text_cleaning", implied)
    if siglip and settings.get("padding_side", "right") != "right":
        raise ModelError(f"{directory}: expected padding on the right, found it on the left")
    return Tokenizer(
        tokenizer,
        context_length=context_length,
        pad_id=_pad_id(settings, tokenizer, encoded[-1]),
        cleaning=cleaning,
        whole_context=siglip,
    )


def _read_vocabulary(
    vocabulary: Path, merges: Path
) -> tuple[dict[str, int], list[tuple[str, str]]]:
    lines = merges.read_text(encoding="utf-8").splitlines()
    pairs = [line.split() for line in lines if line.strip() and not line.startswith("#version")]
    if any(len(pair) != 2 for pair in pairs):
        raise ModelError(f"{merges}: expected two tokens per line; download it again")
    return json.loads(vocabulary.read_text(encoding="utf-8")), [(a, b) for a, b in pairs]


def _settings(directory: Path) -> dict[str, Any]:
    path = directory / "tokenizer_config.json"
    return read_json(path) if path.is_file() else {}


def _pad_id(settings: Mapping[str, Any], tokenizer: FastTokenizer, default: int) -> int:
    token = settings.get("pad_token")
    token = token.get("content") if isinstance(token, dict) else token
    pad_id = tokenizer.token_to_id(token) if isinstance(token, str) else None
    return default if pad_id is None else int(pad_id)
