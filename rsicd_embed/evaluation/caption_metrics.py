"""Caption metrics: BLEU-1 to BLEU-4, ROUGE-L and CIDEr-D, as in pycocoevalcap.

BLEU is a figure of the corpus; ROUGE-L and CIDEr-D are means over images. CIDEr-D takes its
document frequencies from the references of the evaluated images. Captions are tokenised as in the
Penn Treebank, in lower case and without punctuation.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rsicd_embed.errors import DatasetError

_ORDERS = 4
_SMALL, _TINY = 1e-9, 1e-15  # BLEU's constants against division by zero
_ROUGE_BETA = 1.2
_CIDER_SIGMA = 6.0
_BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}
_TOKEN = re.compile(
    r"""
    \d+(?:[.,:/]\d+)*(?:st|nd|rd|th)?(?![^\W_])   # 1,000  3.5  16:9  2nd
    | (?:[^\W\d_]\.){2,}                          # u.s.
    | \bcan(?=not\b) | [^\W_]+?(?=n't\b)         # can of cannot, do of don't
    | n't\b | '(?:s|m|d|re|ve|ll)\b
    | \w+(?:-\w+)*                                # well-known
    | [()\[\]{}] | [^\s\w]
    """,
    re.VERBOSE,
)
_PUNCTUATION = frozenset(".?!,:;-'`\"…–—“”‘’")

Ngrams = Counter[tuple[str, ...]]


def tokenise(caption: str) -> list[str]:
    """Words of a caption in lower case, without punctuation.

    Example:
        >>> tokenise("The river's bank isn't well-known (yet).")
        ['the', 'river', "'s", 'bank', 'is', "n't", 'well-known', '-lrb-', 'yet', '-rrb-']
    """
    tokens = _TOKEN.findall(caption.lower().replace("’", "'"))
    return [_BRACKETS.get(token, token) for token in tokens if token not in _PUNCTUATION]


@dataclass(frozen=True)
class CaptionScores:
    """The statistics of each image from which the metrics are computed.

    Attributes:
        matches: float (n, 4), n-grams of the caption that a reference has too, by length.
        ngrams: float (n, 4), all n-grams of the caption.
        lengths: float (n, 2), words of the caption and of the reference of closest length.
        rouge_l: float (n,).
        cider_d: float (n,).
    """

    matches: np.ndarray
    ngrams: np.ndarray
    lengths: np.ndarray
    rouge_l: np.ndarray
    cider_d: np.ndarray

    def statistic(self, counts: np.ndarray) -> Mapping[str, np.ndarray]:
        """The metrics of resamples, for `metrics.point` and `metrics.intervals`.

        Args:
            counts: float (resamples, n), how often each image was drawn.

        Returns:
            `bleu1` to `bleu4`, `rouge_l` and `cider_d`, each float (resamples,).
        """
        precisions = (counts @ self.matches + _TINY) / (counts @ self.ngrams + _SMALL)
        length, reference = (counts @ self.lengths).T
        ratio = (length + _TINY) / (reference + _SMALL)
        brevity = np.exp(np.minimum(0.0, 1 - 1 / ratio))
        products = np.cumprod(precisions, axis=1)
        bleu = {
            f"bleu{order}": products[:, order - 1] ** (1 / order) * brevity
            for order in range(1, _ORDERS + 1)
        }
        drawn = counts.sum(axis=1)
        return bleu | {
            "rouge_l": counts @ self.rouge_l / drawn,
            "cider_d": counts @ self.cider_d / drawn,
        }


def score_captions(captions: Sequence[str], references: Sequence[Sequence[str]]) -> CaptionScores:
    """Compares one caption per image with the image's reference captions.

    Raises:
        DatasetError: there are no images, not one caption for each, or an image without reference.

    Example:
        >>> from rsicd_embed.evaluation.metrics import point
        >>> scores = score_captions(["a red boat"], [["a boat", "a red boat"]])
        >>> round(point(scores.statistic, 1)["bleu2"], 6)
        1.0
    """
    if not captions or len(captions) != len(references):
        raise DatasetError(
            f"expected one caption for each of the images with reference captions, found "
            f"{len(captions)} captions of {len(references)} images"
        )
    missing = sum(not own for own in references)
    if missing:
        raise DatasetError(
            f"expected reference captions for every image, found none for {missing} of "
            f"{len(references)}; leave those images out"
        )
    words = [tokenise(caption) for caption in captions]
    reference_words = [[tokenise(caption) for caption in own] for own in references]
    grams = [_ngrams(tokens) for tokens in words]
    reference_grams = [[_ngrams(tokens) for tokens in own] for own in reference_words]
    pairs = list(zip(words, reference_words, strict=True))
    cider = CiderD(reference_grams)
    return CaptionScores(
        matches=np.array(
            [_matches(own, others) for own, others in zip(grams, reference_grams, strict=True)]
        ),
        ngrams=np.array(
            [[max(0, len(own) - order) for order in range(_ORDERS)] for own in words], float
        ),
        lengths=np.array(
            [[len(own), _closest_length(own, others)] for own, others in pairs], float
        ),
        rouge_l=np.array([_rouge_l(own, others) for own, others in pairs]),
        cider_d=np.array([cider(own, image) for image, own in enumerate(grams)]),
    )


def _ngrams(words: Sequence[str]) -> Ngrams:
    return Counter(
        tuple(words[start : start + order])
        for order in range(1, _ORDERS + 1)
        for start in range(len(words) - order + 1)
    )


def _matches(grams: Ngrams, references: Sequence[Ngrams]) -> list[float]:
    """Clipped matches by length: an n-gram counts as often as one reference has it at most."""
    matches = [0.0] * _ORDERS
    for gram, count in grams.items():
        matches[len(gram) - 1] += min(count, max(own[gram] for own in references))
    return matches


def _closest_length(words: Sequence[str], references: Sequence[Sequence[str]]) -> int:
    return min((abs(len(own) - len(words)), len(own)) for own in references)[1]


def _rouge_l(words: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """F-measure of the best shares that the longest common subsequence covers (Lin 2004)."""
    common = [_common_length(words, own) for own in references]
    of_candidate = max(common) / max(1, len(words))
    of_reference = max(n / max(1, len(own)) for n, own in zip(common, references, strict=True))
    if not of_candidate or not of_reference:
        return 0.0
    weight = _ROUGE_BETA**2
    return (1 + weight) * of_candidate * of_reference / (of_reference + weight * of_candidate)


def _common_length(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest common subsequence."""
    row = [0] * (len(second) + 1)
    for word in first:
        diagonal = 0
        for place, other in enumerate(second, 1):
            above = row[place]
            row[place] = diagonal + 1 if word == other else max(above, row[place - 1])
            diagonal = above
    return row[-1]


class CiderD:
    """CIDEr-D (arXiv:1411.5726) against fixed references; 10 for a perfect caption.

    Words that few images' references have count more.
    """

    def __init__(self, references: Sequence[Sequence[Ngrams]]) -> None:
        """Counts in how many images each n-gram of the references occurs."""
        self._documents = Counter(gram for own in references for gram in set().union(*own))
        self._images = float(np.log(len(references)))
        weighted: dict[int, _Weighted] = {}  # by identity, since images share references
        for own in references:
            for grams in own:
                if id(grams) not in weighted:
                    weighted[id(grams)] = self._weighted(grams)
        self._references = [[weighted[id(grams)] for grams in own] for own in references]

    def __call__(self, grams: Ngrams, image: int) -> float:
        """The score of a caption for the image of this number."""
        own, references = self._weighted(grams), self._references[image]
        return 10 * sum(own.similarity(other) for other in references) / len(references)

    def _weighted(self, grams: Ngrams) -> _Weighted:
        vectors: list[dict[tuple[str, ...], float]] = [{} for _ in range(_ORDERS)]
        for gram, count in grams.items():
            rarity = self._images - np.log(max(1, self._documents[gram]))
            vectors[len(gram) - 1][gram] = count * float(rarity)
        bigrams = sum(count for gram, count in grams.items() if len(gram) == 2)
        return _Weighted(vectors, [_norm(vector) for vector in vectors], bigrams)


@dataclass(frozen=True)
class _Weighted:
    """The n-grams of a caption by length, with their weights, norms, and number of bigrams."""

    vectors: list[dict[tuple[str, ...], float]]
    norms: list[float]
    bigrams: int

    def similarity(self, reference: _Weighted) -> float:
        total = 0.0
        for order, (vector, other) in enumerate(zip(self.vectors, reference.vectors, strict=True)):
            product = sum(
                min(value, other[gram]) * other[gram]
                for gram, value in vector.items()
                if gram in other
            )
            norm = self.norms[order] * reference.norms[order]
            total += product / norm if norm else product
        penalty = np.exp(-((self.bigrams - reference.bigrams) ** 2) / (2 * _CIDER_SIGMA**2))
        return float(total / _ORDERS * penalty)


def cider_reward(
    references: Sequence[Sequence[str]],
) -> Callable[[Sequence[str], Sequence[int]], np.ndarray]:
    """A function of captions and the numbers of their images that returns their CIDEr-D.

    Args:
        references: the captions of each image.
    """
    distinct = {caption for own in references for caption in own}
    grams = {caption: _ngrams(tokenise(caption)) for caption in distinct}
    cider = CiderD([[grams[caption] for caption in own] for own in references])

    def reward(captions: Sequence[str], images: Sequence[int]) -> np.ndarray:
        pairs = zip(captions, images, strict=True)
        return np.array([cider(_ngrams(tokenise(text)), image) for text, image in pairs])

    return reward


def _norm(vector: Mapping[tuple[str, ...], float]) -> float:
    return float(np.sqrt(sum(value**2 for value in vector.values())))
