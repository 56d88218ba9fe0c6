"""Captioners on disk, and their vocabularies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rsicd_embed.captioning import captioner_files
from rsicd_embed.captioning.caption_config import CaptionerConfig, DecoderConfig, Decoding
from rsicd_embed.captioning.captioner import Captioner
from rsicd_embed.captioning.loading_captioner import load_captioner
from rsicd_embed.captioning.vocabulary import Words
from rsicd_embed.embedder.clip import weight_files
from rsicd_embed.errors import ModelError, WeightsError

from .tiny_captioner import WORDS, tiny_parts, unit_vectors


def changed(directory: Path, name: str, value: Any) -> None:
    """Changes a value of config.json."""
    path = directory / captioner_files.CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))


@pytest.mark.parametrize("int8", [False, True])
def test_a_saved_captioner_writes_the_same_captions(tmp_path: Path, int8: bool) -> None:
    parts = tiny_parts()
    captioner_files.save(tmp_path, parts, int8=int8)
    loaded = load_captioner(tmp_path)
    vectors = unit_vectors(20)
    decoding = Decoding("greedy", max_words=6)
    first, second = (c.caption_vectors(vectors, decoding) for c in (Captioner(parts), loaded))
    assert loaded.made_by == parts.made_by
    same = sum(a == b for a, b in zip(first.texts, second.texts, strict=True))
    assert same == 20 if not int8 else same >= 15
    assert ("int8" in str(sorted(tmp_path.iterdir()))) == int8


def test_the_folder_of_a_run_is_its_best_captioner(tmp_path: Path) -> None:
    (tmp_path / "best").mkdir()
    captioner_files.save(tmp_path / "best", tiny_parts())
    assert load_captioner(tmp_path).config == tiny_parts().config


def test_weights_are_checked(tmp_path: Path) -> None:
    captioner_files.save(tmp_path, tiny_parts())
    path = tmp_path / weight_files.SAFETENSORS
    tensors = {k: np.array(v) for k, v in weight_files.load(tmp_path).items()}
    del tensors["mapping.up.bias"]
    tensors["extra"] = np.zeros(1, np.float32)
    tensors["mapping.down.bias"] = np.full_like(tensors["mapping.down.bias"], np.nan)
    tensors["mapping.up.weight"] = np.zeros((3, 3), np.float32)
    weight_files.save_safetensors(tensors, path)
    with pytest.raises(WeightsError) as raised:
        load_captioner(tmp_path)
    for problem in (
        "missing mapping.up.bias",
        "unused extra",
        "mapping.down.bias: NaN or infinity",
        r"mapping.up.kernel: expected shape (8, 12), found (3, 3)",
    ):
        assert problem in str(raised.value)


def test_malformed_captioners_are_refused(tmp_path: Path) -> None:
    captioner_files.save(tmp_path, tiny_parts())
    content = (tmp_path / captioner_files.CONFIG).read_text()
    for name, value, message in (
        ("model_type", "clip", "expected a captioner, found a model of type 'clip'"),
        ("captioner", {"decoder": {}}, "expected the sizes of a captioner"),
        ("embedder", {"name": "x"}, "name, fingerprint and dim of the embedder"),
    ):
        changed(tmp_path, name, value)
        with pytest.raises(ModelError, match=message):
            load_captioner(tmp_path)
        (tmp_path / captioner_files.CONFIG).write_text(content)
    WORDS.save(tmp_path)
    (tmp_path / "vocabulary.txt").write_text("a\nport\n")
    with pytest.raises(WeightsError, match="vocabulary of 12 tokens, which the decoder has, found"):
        load_captioner(tmp_path)
    (tmp_path / "vocabulary.txt").write_text("a\na\n")
    with pytest.raises(ModelError, match="expected distinct words without spaces, found 'a'"):
        load_captioner(tmp_path)
    with pytest.raises(ModelError, match=r"expected a captioner in .*absent, found no config"):
        load_captioner(tmp_path / "absent")


def test_impossible_shapes_are_refused() -> None:
    with pytest.raises(ModelError, match="width divisible by the 3 heads"):
        DecoderConfig(10, width=16, heads=3)
    with pytest.raises(ModelError, match="sizes of at least 1"):
        DecoderConfig(0)
    with pytest.raises(ModelError, match="prefix shorter than the 4 positions"):
        CaptionerConfig(DecoderConfig(10, positions=4), 8, prefix=4)


def test_words() -> None:
    words = Words.of(["A boat, isn't it?", "a boat's port", "A boat ."], least=2)
    assert words.words == ("a", "boat")
    assert words.encode("A boat near a port.") == [2, 3, 1, 2, 1]
    every = Words.of(["it isn't the boat's port"], least=1)
    assert every.decode(every.encode("It isn't the boat's port.")) == "it isn't the boat's port"
    with pytest.raises(ModelError, match="found none"):
        Words.of(["a boat"], least=2)
