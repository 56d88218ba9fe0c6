"""ONNX files of towers: the vectors of every architecture, in OpenVINO and ONNX Runtime."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from rsicd_embed.cli import main
from rsicd_embed.embedder.clip.embedder import ClipEmbedder
from rsicd_embed.embedder.export_onnx import IMAGE, TEXT, export_onnx
from rsicd_embed.embedder.loading import load_clip, load_embedder
from tests.conftest import picture

pytest.importorskip("onnx", reason="needs onnx")
WORDS = ["a harbour full of boats", "bare land", "two long bridges across a river and a port"]


def run(*words: object) -> Result:
    return CliRunner().invoke(main, ["export", *map(str, words)])


def in_openvino(path: Path, array: np.ndarray) -> np.ndarray:
    pytest.importorskip("openvino")
    from rsicd_embed.embedder.clip.backends._lazy_openvino import core

    model = core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return np.asarray(model([array])[0])


def in_onnx_runtime(path: Path, array: np.ndarray) -> np.ndarray:
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    vectors: np.ndarray = session.run(None, {session.get_inputs()[0].name: array})[0]
    return vectors


def require_same(directory: Path, embedder: ClipEmbedder, program: Any) -> None:
    """Compares a program's vectors with the embedder's, in batches of one and of three."""
    pixels = np.stack([embedder.preprocess(picture(i)) for i in range(3)])
    expected = embedder.embed_pixels(pixels)
    tokens = embedder.tokenizer(WORDS).astype(np.int64)
    for batch in (slice(0, 1), slice(0, 3)):
        vectors = program(directory / IMAGE, pixels[batch])
        np.testing.assert_allclose(vectors, expected[batch], atol=2e-5)
        vectors = program(directory / TEXT, tokens[batch])
        np.testing.assert_allclose(vectors, embedder.embed_texts(WORDS)[batch], atol=2e-5)


@pytest.mark.parametrize("program", [in_openvino, in_onnx_runtime])
def test_vectors_are_the_models(tiny_model: Path, tmp_path: Path, program: Any) -> None:
    result = run("--model", tiny_model, "-o", tmp_path / "graphs", "--onnx", "--json")
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    embedder = load_clip(tiny_model, backend="numpy")
    assert document["fingerprint"] == embedder.fingerprint
    assert document["dtype"] == "onnx"
    sizes = [path.stat().st_size for path in (tmp_path / "graphs").glob("*.onnx")]
    assert document["bytes"] == sum(sizes)
    require_same(tmp_path / "graphs", embedder, program)


@pytest.mark.slow
@pytest.mark.parametrize("program", [in_openvino, in_onnx_runtime])
def test_the_bundled_model(tmp_path: Path, program: Any) -> None:
    export_onnx(None, tmp_path / "graphs")
    require_same(tmp_path / "graphs", load_clip(backend="numpy"), program)


def test_errors(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    for options, message in (
        (["--model", tiny_model, "-o", tmp_path / "there"], "expected a new folder"),
        (["--model", tiny_model, "-o", tmp_path / "x", "--quantize", "int8"], "--onnx alone"),
        (["--store", "exact:x", "-o", tmp_path / "x.csv"], "expected --model with --onnx"),
        (["--model", tmp_path / "none", "-o", tmp_path / "x"], "none"),
    ):
        result = run(*options, "--onnx")
        assert result.exit_code
        assert message in result.stderr
        assert "\n" not in result.stderr.strip().partition("Error: ")[2]
    assert not (tmp_path / "x").exists()


def test_it_loads_as_no_model(tiny_model: Path, tmp_path: Path) -> None:
    export_onnx(tiny_model, tmp_path / "graphs")
    with pytest.raises(Exception, match=r"config\.json"):
        load_embedder(tmp_path / "graphs")
