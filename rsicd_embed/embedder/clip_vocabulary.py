"""OpenAI's CLIP vocabulary, for checkpoints that come without a tokenizer."""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Regex, pre_tokenizers
from tokenizers import Tokenizer as FastTokenizer

from rsicd_embed.embedder.hub import fetch
from rsicd_embed.embedder.tokenizer import BEGIN_OF_TEXT, END_OF_TEXT, WORD_END, clip_bpe
from rsicd_embed.errors import ModelError

SIZE = 49408
_MERGES = SIZE - 2 * 256 - 2
_SHA256 = "f61f2adf497e6f5357c347aeb4646fabe82f341e946de5bdec5d2858e41bef4a"
# Packages that contain it; they are only searched, not imported.
_PACKAGES = ("open_clip", "clip")
_PACKAGED = "bpe_simple_vocab_16e6.txt.gz"
_REPO = "openai/clip-vit-base-patch32"

# Cases are ignored, so 'ſ ends a word like 's.
_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"

Merges = Sequence[tuple[str, str]]


def clip_tokenizer(directory: Path) -> FastTokenizer:
    """Creates open_clip's tokenizer, whose texts must be cleaned beforehand.

    The vocabulary is read from `tokenizer.json` in the model's folder, from an installed
    open-clip-torch, or from the Hugging Face Hub, which needs a network once.

    Raises:
        ModelError: it is in none of them.
    """
    merges = _from_folder(directory) or _from_package() or _from_hub()
    alphabet = _alphabet()
    tokens = [*alphabet, *(byte + WORD_END for byte in alphabet)]
    tokens += [left + right for left, right in merges]
    names = [*tokens, BEGIN_OF_TEXT, END_OF_TEXT]
    tokenizer = clip_bpe({token: i for i, token in enumerate(names)}, merges)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    return tokenizer


def digest(merges: Merges) -> str:
    """SHA-256 of the merges, which determine the vocabulary."""
    return hashlib.sha256("\n".join(map(" ".join, merges)).encode()).hexdigest()


def _alphabet() -> list[str]:
    """The character for each byte, in the vocabulary's order: printable bytes first."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return [*map(chr, printable), *(chr(256 + n) for n in range(len(others)))]


def _from_folder(directory: Path) -> Merges | None:
    path = directory / "tokenizer.json"
    if not path.is_file():
        return None
    try:
        merges = json.loads(path.read_text(encoding="utf-8"))["model"]["merges"]
        pairs = [tuple(m.split()) if isinstance(m, str) else tuple(m) for m in merges]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{path} is not a byte-pair tokenizer; download it again") from error
    return _checked(pairs, str(path))


def _from_package() -> Merges | None:
    for package in _PACKAGES:
        spec = importlib.util.find_spec(package)
        for folder in (spec and spec.submodule_search_locations) or []:
            path = Path(folder) / _PACKAGED
            if path.is_file():
                lines = gzip.decompress(path.read_bytes()).decode().split("\n")
                pairs = [tuple(line.split()) for line in lines[1 : _MERGES + 1]]
                return _checked(pairs, str(path))
    return None


def _from_hub() -> Merges:
    try:
        path = fetch(_REPO, None, "tokenizer.json")
    except ModelError as error:
        raise ModelError(
            "the checkpoint has no tokenizer, and CLIP's vocabulary is neither in an installed "
            "package nor on the Hub within reach; pip install open-clip-torch, or put the "
            f"tokenizer.json of {_REPO} beside the checkpoint ({error})"
        ) from error
    merges = _from_folder(path.parent)
    assert merges is not None  # it was just downloaded
    return merges


def _checked(pairs: Sequence[tuple[str, ...]], source: str) -> Merges:
    merges = [(pair[0], pair[1]) for pair in pairs if len(pair) == 2]
    if digest(merges) != _SHA256:
        raise ModelError(
            f"{source}: expected OpenAI's CLIP vocabulary of {SIZE} tokens, found another; the "
            "tokenizer belongs to another model"
        )
    return merges
