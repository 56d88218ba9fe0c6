"""Vocabularies of captioners: the words of training captions, with numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

from rsicd_embed.errors import ModelError
from rsicd_embed.evaluation.caption_metrics import tokenise

FILE = "vocabulary.txt"
_END, _UNKNOWN = 0, 1
_SPECIAL = ("<end>", "<unknown>")


class Vocabulary(Protocol):
    """Maps captions to numbers and back."""

    @property
    def size(self) -> int:
        """Number of tokens."""
        ...

    @property
    def end(self) -> int:
        """The token that ends a caption."""
        ...

    @property
    def unwanted(self) -> Sequence[int]:
        """Tokens that a caption never has."""
        ...

    def encode(self, caption: str) -> list[int]:
        """The tokens of a caption, without its end."""
        ...

    def decode(self, tokens: Sequence[int]) -> str:
        """The caption of tokens without the end."""
        ...

    def save(self, directory: Path) -> None:
        """Writes the files of the vocabulary to a captioner's directory."""
        ...


class Words:
    """A vocabulary of whole words, in lower case and without punctuation."""

    end = _END
    unwanted = (_UNKNOWN,)

    def __init__(self, words: Sequence[str]) -> None:
        """Numbers the words, after the end of a caption and the unknown word.

        Raises:
            ModelError: there are no words, or one is repeated or has a space.
        """
        self.words = tuple(words)
        repeated = [word for word, count in Counter(self.words).items() if count > 1]
        wrong = [word for word in self.words if word.split() != [word] or word in _SPECIAL]
        if not self.words or repeated or wrong:
            shown = repr((repeated or wrong)[0]) if self.words else "none"
            raise ModelError(f"expected distinct words without spaces, found {shown}")
        self._numbers = {word: number for number, word in enumerate(self.words, len(_SPECIAL))}

    @classmethod
    def of(cls, captions: Iterable[str], least: int = 2) -> Words:
        """The words that occur at least `least` times in captions, the most frequent first."""
        counts = Counter(word for caption in captions for word in tokenise(caption))
        ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        return cls([word for word, count in ranked if count >= least])

    @classmethod
    def read(cls, directory: Path) -> Words:
        """Reads the vocabulary of a captioner's directory.

        Raises:
            ModelError: it cannot be read.
        """
        path = directory / FILE
        try:
            return cls(path.read_text("utf-8").split("\n")[:-1])
        except (OSError, UnicodeDecodeError, ModelError) as error:
            raise ModelError(f"{path}: expected a word per line: {error}") from error

    @property
    def size(self) -> int:
        """Number of tokens."""
        return len(self.words) + len(_SPECIAL)

    def encode(self, caption: str) -> list[int]:
        """The tokens of a caption, without its end."""
        return [self._numbers.get(word, _UNKNOWN) for word in tokenise(caption)]

    def decode(self, tokens: Sequence[int]) -> str:
        """The caption of tokens: words and spaces, with `'s` and `n't` joined to their words."""
        words = [self.words[token - len(_SPECIAL)] for token in tokens if token >= len(_SPECIAL)]
        text = ""
        for word in words:
            joined = word == "n't" or word.startswith("'")
            text += word if joined or not text else f" {word}"
        return text

    def save(self, directory: Path) -> None:
        """Writes a word per line."""
        text = "".join(f"{word}\n" for word in self.words)
        (directory / FILE).write_text(text, "utf-8")
