"""Warnings and advice on query words that a model was not trained on."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsicd_embed.embedder import layout, training_words
from rsicd_embed.embedder.base import UnfamiliarWord, word_warnings
from rsicd_embed.embedder.export_model import export_model
from rsicd_embed.embedder.loading import load_clip, load_embedder
from rsicd_embed.embedder.training_words import FAMILIAR_IMAGES, TrainingWords
from rsicd_embed.errors import ModelError

# The words of a model that was trained from scratch on RSICD and UC Merced.
KNOWN = training_words.read(Path(__file__).parents[1] / "data")
assert KNOWN is not None


class Trained:
    """A model with these words."""

    unfamiliar_words = staticmethod(KNOWN.unfamiliar)
    near_words = staticmethod(KNOWN.near)


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> Path:
    """The tiny model, trained on three words."""
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    TrainingWords({"port": 30, "boats": 20, "canal": 1}).write(folder)
    return folder


def test_counts_are_of_images_not_captions() -> None:
    words = TrainingWords.of(
        [["A Port.", "port, PORT!"], ["cafe\u0301 at the harbour's port_2"], ["Ѐ 港口 don’t"], []]
    )
    assert words.images == {
        "a": 1, "at": 1, "café": 1, "don": 1, "harbour": 1, "port": 2, "the": 1, "ѐ": 1, "港口": 1,
    }  # fmt: skip
    other = TrainingWords({"port": 5, "beach": 1})
    assert words.merged(other).images == words.images | {"port": 5, "beach": 1}


@pytest.mark.parametrize(
    ("text", "advised"),
    [
        ("marina", "port"),
        ("suburb", "residential area"),
        ("airfield", "airport"),
        ("cathedral", "church"),
        ("Mosques", "church"),
        ("a creek", "river"),
        ("harbours", "harbour"),
        ("wharfes", "wharf"),
    ],
)
def test_an_unseen_word(text: str, advised: str) -> None:
    word = text.lower().split()[-1]
    (line,) = word_warnings(Trained(), [text])
    start, _, near = line.partition("; known words near it: ")
    assert start == (
        f"'{word}' never occurred in this model's training captions, so the ranking may be "
        "meaningless"
    )
    assert advised in near.split(", ")


@pytest.mark.parametrize("text", ["container", "neighbourhood", "a canal"])
def test_a_rare_word(text: str) -> None:
    word = text.split()[-1]
    (line,) = word_warnings(Trained(), [text])
    assert f"few of this model's training images have '{word}' (1) in their captions" in line


@pytest.mark.parametrize(
    "text",
    [
        "an airport with planes",
        "a harbour full of boats",
        "An aerial photograph of dense residential area",
        "show me all satellite images of my port that aren't near the beach, please",
        "2 PORT & 3.5 b2b bridges?",
        "",
    ],
)
def test_words_that_cause_no_warning(text: str) -> None:
    assert word_warnings(Trained(), [text]) == []


def test_many_words_give_two_lines() -> None:
    texts = ["qa qb qc qd", "creeks qe qf qg qa", "a canal in a lovely port"]
    unseen, rare = word_warnings(Trained(), texts)
    assert unseen.startswith("'qa', 'qb', 'qc', 'qd', 'creeks' and 3 more never occurred")
    assert unseen.endswith("; known words near 'creeks': river, stream")
    assert "'canal' (1), 'lovely' (2)" in rare


@given(st.text(max_size=30), st.lists(st.sampled_from(sorted(KNOWN.images)), max_size=4))
def test_only_words_in_the_query_are_reported(noise: str, seen: list[str]) -> None:
    assert KNOWN is not None
    text = " ".join([noise, *seen])
    for word in KNOWN.unfamiliar([text]):
        assert word.word in text.lower() or not text.isascii()
        assert word.images == KNOWN.images.get(word.word, 0) < FAMILIAR_IMAGES


def test_advice_has_only_familiar_words() -> None:
    """The advice has only words that the model knows."""
    words = TrainingWords({"port": 10, "boats": 9, "church": 10, "golf": 10, "course": 9})
    near = training_words._near_words()
    assert {known for word in near for known in words.near(word)} == {"port", "church", "golf"}
    few = TrainingWords({"golf": 10, "course": 10})
    assert few.near("putting") == ("golf course",)


def test_a_model_with_and_without_a_list(model: Path, tiny_model: Path) -> None:
    with_list, without = load_clip(model), load_embedder(tiny_model)
    assert with_list.fingerprint == without.fingerprint
    assert (with_list.embed_texts(["a marina"]) == without.embed_texts(["a marina"])).all()
    words = with_list.unfamiliar_words(["boats in a marina", "a canal"])
    assert words == [UnfamiliarWord("marina", 0), UnfamiliarWord("canal", 1)]
    assert with_list.near_words("marina") == ("port", "boats")
    assert word_warnings(without, ["a marina"]) == []
    assert word_warnings(object(), ["a marina"]) == []


def test_the_list_is_exported_with_the_model(model: Path, tmp_path: Path) -> None:
    export_model(model, tmp_path / "copy")
    assert training_words.read(tmp_path / "copy") == training_words.read(model)
    assert training_words.FILE in layout.CLIP.optional


@pytest.mark.parametrize(
    "content", ["{}", '{"version": 2, "images": {}}', '{"version": 1, "images": {"a": "b"}}', "["]
)
def test_a_malformed_list_is_refused(model: Path, content: str) -> None:
    (model / training_words.FILE).write_text(content)
    embedder = load_clip(model)
    with pytest.raises(ModelError, match=r"training_words\.json"):
        embedder.unfamiliar_words(["port"])


def test_the_bundled_model_has_no_list() -> None:
    """Its text tower knew more words before it was fine-tuned."""
    assert load_clip(backend="numpy").unfamiliar_words(["a marina"]) == []
