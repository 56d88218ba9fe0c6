"""The vocabulary of a model's training captions, and advice on queries with other words.

A model directory may have a `training_words.json` with the number of training images whose captions
contain each word. It is not part of the model's fingerprint. Models without the file, such as those
trained on captions from the web, give no advice.
"""

from __future__ import annotations

import difflib
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

from rsicd_embed.embedder.base import UnfamiliarWord
from rsicd_embed.errors import ModelError
from rsicd_embed.files import read_json

FILE = "training_words.json"
# A word in the captions of fewer training images is considered unfamiliar.
FAMILIAR_IMAGES = 10

_VERSION = 1
_MOST_NEAR = 4
# Ratio of difflib: .96 for `neighbourhood` and `neighborhood`, .91 for `creek` and `creeks`.
_ALIKE = 0.85
_NEAR_WORDS = Path(__file__).with_name("near_words.txt")
_FUNCTION_WORDS = Path(__file__).with_name("function_words.txt")
# Splits text like the tokenizer, but only into words and contractions.
_TOKEN = re.compile(r"'(?:s|t|re|ve|m|ll|d)|[^\W\d_]+")


@dataclass(frozen=True)
class TrainingWords:
    """The words of a model's training captions.

    Attributes:
        images: word in lower case → number of training images whose captions contain it.
    """

    images: Mapping[str, int]

    @classmethod
    def of(cls, captions: Iterable[Iterable[str]]) -> TrainingWords:
        """Counts the words in captions.

        Args:
            captions: the captions of each training image.

        Example:
            >>> TrainingWords.of([["A port.", "a PORT with boats"], ["a beach"]]).images
            {'a': 2, 'beach': 1, 'boats': 1, 'port': 1, 'with': 1}
        """
        counts: Counter[str] = Counter()
        for texts in captions:
            counts.update({word for text in texts for word in _words(text)})
        return cls(dict(sorted(counts.items())))

    def merged(self, other: TrainingWords) -> TrainingWords:
        """Merges the words of two trainings of a model.

        The larger of two counts is kept, since both may come from the same images.
        """
        return TrainingWords(dict(sorted((Counter(self.images) | Counter(other.images)).items())))

    def unfamiliar(self, texts: Sequence[str]) -> list[UnfamiliarWord]:
        """Distinct words of the texts that were absent or rare in training.

        Function words such as "with" or "show" are ignored. Inflected forms count as separate
        words, since they have other tokens.
        """
        words = dict.fromkeys(word for text in texts for word in _words(text))
        return [
            UnfamiliarWord(word, self.images.get(word, 0))
            for word in words
            if not self._is_familiar(word)
        ]

    def near(self, word: str) -> tuple[str, ...]:
        """Up to four familiar words or phrases of similar spelling or meaning, nearest first.

        Example:
            >>> TrainingWords({"port": 326, "harbour": 36, "ships": 2}).near("harbours")
            ('harbour', 'port')
        """
        inflected = [form for form in (*_singulars(word), f"{word}s") if form in self._familiar]
        alike = difflib.get_close_matches(
            word, [known for known in self._familiar if known[0] == word[0]], _MOST_NEAR, _ALIKE
        )
        related = [
            near
            for form in (word, *_singulars(word))
            for near in _near_words().get(form, ())
            if all(map(self._is_familiar, near.split()))
        ]
        return tuple(dict.fromkeys([*inflected, *alike, *related]))[:_MOST_NEAR]

    def write(self, directory: Path) -> None:
        """Writes the file into a model directory, with one word per line."""
        content = {"version": _VERSION, "images": self.images}
        text = json.dumps(content, ensure_ascii=False, indent=0) + "\n"
        (directory / FILE).write_text(text, encoding="utf-8")

    @cached_property
    def _familiar(self) -> list[str]:
        return [
            word
            for word, images in self.images.items()
            if images >= FAMILIAR_IMAGES and len(word) > 1 and word not in _function_words()
        ]

    def _is_familiar(self, word: str) -> bool:
        is_letter = len(word) == 1 and word.isascii()
        return is_letter or word in _function_words() or self.images.get(word, 0) >= FAMILIAR_IMAGES


def read(directory: Path) -> TrainingWords | None:
    """Reads the training words of a model directory; None if it has no such file.

    Raises:
        ModelError: the file is malformed.
    """
    path = directory / FILE
    if not path.is_file():
        return None
    content = read_json(path)
    images = content.get("images")
    if content.get("version") != _VERSION or not (
        isinstance(images, dict)
        and all(isinstance(count, int) and count > 0 for count in images.values())
    ):
        raise ModelError(
            f"{path}: expected version {_VERSION} of a list of training words, found something "
            "else; download the model again, or remove the file to disable warnings"
        )
    return TrainingWords(images)


def _words(text: str) -> Iterator[str]:
    lowered = unicodedata.normalize("NFC", text).lower().replace("’", "'")
    return (word for word in _TOKEN.findall(lowered) if not word.startswith("'"))


def _singulars(word: str) -> list[str]:
    """Words of which a word may be the plural."""
    endings = [("ies", "y"), ("es", ""), ("s", "")]
    return [word.removesuffix(end) + new for end, new in endings if word.endswith(end)]


@cache
def _function_words() -> frozenset[str]:
    lines = _FUNCTION_WORDS.read_text(encoding="utf-8").splitlines()
    return frozenset(word for line in lines if not line.startswith("#") for word in line.split())


@cache
def _near_words() -> dict[str, tuple[str, ...]]:
    """Word → words and phrases of similar meaning, nearest first; see near_words.txt."""
    near: dict[str, tuple[str, ...]] = {}
    for line in _NEAR_WORDS.read_text(encoding="utf-8").splitlines():
        words, colon, others = line.partition(":")
        if colon and not line.startswith("#"):
            for word in words.split():
                near[word] = (*near.get(word, ()), *map(str.strip, others.split(",")))
    return near
