"""Weights stored with eight bits per value."""

from __future__ import annotations

from pathlib import Path

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from rsicd_embed.embedder import export_model
from rsicd_embed.embedder.clip import int8_weights, weight_files
from rsicd_embed.embedder.clip.int8_weights import dequantize, quantize
from rsicd_embed.embedder.loading import load_clip
from rsicd_embed.errors import WeightsError

WEIGHTS = arrays.arrays(
    np.float32,
    arrays.array_shapes(min_dims=2, max_dims=4, max_side=6),
    elements=st.floats(-1e6, 1e6, width=32, allow_subnormal=False),
)


@settings(max_examples=50, derandomize=True)
@given(WEIGHTS)
def test_values_are_within_half_a_step_and_survive_a_second_time(weight: np.ndarray) -> None:
    values, scale = quantize(weight)
    restored = dequantize(values, scale)
    assert (values.dtype, scale.dtype, restored.dtype) == (np.int8, np.float32, np.float32)
    step = scale.reshape(-1, *[1] * (weight.ndim - 1))
    assert np.all(np.abs(restored - weight) <= 0.5001 * step)
    largest = np.abs(weight).reshape(len(weight), -1).max(axis=1)
    assert np.all(scale[largest > 0] <= largest[largest > 0] / 127 * 1.001)
    again = dequantize(*quantize(restored))
    np.testing.assert_array_equal(again, restored)


@pytest.fixture(scope="module")
def quantized(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("int8") / "model"
    export_model.export_model(tiny_model, out, dtype="int8")
    return out


def test_copies_keep_the_fingerprint(quantized: Path, tmp_path: Path) -> None:
    fingerprint = load_clip(quantized, backend="numpy").fingerprint
    for dtype in ("float32", "int8"):
        copy = export_model.export_model(quantized, tmp_path / dtype, dtype=dtype)
        assert copy.fingerprint == fingerprint


def test_only_matrices_are_quantized(quantized: Path) -> None:
    stored = load_file(quantized / int8_weights.FILE)
    read = weight_files.load(quantized)
    assert {n for n, t in stored.items() if t.dtype == np.int8} == {
        n for n, t in read.items() if t.ndim > 1
    }
    assert all(tensor.dtype == np.float32 for tensor in read.values())
    assert not any(name.endswith(".scale") for name in read)


def test_damaged_files_are_refused(quantized: Path, tmp_path: Path) -> None:
    path = tmp_path / int8_weights.FILE
    whole = (quantized / int8_weights.FILE).read_bytes()
    stored = load_file(quantized / int8_weights.FILE)
    name = next(name for name, tensor in stored.items() if tensor.dtype == np.int8)
    metadata = {"format": "rsicd-embed-int8", "version": "1"}

    def refusal() -> str:
        with pytest.raises(WeightsError) as error:
            weight_files.load(tmp_path)
        assert str(path) in str(error.value)
        return str(error.value)

    for size in (0, 4, 100, len(whole) - 1):
        path.write_bytes(whole[:size])
        assert "cannot be read" in refusal()
    save_file(stored, path, metadata=metadata | {"version": "2"})
    assert (
        "expected weights in the format rsicd-embed-int8 1, found rsicd-embed-int8 2" in refusal()
    )
    save_file(stored, path)
    assert "found no format" in refusal()
    save_file({n: t for n, t in stored.items() if n != f"{name}.scale"}, path, metadata=metadata)
    assert f"{name}: expected a scale for each of its" in refusal()
    save_file(stored | {f"{name}.scale": stored[f"{name}.scale"][:-1]}, path, metadata=metadata)
    assert "found shape" in refusal()
    save_file(stored | {"other.scale": np.ones(3, np.float32)}, path, metadata=metadata)
    assert "expected other.scale to belong to an int8 tensor" in refusal()
