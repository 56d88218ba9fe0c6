"""Models before training: vocabulary, shapes and random checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np
import pytest

import rsicd_embed
from rsicd_embed.errors import ModelError
from rsicd_embed.train import initialization
from rsicd_embed.train.config import SHAPES, ModelShape, defaults, parse
from rsicd_embed.train.initialization import learn_vocabulary, with_own_loss
from tests.conftest import CAPTIONS, picture

TEXTS = ["boats in a harbour", "a desert", "planes at an airport"]


def test_different_inputs_have_different_vectors(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(initialization.SHAPES, "vit-b-32", initialization.SHAPES["tiny"])
    initialization.write_random_checkpoint(tmp_path, "vit-b-32", TEXTS)
    embedder = rsicd_embed.load_embedder(tmp_path, backend="numpy")
    for vectors in (
        embedder.embed_images([picture(i) for i in range(3)]),
        embedder.embed_texts(TEXTS),
    ):
        assert (vectors @ vectors.T)[np.triu_indices(3, 1)].max() < 0.999
    again, other = tmp_path / "again", tmp_path / "other"
    initialization.write_random_checkpoint(again, "vit-b-32", TEXTS)
    initialization.write_random_checkpoint(other, "vit-b-32", TEXTS, seed=1)
    assert rsicd_embed.load_embedder(again, backend="numpy").fingerprint == embedder.fingerprint
    assert rsicd_embed.load_embedder(other, backend="numpy").fingerprint != embedder.fingerprint


def test_settings_accept_exactly_the_known_shapes(tmp_path: Path) -> None:
    assert get_args(ModelShape) == tuple(SHAPES)
    with pytest.raises(ModelError, match="expected a shape of tiny"):
        initialization.write_random_checkpoint(tmp_path, "vit-g-14", TEXTS)


def test_any_text_can_be_encoded() -> None:
    tokenizer = learn_vocabulary(CAPTIONS, 1024)
    text = "naïve 日本 🛰 q"
    ids = tokenizer.encode(text).ids
    assert (ids[0], ids[-1]) == (1022, 1023)
    assert 1023 not in ids[1:-1]  # no unknown byte
    assert tokenizer.decode(ids).replace("</w>", " ").split() == text.split()
    assert len(tokenizer.encode("a desert").ids) == 4  # known words are one token each
    assert tokenizer.to_str() == learn_vocabulary(CAPTIONS, 1024).to_str()


def test_a_checkpoint_is_trained_with_its_own_loss(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    siglip = pytest.importorskip("tests.embedder.test_siglip", reason="needs transformers")
    siglip.write(tmp_path / "siglip", siglip.model(siglip.tiny()), "siglip2")
    monkeypatch.setitem(initialization.SHAPES, "vit-b-32", initialization.SHAPES["tiny"])
    initialization.write_random_checkpoint(tmp_path / "clip", "vit-b-32", TEXTS)
    for name, loss in (("siglip", "sigmoid"), ("clip", "softmax")):
        config = defaults(str(tmp_path / name))
        assert with_own_loss(config) == parse.replaced(config, {"step.loss": loss})
        config = parse.replaced(config, {"step.loss": "softmax"})
        assert with_own_loss(config) is config
