"""Decoding against slow references that run the whole model for each word."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise, product

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from rsicd_embed.captioning.caption_config import METHODS, Decoding, Method
from rsicd_embed.captioning.caption_model import CaptionModel
from rsicd_embed.captioning.captioner import Captioner
from rsicd_embed.captioning.captioner_files import CaptionerParts, named_arrays, params_of
from rsicd_embed.errors import ArgumentError, ModelError

from .tiny_captioner import CONFIG, WORDS, tiny_parts, unit_vectors

VECTORS = unit_vectors(7)
FREE = Decoding("greedy", no_repeat=0, max_words=6)


def log_probabilities(parts: CaptionerParts, vectors: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """float (n, t, v) of captions, without a memory."""
    model = nnx.merge(nnx.graphdef(CaptionModel(CONFIG, rngs=nnx.Rngs(0))), parts.params)
    logits = np.asarray(model(jnp.asarray(vectors), jnp.asarray(tokens)), np.float64)
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


def mean_log_probability(parts: CaptionerParts, vector: np.ndarray, text: str) -> float:
    """That of a caption and its end."""
    tokens = np.array([[*WORDS.encode(text), WORDS.end]])
    own = log_probabilities(parts, vector[None], tokens)[0]
    return float(own[np.arange(tokens.shape[1]), tokens[0]].mean())


def greedy(parts: CaptionerParts, vector: np.ndarray, words: int) -> str:
    tokens: list[int] = []
    while len(tokens) < words:
        padded = np.array([[*tokens, 0]])
        likely = log_probabilities(parts, vector[None], padded)[0, len(tokens)]
        likely[[*WORDS.unwanted, *([WORDS.end] if not tokens else [])]] = -np.inf
        best = int(likely.argmax())
        if best == WORDS.end:
            break
        tokens.append(best)
    return WORDS.decode(tokens)


@pytest.mark.slow
def test_greedy_captions_are_the_most_likely_words() -> None:
    parts = tiny_parts()
    generated = Captioner(parts).caption_vectors(VECTORS, FREE)
    assert list(generated.texts) == [greedy(parts, vector, 6) for vector in VECTORS]
    assert len(set(generated.texts)) > 1
    expected = [
        mean_log_probability(parts, vector, text)
        for vector, text in zip(VECTORS, generated.texts, strict=True)
    ]
    np.testing.assert_allclose(generated.log_probabilities, expected, atol=1e-4)


@pytest.mark.slow
def test_a_wide_beam_search_finds_the_best_caption_of_all() -> None:
    parts = tiny_parts()
    decoding = Decoding("beam", beams=64, no_repeat=0, max_words=2)
    generated = Captioner(parts).caption_vectors(VECTORS[:3], decoding)
    words = range(2, WORDS.size)
    texts = [WORDS.decode(w) for n in (1, 2) for w in product(words, repeat=n)]
    for vector, text, found in zip(
        VECTORS, generated.texts, generated.log_probabilities, strict=False
    ):
        best = max(texts, key=lambda text: mean_log_probability(parts, vector, text))
        assert text == best
        assert found == pytest.approx(mean_log_probability(parts, vector, best), abs=1e-4)


@pytest.mark.slow
def test_a_beam_of_one_is_greedy_and_wider_beams_are_no_worse() -> None:
    captioner = Captioner(tiny_parts())
    plain = captioner.caption_vectors(VECTORS, FREE)
    one = captioner.caption_vectors(VECTORS, Decoding("beam", beams=1, no_repeat=0, max_words=6))
    five = captioner.caption_vectors(VECTORS, Decoding("beam", beams=5, no_repeat=0, max_words=6))
    assert one.texts == plain.texts
    assert five.log_probabilities.mean() > plain.log_probabilities.mean()


@pytest.mark.parametrize("method", METHODS)
def test_no_sequence_is_repeated(method: Method) -> None:
    captioner = Captioner(tiny_parts())
    texts = captioner.caption_vectors(VECTORS, Decoding(method, no_repeat=2)).texts
    grams = [list(pairwise(text.replace("'s", " 's").split())) for text in texts]
    assert all(len(own) == len(set(own)) for own in grams)
    assert max(map(len, grams)) > 3


def test_repetitions_are_allowed_on_request() -> None:
    texts = Captioner(tiny_parts()).caption_vectors(VECTORS, FREE).texts
    assert any(len(set(text.split())) < len(text.split()) for text in texts)


@pytest.mark.slow
def test_random_captions_do_not_depend_on_batches() -> None:
    decoding = Decoding("nucleus", no_repeat=2, seed=3)
    whole = Captioner(tiny_parts()).caption_vectors(VECTORS, decoding)
    small = Captioner(tiny_parts(), batch_size=2)
    parts = [
        small.caption_vectors(VECTORS[:3], decoding),
        small.caption_vectors(VECTORS[3:], decoding, first=3),
    ]
    assert whole.texts == parts[0].texts + parts[1].texts
    other = small.caption_vectors(VECTORS, Decoding("nucleus", no_repeat=2, seed=4))
    assert other.texts != whole.texts
    sure = small.caption_vectors(VECTORS, replace(FREE, method="nucleus", top_p=1e-6))
    assert sure.texts == small.caption_vectors(VECTORS, FREE).texts


def test_batches_of_any_size_give_the_same_captions() -> None:
    captioner = Captioner(tiny_parts(), batch_size=4)
    whole = captioner.caption_vectors(VECTORS, FREE)
    single = [captioner.caption_vectors(VECTORS[i : i + 1], FREE).texts[0] for i in range(7)]
    assert list(whole.texts) == single
    assert captioner.caption_vectors(VECTORS[:0], FREE).texts == ()


def test_what_cannot_be_captioned_is_refused() -> None:
    captioner = Captioner(tiny_parts())
    with pytest.raises(ArgumentError, match="at most 12 words, the context of this captioner"):
        captioner.caption_vectors(VECTORS, Decoding(max_words=13))
    with pytest.raises(ModelError, match="vectors of dimension 8, which tiny was trained on"):
        captioner.caption_vectors(np.zeros((2, 5), np.float32))
    parts = tiny_parts()
    broken = {"mapping.up.bias": jnp.full(12, jnp.nan)}
    params = params_of(named_arrays(parts.params) | broken)
    damaged = Captioner(CaptionerParts(CONFIG, params, WORDS, parts.made_by, "broken"))
    for method in METHODS:
        with pytest.raises(ModelError, match="finite logits from captioner broken"):
            damaged.caption_vectors(VECTORS, Decoding(method, no_repeat=2))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"method": "best"}, "one of greedy, beam, nucleus"),
        ({"beams": 0}, "beams ≥ 1"),
        ({"top_p": 0.0}, r"a top-p in \(0, 1\], found 0\.0$"),
        ({"temperature": 0.0}, "temperature > 0"),
        ({"max_words": 0}, "at least one word"),
        ({"length_penalty": -1.0}, "length penalty"),
        ({"no_repeat": -1}, "length of repetitions"),
    ],
)
def test_impossible_settings_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        Decoding(**values)  # type: ignore[arg-type]
