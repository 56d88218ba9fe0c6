"""Fills up the captions of images with paraphrases by back-translation.

Back-translation (Sennrich et al. 2016, arXiv:1511.06709) as in CLIP-rsicd: a caption is translated
into another language and back, and returns with the same meaning in other words.
"""

from __future__ import annotations

import importlib.util
import re
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import lru_cache

from rsicd_embed.datasets.base import Example
from rsicd_embed.errors import DatasetError, ModelError, TrainError
from rsicd_embed.parallel import batched
from rsicd_embed.train.backtranslation import marian
from rsicd_embed.train.backtranslation.marian import Translations

# CLIP-rsicd's models; the Hub has neither opus-mt-en-pt nor opus-mt-pt-en.
LANGUAGES = ("fr", "es", "it", "pt")
FROM_ENGLISH = "Helsinki-NLP/opus-mt-en-ROMANCE"
TO_ENGLISH = "Helsinki-NLP/opus-mt-ROMANCE-en"

_NEEDS = ("torch", "transformers", "sentencepiece")
_DECODING = 1  # incremented when `marian.Translator` decodes differently, to ignore cached results
_BEFORE_PUNCTUATION = re.compile(r"\s+(?=[.,;:!?])")

Translate = Callable[[Sequence[str]], Sequence[str]]
"""Maps distinct captions to their paraphrases, in order."""

Watch = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
"""Shows progress: takes a title and a number of captions; yields a function to advance by."""


@dataclass(frozen=True)
class Via:
    """An intermediate language and its two models: directories or Hugging Face ids."""

    language: str
    from_english: str = FROM_ENGLISH
    to_english: str = TO_ENGLISH


@dataclass(frozen=True)
class ParaphraseSettings:
    """Settings of `paraphrase`.

    Attributes:
        via: languages in the order of use; each only for images that still have too few captions.
        count: number of distinct captions that each image should have.
        batch_size: number of captions translated at once.
        num_beams: width of the beam search.
        device: torch device; None for the GPU if there is one.
    """

    via: tuple[Via, ...] = tuple(Via(language) for language in LANGUAGES)
    count: int = 5
    batch_size: int = 32
    num_beams: int = 4
    device: str | None = None


@dataclass(frozen=True)
class Filled:
    """Captions of images after adding paraphrases.

    Attributes:
        captions: each image's distinct originals, followed by its paraphrases.
        added: number of paraphrases used, by language.
        dropped: number of paraphrases that were empty or already among the image's captions.
        short: number of images that still have too few captions.
    """

    captions: dict[str, tuple[str, ...]]
    added: dict[str, int]
    dropped: int
    short: int


@dataclass(frozen=True)
class ParaphraseOutcome:
    """Result of `paraphrase`.

    Attributes:
        filled: captions by image id.
        short_before: number of images that had too few distinct captions.
        without_captions: ids of images without captions, which are left out.
        translated: number of captions translated, counting both directions.
        remembered: number of cached translations used.
        model_seconds: time spent loading and running models.
    """

    filled: Filled
    short_before: int
    without_captions: tuple[str, ...]
    translated: int
    remembered: int
    model_seconds: float


def same_text(caption: str) -> str:
    """Normalises a caption: equal for captions differing in case, spaces or a final full stop.

    >>> same_text("Two boats , in a port .") == same_text("two  boats, in a port")
    True
    """
    joined = _BEFORE_PUNCTUATION.sub("", " ".join(caption.casefold().split()))
    return joined.rstrip(". ")


def distinct(captions: Iterable[str]) -> list[str]:
    """Drops captions that repeat an earlier one; see `same_text`."""
    first: dict[str, str] = {}
    for caption in captions:
        first.setdefault(same_text(caption), caption)
    return list(first.values())


def fill(
    captions: Mapping[str, Sequence[str]], round_trips: Mapping[str, Translate], count: int
) -> Filled:
    """Adds paraphrases to each image's captions until there are `count` distinct ones.

    Languages are used in order: each image still short of captions has all its originals
    translated, and keeps the paraphrases that are new to it. A caption shared by several images is
    translated once. An image with more than `count` distinct captions keeps them all.
    """
    originals = {image: distinct(own) for image, own in captions.items()}
    filled = {image: list(own) for image, own in originals.items()}
    known = {image: {same_text(text) for text in own} | {""} for image, own in originals.items()}
    added, dropped = dict.fromkeys(round_trips, 0), 0
    for language, round_trip in round_trips.items():
        short = [image for image, own in filled.items() if len(own) < count]
        texts = list(dict.fromkeys(text for image in short for text in originals[image]))
        if not texts:
            break
        paraphrases = dict(zip(texts, round_trip(texts), strict=True))
        for image in short:
            for text in originals[image]:
                if len(filled[image]) == count:
                    break
                paraphrase = paraphrases[text]
                if same_text(paraphrase) in known[image]:
                    dropped += 1
                    continue
                known[image].add(same_text(paraphrase))
                filled[image].append(paraphrase)
                added[language] += 1
    return Filled(
        {image: tuple(own) for image, own in filled.items()},
        added,
        dropped,
        sum(len(own) < count for own in filled.values()),
    )


