"""Broken, missing and unreachable models are refused with the reason."""

from __future__ import annotations

import json
import re
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from huggingface_hub import constants
from safetensors.numpy import load_file, save_file

import rsicd_embed
from rsicd_embed.embedder import locate as locate_module
from rsicd_embed.errors import ModelError, WeightsError

from .helpers import SCHEMES, run

pytestmark = pytest.mark.usefixtures("load_each_model_once")

load_embedder = rsicd_embed.load_embedder


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model, to be broken."""
    return shutil.copytree(tiny_model, tmp_path / "model")


def weights(change: Callable[[dict[str, np.ndarray]], object]) -> Callable[[Path], object]:
    def breaking(model: Path) -> None:
        tensors = load_file(model / "model.safetensors")
        change(tensors)
        save_file(tensors, model / "model.safetensors")

    return breaking


def content(name: str, text: str | bytes) -> Callable[[Path], object]:
    data = text.encode() if isinstance(text, str) else text
    return lambda model: (model / name).write_bytes(data)


def setting(name: str, **values: Any) -> Callable[[Path], object]:
    def breaking(model: Path) -> None:
        config = json.loads((model / name).read_text())
        (model / name).write_text(json.dumps(config | values))

    return breaking


def without(*names: str) -> Callable[[Path], object]:
    return lambda model: [(model / name).unlink() for name in names]


NAME = "text_model.final_layer_norm.bias"
BREAKS: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing weight": (weights(lambda t: t.pop(NAME)), f"missing {NAME}"),
    "extra weight": (weights(lambda t: t.update(more=np.zeros(2, np.float32))), "unused more"),
    "misshapen weight": (
        weights(lambda t: t.update({NAME: np.zeros(3, np.float32)})), f"{NAME}: expected shape",
    ),
    "NaN weight": (weights(lambda t: t[NAME].__setitem__(0, np.nan)), f"{NAME}: NaN"),
    "no config": (without("config.json"), "expected config.json in"),
    "no weights": (without("model.safetensors"), "model.safetensors"),
    "no tokenizer": (
        without("tokenizer.json"), "expected tokenizer.json (or vocab.json and merges.txt) in",
    ),
    "no preprocessor": (without("preprocessor_config.json"), "expected preprocessor_config.json"),
    "only a tokenizer": (
        without("config.json", "preprocessor_config.json", "model.safetensors"),
        "expected config.json, preprocessor_config.json, model.safetensors (or model.safetensors"
        ".index.json, model.int8.safetensors, flax_model.msgpack, pytorch_model.bin) in",
    ),
    "two broken files": (
        lambda model: [(model / name).write_text("{") for name in (
            "preprocessor_config.json", "tokenizer.json",
        )],
        "; and ",
    ),
    "two of three shards": (
        lambda model: (
            (model / "model.safetensors").rename(model / "b.safetensors"),
            (model / "model.safetensors.index.json").write_text(json.dumps(
                {"weight_map": {name: f"{name}.safetensors" for name in "abc"}}
            )),
        ),
        "expected a.safetensors, c.safetensors beside it, found none",
    ),
    "config of another model": (content("config.json", '{"model_type": "bert"}'), "found 'bert'"),
    "broken config": (content("config.json", "{"), "config.json is not JSON"),
    "config that is a list": (content("config.json", "[]"), "expected a JSON object, found list"),
    "config that is not text": (content("config.json", b"\xff\xfe"), "config.json is not JSON"),
    "broken preprocessor": (content("preprocessor_config.json", "{"), "is not JSON"),
    "crop of another size": (
        setting("preprocessor_config.json", crop_size=99), "expected pixels of 32×32",
    ),
    "config with words for numbers": (
        setting("config.json", projection_dim="wide", vision_config={"patch_size": 1.5}),
        "expected whole numbers above 0, found projection_dim 'wide', vision_config.patch_size 1.5",
    ),
    "config with a number for a tower": (
        setting("config.json", vision_config=5), "expected vision_config to be an object, found 5",
    ),
    "two files with wrong values": (
        lambda model: (
            setting("config.json", text_config={"layer_norm_eps": None})(model),
            setting("preprocessor_config.json", image_std=[1, 0, 1])(model),
        ),
        "found None; and preprocessor_config.json: expected image_std above 0, found",
    ),
    **{
        f"preprocessor with {name} {value!r}": (
            setting("preprocessor_config.json", **{name: value}), f"found {value!r}",
        )
        for name, value in {
            "image_mean": None, "rescale_factor": "x", "resample": 99, "size": -1,
        }.items()
    },
    "preprocessor with a crop in words": (
        setting("preprocessor_config.json", crop_size={"height": "x", "width": 32}), "found 'x'",
    ),
    "broken weights": (content("model.safetensors", b"garbage"), "safetensors cannot be read"),
    "empty weights": (content("model.safetensors", b""), "safetensors cannot be read"),
    "broken tokenizer": (content("tokenizer.json", "{}"), "tokenizer.json is not a tokenizer"),
    "tokenizer of another model": (setting("config.json", text_config={}), ""),
}  # fmt: skip


@pytest.mark.parametrize("name", BREAKS)
def test_broken_models_are_refused(name: str, model: Path) -> None:
    breaking, message = BREAKS[name]
    breaking(model)
    with pytest.raises(ModelError) as caught:
        load_embedder(model)
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    if "weight" in name:
        assert isinstance(caught.value, WeightsError)


def test_a_tokenizer_with_more_words_than_the_model(model: Path) -> None:
    path = model / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    tokenizer["added_tokens"].append(
        tokenizer["added_tokens"][0] | {"id": 4096, "content": "<more>"}
    )
    path.write_text(json.dumps(tokenizer))
    with pytest.raises(ModelError, match="vocabulary of 4096, found 4096; the tokenizer belongs"):
        load_embedder(model)


def test_a_broken_model_is_reported_in_one_line_and_creates_no_store(
    model: Path, pictures: Path, tmp_path: Path
) -> None:
    without("config.json")(model)
    store = tmp_path / "store"
    error = run("ingest", pictures, "--store", f"exact:{store}", "--model", model).error
    assert error.startswith(f"error: expected config.json in {model}, found none; pass ")
    assert not store.exists()


def test_a_file_or_missing_path_is_not_a_model(tmp_path: Path) -> None:
    file = tmp_path / "model.bin"
    file.write_text("x")
    with pytest.raises(ModelError, match=r"model\.bin: expected a zip file written by torch"):
        load_embedder(file)
    with pytest.raises(ModelError, match=r"found a file: .*model\.onnx"):
        load_embedder(file.rename(tmp_path / "model.onnx"))
    for name in ("a b", "no-slash", "/nowhere/at/all", "a/b/c", "../a"):
        with pytest.raises(ModelError, match="found no such directory"):
            load_embedder(name)
    with pytest.raises(ModelError, match="batch size ≥ 1, found 0"):
        load_embedder(file, batch_size=0)


def test_folders_mistaken_for_models(
    model: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is refused at once with advice, without querying the Hub."""
    monkeypatch.setattr(locate_module, "download", None)
    monkeypatch.chdir(tmp_path)
    for scheme in SCHEMES:
        run("ingest", pictures, "--store", f"{scheme}:{scheme}", "--model", model)
        for name in (f"{scheme}:{scheme}", scheme):
            with pytest.raises(ModelError, match=r"of a store: .* pass it to --store"):
                load_embedder(name)
    best = Path(shutil.copytree(model, "run/best"))
    Path("run/run.json").write_text("{}")
    with pytest.raises(ModelError, match=r"the folder of a training run: run; pass run/best$"):
        load_embedder("run")
    shutil.rmtree(best)
    with pytest.raises(ModelError, match=r"a training run: run; it has no best model yet"):
        load_embedder("run")
    with pytest.raises(ModelError, match=r"found a file: model/config\.json; pass its folder, mod"):
        load_embedder("model/config.json")
    for name, near in {
        "modle": "model",
        "./modl": "model",
        "./modell/x/y": "",
        "models/clip.pt": "",
        "bundeld": "bundled",
    }.items():
        advice = f"; did you mean {near}?" if near else ""
        with pytest.raises(ModelError, match=re.escape(f"no such directory: {name}{advice}") + "$"):
            load_embedder(name)


def test_a_path_in_the_form_of_an_id(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    shutil.copytree(model, "models/clip")
    for name in ("models/clop", "modesl/clip"):
        with pytest.raises(ModelError, match=r"reached .*; did you mean models/clip\?$"):
            load_embedder(name)
    assert load_embedder("models/clip").name == str(tmp_path / "models" / "clip")


def test_a_hub_id_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{closed.getsockname()[1]}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match="not a Hugging Face id"):
        load_embedder("some/bad--name")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for name in ("openai/clip-vit-base-patch32", "openai/clip-vit-base-patch32@v1"):
        with pytest.raises(ModelError, match=f"^{name} is not a directory here, and") as caught:
            load_embedder(name)
        assert "cannot be reached" in str(caught.value)
