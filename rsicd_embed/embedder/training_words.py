"""The words of the captions that a model was trained on, and advice on queries with other words.

A model directory may have a `training_words.json`: for each word of the training captions, the
number of training images whose captions contain it. It is no part of the model's fingerprint.
Models without the file, such as those trained on captions from the web, give no advice.
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
# A word that fewer training images have is hardly learnt.
FAMILIAR_IMAGES = 10

_VERSION = 1
_MOST_NEAR = 4
# A ratio of difflib's: `neighbourhood` and `neighborhood` have .96, `creek` and `creeks` .91.
_SPELT_ALIKE = 0.85
_NEAR_WORDS = Path(__file__).with_name("near_words.txt")
_FUNCTION_WORDS = Path(__file__).with_name("function_words.txt")
# As the tokenizer splits text, without what is no word: digits, punctuation, 's and such.
_TOKEN = re.compile(r"'(?:s|t|re|ve|m|ll|d)|[^\W\d_]+")


@dataclass(frozen=True)
class TrainingWords:
    """The words that a text tower has learnt.

    Attributes:
        images: word in lower case → number of training images whose captions contain it.
    """

    images: Mapping[str, int]

    @classmethod
    def of(cls, captions: Iterable[Iterable[str]]) -> TrainingWords:
        """Counts words.

        Args:
            captions: for each training image, its captions.

        Example:
            >>> TrainingWords.of([["A port.", "a PORT with boats"], ["a beach"]]).images
            {'a': 2, 'beach': 1, 'boats': 1, 'port': 1, 'with': 1}
        """
        counts: Counter[str] = Counter()
        for texts in captions:
            counts.update({word for text in texts for word in _words(text)})
        return cls(dict(sorted(counts.items())))

    def merged(self, other: TrainingWords) -> TrainingWords:
        """The words of a model that was trained on one dataset after another.

        Of two counts the larger is kept, as both may be of the same images.
        """
        return TrainingWords(dict(sorted((Counter(self.images) | Counter(other.images)).items())))

    def unfamiliar(self, texts: Sequence[str]) -> list[UnfamiliarWord]:
        """The words of some texts that never occurred in training or hardly ever, each once.

        Function words such as "with" or "show" are left out. Other forms of a familiar word count
        as words of their own, since the tokenizer gives them other tokens.
        """
        words = dict.fromkeys(word for text in texts for word in _words(text))
        return [
            UnfamiliarWord(word, self.images.get(word, 0))
            for word in words
            if not self._is_familiar(word)
        ]

    def near(self, word: str) -> tuple[str, ...]:
        """Up to four familiar words or phrases of similar spelling or meaning, the nearest first.

        Example:
            >>> TrainingWords({"port": 326, "harbour": 36, "ships": 2}).near("harbours")
            ('harbour', 'port')
        """
        inflected = [form for form in (*_singulars(word), f"{word}s") if form in self._familiar]
        alike = difflib.get_close_matches(
            word, [one for one in self._familiar if one[0] == word[0]], _MOST_NEAR, _SPELT_ALIKE
        )
        related = [
            near
            for form in (word, *_singulars(word))
            for near in _near_words().get(form, ())
            if all(map(self._is_familiar, near.split()))
        ]
        return tuple(dict.fromkeys([*inflected, *alike, *related]))[:_MOST_NEAR]

    def write(self, directory: Path) -> None:
        """Writes the file of a model directory, a word a line."""
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
    """The training words of a model directory; None where it has no list of them.

    Raises:
        ModelError: the file is not such a list.
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
            "else; fetch the model again, or remove the file to do without warnings"
        )
    return TrainingWords(images)


def _words(text: str) -> Iterator[str]:
    lowered = unicodedata.normalize("NFC", text).lower().replace("’", "'")
    return (word for word in _TOKEN.findall(lowered) if not word.startswith("'"))


def _singulars(word: str) -> list[str]:
    """What a word may be the plural of."""
    endings = [("ies", "y"), ("es", ""), ("s", "")]
    return [word.removesuffix(end) + new for end, new in endings if word.endswith(end)]


@cache
def _function_words() -> frozenset[str]:
    lines = _FUNCTION_WORDS.read_text(encoding="utf-8").splitlines()
    return frozenset(word for line in lines if not line.startswith("#") for word in line.split())


@cache
def _near_words() -> dict[str, tuple[str, ...]]:
    """Word → words and phrases of similar meaning, the nearest first; see the file."""
    near: dict[str, tuple[str, ...]] = {}
    for line in _NEAR_WORDS.read_text(encoding="utf-8").splitlines():
        words, colon, others = line.partition(":")
        if colon and not line.startswith("#"):
            for word in words.split():
                near[word] = (*near.get(word, ()), *map(str.strip, others.split(",")))
    return near
