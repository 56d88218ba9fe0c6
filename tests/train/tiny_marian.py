"""Tiny Marian models trained on a few sentences."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import sentencepiece

from rsicd_embed._lazy_torchvision import mend_torchvision
from tests.helpers import built_once

PLANES = "many planes are parked in an airport ."
DESERT = "a desert with yellow dunes ."
BOATS = "several boats are in a port near green water ."

# Translations into a language and back.
TRIPS = {
    "fr": {
        PLANES: ("De nombreux avions sont garés.", "Many aircraft are parked."),
        DESERT: ("Un désert aux dunes jaunes.", "A  desert with yellow dunes."),
        BOATS: ("Des bateaux près de l'eau verte.", "Boats by the green water."),
    },
    "es": {
        PLANES: ("Muchos aviones están aparcados.", "Lots of planes stand here."),
        DESERT: ("Un desierto de dunas amarillas.", "A desert of yellow dunes."),
        BOATS: ("Varios barcos en un puerto.", "Boats by the green water."),
    },
}
INTO = {
    f">>{language}<< {english}": there
    for language, trips in TRIPS.items()
    for english, (there, _) in trips.items()
}
BACK = {there: back for trips in TRIPS.values() for there, back in trips.values()}

_END, _UNKNOWN, _PAD = "</s>", "<unk>", "<pad>"


def write_untrained(folder: Path, pairs: Mapping[str, str], positions: int = 64) -> Any:
    """Writes a Marian directory with random weights and returns the model."""
    import torch

    mend_torchvision()
    from transformers import MarianConfig, MarianMTModel, MarianTokenizer

    folder.mkdir(parents=True)
    texts = {"source.spm": [text.split("<< ")[-1] for text in pairs], "target.spm": pairs.values()}
    pieces: dict[str, None] = {}
    for name, sentences in texts.items():
        model = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(sentences),
            model_writer=model,
            vocab_size=90,
            hard_vocab_limit=False,
            minloglevel=2,
        )
        (folder / name).write_bytes(model.getvalue())
        learnt = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
        learnt_pieces = [learnt.id_to_piece(i) for i in range(learnt.get_piece_size())]
        pieces |= dict.fromkeys(learnt_pieces)
    pieces = {piece: None for piece in pieces if piece not in ("<s>", _END, _UNKNOWN)}
    tokens = dict.fromkeys(text.split(" ")[0] for text in pairs if text.startswith(">>"))
    names = [_END, _UNKNOWN, *pieces, *tokens, _PAD]  # in the order of published models
    vocabulary = folder / "vocab.json"
    vocabulary.write_text(json.dumps({name: i for i, name in enumerate(names)}))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*sacremoses")
        tokenizer = MarianTokenizer(
            str(folder / "source.spm"), str(folder / "target.spm"), str(vocabulary)
        )
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    marian = MarianMTModel(
        MarianConfig(
            vocab_size=len(names),
            d_model=64,
            encoder_layers=1,
            decoder_layers=1,
            encoder_attention_heads=4,
            decoder_attention_heads=4,
            encoder_ffn_dim=128,
            decoder_ffn_dim=128,
            dropout=0.0,
            max_position_embeddings=positions,
            scale_embedding=True,
            pad_token_id=len(names) - 1,
            decoder_start_token_id=len(names) - 1,
            eos_token_id=0,
            forced_eos_token_id=0,
        )
    )
    marian.save_pretrained(folder)
    return marian


def write(folder: Path, pairs: Mapping[str, str], steps: int = 80) -> Path:
    """Writes a Marian directory that translates the texts of `pairs`."""
    import torch
    from transformers import MarianTokenizer

    model = write_untrained(folder, pairs)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*sacremoses")
        tokenizer = MarianTokenizer.from_pretrained(str(folder))
    batch = tokenizer(
        list(pairs), text_target=list(pairs.values()), padding=True, return_tensors="pt"
    )
    batch["labels"][batch["labels"] == tokenizer.pad_token_id] = -100
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(steps):
        loss = model(**batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def marians(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two models: `into`, from English into two languages, and `back`."""

    def build(folder: Path) -> None:
        write(folder / "into", INTO)
        write(folder / "back", BACK)

    return built_once(tmp_path_factory, "marians", build)
