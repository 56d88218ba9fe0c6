"""Which images need captions, and which paraphrases they get; the translating is passed in.

Back-translation (Sennrich et al. 2016, arXiv:1511.06709) as CLIP-rsicd used it: a caption goes
into another language and back, and what returns says the same in other words.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

RoundTrip = Callable[[Sequence[str]], Sequence[str]]
"""Distinct captions → what each became on its way there and back, in order."""

_BEFORE_PUNCTUATION = re.compile(r"\s+(?=[.,;:!?])")


@dataclass(frozen=True)
class Filled:
    """Captions by image, and what came of the paraphrases.

    Attributes:
        captions: of each image the distinct originals, then its paraphrases.
        added: paraphrases that were taken, by language.
        dropped: paraphrases that were empty, or said what the image had already.
        short: images that still have fewer captions than asked.
    """

    captions: dict[str, tuple[str, ...]]
    added: dict[str, int]
    dropped: int
    short: int


def same_text(caption: str) -> str:
    """What is equal for captions that differ in case, spaces or the final full stop only.

    >>> same_text("Two boats , in a port .") == same_text("two  boats, in a port")
    True
    """
    joined = _BEFORE_PUNCTUATION.sub("", " ".join(caption.casefold().split()))
    return joined.rstrip(". ")


def distinct(captions: Iterable[str]) -> list[str]:
    """The first of each group of captions that are the same text."""
    found: dict[str, str] = {}
    for caption in captions:
        found.setdefault(same_text(caption), caption)
    return list(found.values())


def fill(
    captions: Mapping[str, Sequence[str]], round_trips: Mapping[str, RoundTrip], count: int
) -> Filled:
    """Gives each image paraphrases of its captions until it has `count` distinct ones.

    Language by language, in order: the images that are still short have all their originals
    translated, and take the paraphrases that are new to them. A caption that several images share
    is translated once. An image with more than `count` distinct captions keeps them all.

    Args:
        captions: originals by image.
        round_trips: by language.
        count: distinct captions that each image is to have.
    """
    originals = {image: distinct(own) for image, own in captions.items()}
    filled = {image: list(own) for image, own in originals.items()}
    known = {image: {same_text(one) for one in own} | {""} for image, own in originals.items()}
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
