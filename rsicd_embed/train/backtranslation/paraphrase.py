"""Captions of a split → back-translated by Marian models, with what is known from earlier runs."""

from __future__ import annotations

import importlib.util
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import lru_cache

from rsicd_embed.datasets.base import Example
from rsicd_embed.errors import DatasetError, ModelError, TrainError
from rsicd_embed.parallel import batched
from rsicd_embed.train.backtranslation import marian
from rsicd_embed.train.backtranslation.backtranslate import Filled, RoundTrip, distinct, fill
from rsicd_embed.train.backtranslation.translations import Translations

# CLIP-rsicd's models; the Hub has no opus-mt-en-pt and no opus-mt-pt-en.
LANGUAGES = ("fr", "es", "it", "pt")
FROM_ENGLISH = "Helsinki-NLP/opus-mt-en-ROMANCE"
TO_ENGLISH = "Helsinki-NLP/opus-mt-ROMANCE-en"

_NEEDS = ("torch", "transformers", "sentencepiece")
_DECODING = 1  # counted up when `marian.Translator` decodes otherwise, so that nothing old is used

Watch = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
"""A title and a number of captions → what is to be called with the number just done."""


@dataclass(frozen=True)
class Via:
    """A language to go through, and the models there and back: directories or Hugging Face ids."""

    language: str
    from_english: str = FROM_ENGLISH
    to_english: str = TO_ENGLISH


@dataclass(frozen=True)
class ParaphraseSettings:
    """How captions are filled.

    Attributes:
        via: languages in the order in which they are used; each only for images still short.
        count: distinct captions that each image is to have.
        batch_size: captions translated at once.
        num_beams: width of the beam search.
        device: of torch; None for the GPU if there is one.
    """

    via: tuple[Via, ...] = tuple(Via(language) for language in LANGUAGES)
    count: int = 5
    batch_size: int = 32
    num_beams: int = 4
    device: str | None = None


@dataclass(frozen=True)
class ParaphraseOutcome:
    """What was done.

    Attributes:
        filled: captions by image id.
        short_before: images that had fewer than `count` distinct captions.
        without_captions: ids of images that have none, so that there is nothing to translate.
        translated: captions that went through a model, each direction counted.
        remembered: those whose translation was known.
        model_seconds: spent loading models and in them.
    """

    filled: Filled
    short_before: int
    without_captions: tuple[str, ...]
    translated: int
    remembered: int
    model_seconds: float


def paraphrase(
    examples: Sequence[Example],
    settings: ParaphraseSettings,
    translations: Translations,
    watch: Watch,
) -> ParaphraseOutcome:
    """Fills the captions of images; see `backtranslate.fill`.

    Every model is found, and fetched if need be, before the first is used. A model is loaded when
    it meets a text whose translation is not in `translations`.

    Raises:
        DatasetError: no image has a caption.
        TrainError: a library is missing, or the device.
        ModelError: a model cannot be found or used, or answers nothing.
        StoreError: translations cannot be kept.
    """
    captions = {one.id: one.captions for one in examples if one.captions}
    if not captions:
        raise DatasetError(
            f"expected images with captions, found none with any among {len(examples)}"
        )
    short = sum(len(distinct(own)) < settings.count for own in captions.values())
    directions = _directions(settings, translations, watch) if short else {}
    filled = fill(
        captions,
        {language: _round_trip(*pair) for language, pair in directions.items()},
        settings.count,
    )
    used = [direction for pair in directions.values() for direction in pair]
    return ParaphraseOutcome(
        filled,
        short,
        tuple(one.id for one in examples if not one.captions),
        sum(one.translated for one in used),
        sum(one.remembered for one in used),
        sum(one.seconds for one in used),
    )


class _Direction:
    """One model, asked for one language, that remembers."""

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
        self._cut = self._most_tokens = 0

    def __call__(self, texts: Sequence[str]) -> list[str]:
        asked = [text for text in dict.fromkeys(texts) if text]
        found = self._translations.find(self._key, asked)
        self.remembered += len(found)
        # Texts of a length share a batch, so that little is padded; what may not fit comes first.
        left = sorted((text for text in asked if text not in found), key=len, reverse=True)
        with self._watch(self._title, len(left)) as advance:
            for batch in batched(left, self._settings.batch_size):
                made = dict(zip(batch, self._translate(batch), strict=True))
                self._translations.add(self._key, made)
                found |= made
                self.translated += len(batch)
                advance(len(batch))
        if self._cut:
            warnings.warn(
                f"{self._cut} captions are longer than the {self._most_tokens} tokens that "
                f"{self._checkpoint.name} takes; their ends are left out",
                stacklevel=2,
            )
        if asked and not any(found.values()):
            raise ModelError(
                f"{self._checkpoint.name}: expected translations of {len(asked)} captions, found "
                "only empty ones; is it a model of this language?"
            )
        return [found.get(text, "") for text in texts]

    def _translate(self, batch: list[str]) -> list[str]:
        start = time.perf_counter()
        translator = self._load(self._checkpoint)
        before = translator.cut
        made = translator.translate(
            [self._token + text for text in batch], self._settings.num_beams
        )
        self._cut += translator.cut - before
        self._most_tokens = translator.most_tokens
        self.seconds += time.perf_counter() - start
        return made


def _round_trip(forth: _Direction, back: _Direction) -> RoundTrip:
    return lambda texts: back(forth(texts))


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

    @lru_cache(maxsize=2)  # those of one round trip; a model may serve several languages
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