def paraphrase(
    examples: Sequence[Example],
    settings: ParaphraseSettings,
    translations: Translations,
    watch: Watch,
) -> ParaphraseOutcome:
    """Fills up the captions of images by back-translation; see `fill`.

    All models are located, and downloaded if needed, before the first is used. A model is loaded
    when a text is not among the cached `translations`.

    Raises:
        DatasetError: no image has a caption.
        TrainError: a library or the device is missing.
        ModelError: a model cannot be found or used, or returns nothing.
        StoreError: translations cannot be stored.
    """
    captions = {example.id: example.captions for example in examples if example.captions}
    if not captions:
        raise DatasetError(
            f"expected images with captions, found none among {len(examples)} images"
        )
    short = sum(len(distinct(own)) < settings.count for own in captions.values())
    directions = _directions(settings, translations, watch) if short else {}

    def round_trip(there: _Direction, back: _Direction) -> Translate:
        return lambda texts: back(there(texts))

    filled = fill(
        captions,
        {language: round_trip(*pair) for language, pair in directions.items()},
        settings.count,
    )
    used = [direction for pair in directions.values() for direction in pair]
    return ParaphraseOutcome(
        filled,
        short,
        tuple(example.id for example in examples if not example.captions),
        sum(direction.translated for direction in used),
        sum(direction.remembered for direction in used),
        sum(direction.seconds for direction in used),
    )


class _Direction:
    """Translation by one model into one language, cached."""

    def __init__(
        self,
        title: str,
        token: str,
        checkpoint: marian.Checkpoint,
        load: Callable[[marian.Checkpoint], marian.Translator],
        settings: ParaphraseSettings,
        translations: Translations,
        watch: Watch,
    ) -> None:
        self._title, self._token, self._checkpoint, self._load = title, token, checkpoint, load
        self._settings, self._translations, self._watch = settings, translations, watch
        self._key = f"{checkpoint.digest} {token}beams={settings.num_beams} v{_DECODING}"
        self.translated = self.remembered = 0
        self.seconds = 0.0
        self._truncated = self._max_tokens = 0

    def __call__(self, texts: Sequence[str]) -> list[str]:
        requested = [text for text in dict.fromkeys(texts) if text]
        results = self._translations.find(self._key, requested)
        self.remembered += len(results)
        # Batch texts of similar length to reduce padding; the longest, which may not fit, first.
        left = sorted((text for text in requested if text not in results), key=len, reverse=True)
        with self._watch(self._title, len(left)) as advance:
            for batch in batched(left, self._settings.batch_size):
                translated = dict(zip(batch, self._translate(batch), strict=True))
                self._translations.add(self._key, translated)
                results |= translated
                self.translated += len(batch)
                advance(len(batch))
        if self._truncated:
            warnings.warn(
                f"{self._truncated} captions are longer than the {self._max_tokens} tokens that "
                f"{self._checkpoint.name} accepts; their ends are left out",
                stacklevel=2,
            )
        if requested and not any(results.values()):
            raise ModelError(
                f"{self._checkpoint.name}: expected translations of {len(requested)} captions, "
                "found only empty ones; is it a model for this language?"
            )
        return [results.get(text, "") for text in texts]

    def _translate(self, batch: list[str]) -> list[str]:
        start = time.perf_counter()
        translator = self._load(self._checkpoint)
        before = translator.truncated
        translated = translator.translate(
            [self._token + text for text in batch], self._settings.num_beams
        )
        self._truncated += translator.truncated - before
        self._max_tokens = translator.max_tokens
        self.seconds += time.perf_counter() - start
        return translated


def _directions(
    settings: ParaphraseSettings, translations: Translations, watch: Watch
) -> dict[str, tuple[_Direction, _Direction]]:
    missing = [name for name in _NEEDS if importlib.util.find_spec(name) is None]
    if missing:
        raise TrainError(
            f"back-translation needs {', '.join(missing)}, which is not installed: "
            "pip install 'rsicd-embed[augment]'"
        )
    device = marian.choose_device(settings.device)
    find = lru_cache(maxsize=None)(marian.find)

    @lru_cache(maxsize=2)  # the models of one round trip; a model may serve several languages
    def load(checkpoint: marian.Checkpoint) -> marian.Translator:
        return marian.Translator(checkpoint, device)

    def direction(title: str, model: str, language: str) -> _Direction:
        checkpoint = find(model)
        token = checkpoint.target_token(language)
        return _Direction(title, token, checkpoint, load, settings, translations, watch)

    return {
        via.language: (
            direction(f"en → {via.language}", via.from_english, via.language),
            direction(f"{via.language} → en", via.to_english, "en"),
        )
        for via in settings.via
    }
