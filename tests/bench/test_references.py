"""The references produce the same vectors as our embedder."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

import rsicd_embed
from rsicd_embed.bench import synthetic_inputs
from rsicd_embed.bench.embed_rates import agreement
from rsicd_embed.bench.reference_models import (
    CLIP_NEEDS,
    ClipDirectory,
    OnnxRuntime,
    OpenVino,
    ReferenceChoice,
    TorchClip,
    choose,
    export,
)
from rsicd_embed.cli.bench.bench_embed import describe_clip
from rsicd_embed.embedder.base import Embedder
from rsicd_embed.errors import BenchError
from tests.conftest import picture

TEXTS = ["boats in a port", "a desert", "farmland", "a building", "planes"]


@pytest.fixture(scope="module")
def directory(tiny_model: Path) -> ClipDirectory:
    described = describe_clip(str(tiny_model))
    assert described is not None
    return described[1]


@pytest.fixture(scope="module")
def embedder(tiny_model: Path) -> Embedder:
    return rsicd_embed.load_embedder(tiny_model, batch_size=5)


@pytest.fixture(scope="module")
def graphs(directory: ClipDirectory, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    folder = tmp_path_factory.mktemp("graphs")
    export(directory, folder, 5, TEXTS)
    return folder


def check(embedder: Embedder, reference: TorchClip | OnnxRuntime | OpenVino, least: float) -> None:
    pixels = synthetic_inputs.pixels(5, embedder.preprocess(picture(0)).shape)
    for ours, theirs in (
        (embedder.embed_pixels(pixels), reference.embed_pixels(pixels)),
        (embedder.embed_texts(TEXTS), reference.embed_texts(TEXTS)),
    ):
        assert theirs.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(theirs, axis=1), 1, atol=1e-5)
        agreed = agreement(ours, theirs)
        assert agreed["least_cosine"] > least > agreed["between_inputs"]


def test_torch(embedder: Embedder, directory: ClipDirectory) -> None:
    check(embedder, TorchClip(directory), 0.999999)


def test_onnxruntime(embedder: Embedder, directory: ClipDirectory, graphs: Path) -> None:
    pytest.importorskip("onnxruntime")
    check(embedder, OnnxRuntime(directory, graphs), 0.999999)


@pytest.mark.parametrize(("precision", "least"), [("f32", 0.99999), ("bf16", 0.999)])
def test_openvino(
    embedder: Embedder, directory: ClipDirectory, graphs: Path, precision: str, least: float
) -> None:
    pytest.importorskip("openvino")
    check(embedder, OpenVino(directory, graphs, precision), least)


def test_which_references_are_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CLIP_NEEDS, "torch", ("numpy",))
    monkeypatch.setitem(CLIP_NEEDS, "onnxruntime", ("numpy", "no_such_module"))
    monkeypatch.setitem(CLIP_NEEDS, "openvino", ("numpy",))
    every = choose(None, CLIP_NEEDS)
    assert every.chosen == ("torch", "openvino")
    assert "no_such_module" in every.left_out["onnxruntime"]
    assert choose("torch, torch", CLIP_NEEDS).chosen == ("torch",)
    assert choose("none", CLIP_NEEDS) == ReferenceChoice((), {})
    with pytest.raises(BenchError, match="reference onnxruntime needs no_such_module: pip"):
        choose("torch,onnxruntime", CLIP_NEEDS)
    with pytest.raises(BenchError, match="found 'tensorrt'"):
        choose("torch,tensorrt", CLIP_NEEDS)
    with pytest.raises(BenchError, match="expected references of torch"):
        choose(",", CLIP_NEEDS)


def test_a_directory_that_transformers_cannot_read(
    directory: ClipDirectory, tmp_path: Path
) -> None:
    with pytest.raises(BenchError, match="transformers cannot read"):
        TorchClip(dataclasses.replace(directory, path=tmp_path))
