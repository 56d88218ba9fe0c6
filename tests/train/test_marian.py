"""Marian models in transformers, with tiny models trained on a few sentences."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from rsicd_embed.errors import ModelError, TrainError, WeightsError
from rsicd_embed.train.backtranslation import marian

from ..embedder.test_hub import Hub
from ..embedder.test_hub import hub as hub
from .tiny_marian import BACK, BOATS, DESERT, INTO, PLANES, TRIPS, write_untrained
from .tiny_marian import marians as marians


@pytest.fixture(scope="module")
def into(marians: Path) -> marian.Translator:
    return marian.Translator(marian.find(str(marians / "into")), "cpu")


@pytest.mark.parametrize("num_beams", [1, 4])
def test_texts_of_several_lengths_in_a_batch(into: marian.Translator, num_beams: int) -> None:
    assert into.translate(list(INTO), num_beams) == list(INTO.values())
    for text, translation in INTO.items():
        assert into.translate([text], num_beams) == [translation]
    assert into.truncated == 0


def test_spaces_are_normalised(marians: Path) -> None:
    back = marian.Translator(marian.find(str(marians / "back")), "cpu")
    assert back.translate(list(BACK), 4) == [" ".join(text.split()) for text in BACK.values()]


def test_the_target_language_is_selected_by_a_token(marians: Path, into: marian.Translator) -> None:
    model = marian.find(str(marians / "into"))
    assert model.languages == {"fr", "es"}
    for language, trips in TRIPS.items():
        text = model.target_token(language) + BOATS
        assert into.translate([text], 4) == [trips[BOATS][0]]
    with pytest.raises(ModelError, match=r"a model into 'pt', found a model into es, fr; use"):
        model.target_token("pt")
    assert model.target_token("en") == ""
    assert marian.find(str(marians / "back")).target_token("pt") == ""


def test_long_texts_are_truncated(into: marian.Translator) -> None:
    text = f">>fr<< {DESERT} " + "planes " * 100
    assert len(into.translate([text, next(iter(INTO))], 2)) == 2
    assert into.truncated == 1


def test_the_digest_covers_everything_that_translations_depend_on(
    marians: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(marians / "into", tmp_path / "copy")
    before = marian.find(str(marians / "into")).digest
    assert marian.find(str(copy)).digest == before
    (copy / "README.md").write_text("words")
    assert marian.find(str(copy)).digest == before
    seen = {before}
    for name in ("model.safetensors", "target.spm", "generation_config.json"):
        path = copy / name
        path.write_bytes(path.read_bytes() + b" ")
        seen.add(marian.find(str(copy)).digest)
    assert len(seen) == 4


@pytest.mark.slow
def test_by_id(hub: Hub, marians: Path) -> None:
    hub.repos["some/marian"] = {"main": marians / "into", "v1": marians / "back"}
    checkpoint = marian.find("some/marian")
    assert checkpoint.name == "some/marian"
    assert checkpoint.digest == marian.find(str(marians / "into")).digest
    assert marian.find("some/marian@v1").digest == marian.find(str(marians / "back")).digest
    assert marian.Translator(checkpoint, "cpu").translate([f">>es<< {PLANES}"], 1) == [
        TRIPS["es"][PLANES][0]
    ]
    hub.repos["some/clip"] = {"main": Path(__file__).parent}
    with pytest.raises(
        ModelError,
        match=r"is not a Marian checkpoint: expected config\.json, vocab\.json",
    ):
        marian.find("some/clip")
    with pytest.raises(ModelError, match="some/other is neither a directory here nor a model"):
        marian.find("some/other")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("config.json", "expected config.json in"),
        ("vocab.json", "expected vocab.json in"),
        ("source.spm", "expected source.spm in"),
        (
            "model.safetensors",
            r"expected model.safetensors \(or pytorch_model.bin\) in .*, found none",
        ),
    ],
)
def test_missing_file(marians: Path, tmp_path: Path, name: str, message: str) -> None:
    copy = shutil.copytree(marians / "back", tmp_path / "copy")
    (copy / name).unlink()
    with pytest.raises(ModelError, match=message):
        marian.find(str(copy))


def test_model_of_another_type(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    with pytest.raises(ModelError, match="expected a Marian model, found type 'clip'"):
        marian.find(str(tmp_path))
    with pytest.raises(ModelError, match=r"such as Helsinki-NLP/.*found no such directory"):
        marian.find("./absent")


@pytest.mark.parametrize("name", ["model.safetensors", "source.spm"])
def test_damaged_file(marians: Path, tmp_path: Path, name: str) -> None:
    copy = shutil.copytree(marians / "back", tmp_path / "copy")
    (copy / name).write_bytes((copy / name).read_bytes()[:100])
    with pytest.raises(ModelError, match="cannot be read as a Marian model"):
        marian.Translator(marian.find(str(copy)), "cpu")


def test_files_of_different_models(marians: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(marians / "back", tmp_path / "copy")
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"encoder_layers": 2}))
    with pytest.raises(WeightsError, match=r"missing_keys: model\.encoder\.layers\.1"):
        marian.Translator(marian.find(str(copy)), "cpu")
    (copy / "config.json").write_text(json.dumps(config))
    vocabulary = json.loads((copy / "vocab.json").read_text())
    (copy / "vocab.json").write_text(json.dumps(vocabulary | {"more": len(vocabulary)}))
    with pytest.raises(ModelError, match=r"tokens in vocab\.json, found \d+; use both files"):
        marian.Translator(marian.find(str(copy)), "cpu")


def test_pickled_weights_are_read(marians: Path, tmp_path: Path) -> None:
    """Most published models have pickled weights."""
    import torch
    from safetensors.torch import load_file

    copy = shutil.copytree(marians / "back", tmp_path / "copy")
    torch.save(load_file(copy / "model.safetensors"), copy / "pytorch_model.bin")
    (copy / "model.safetensors").unlink()
    there = next(iter(BACK))
    translations = marian.Translator(marian.find(str(copy)), "cpu").translate([there], 1)
    assert translations == [BACK[there]]


def test_an_untrained_model_terminates(tmp_path: Path) -> None:
    write_untrained(tmp_path / "m", BACK, positions=40)
    untrained = marian.Translator(marian.find(str(tmp_path / "m")), "cpu")
    assert len(untrained.translate(list(BACK), 2)) == len(BACK)


def test_devices() -> None:
    assert marian.choose_device("cpu") == "cpu"
    assert marian.choose_device(None) in ("cpu", "cuda")
    with pytest.raises(TrainError, match="such as cpu or cuda, found 'abacus'"):
        marian.choose_device("abacus")


def test_out_of_memory(into: marian.Translator, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    def full(**_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to …\nmore")

    monkeypatch.setattr(into._model, "generate", full)
    with pytest.raises(
        ModelError, match=r"too little memory for 6 captions .*lower the batch size"
    ):
        into.translate(list(INTO), 4)
