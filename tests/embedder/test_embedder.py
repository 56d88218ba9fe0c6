"""The embedder contract: float32 unit vectors in input order, for any batch size."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

from rsicd_embed import plugins
from rsicd_embed.embedder.base import Embedder
from rsicd_embed.embedder.clip.backends import on_openvino
from rsicd_embed.embedder.loading import load_embedder
from rsicd_embed.errors import ModelError
from rsicd_embed.testing.embedders import EmbedderContract
from tests.conftest import picture, write_model


@pytest.fixture(scope="module")
def embedder(tiny_model: Path) -> Embedder:
    return load_embedder(tiny_model, batch_size=4)


class TestClip(EmbedderContract):
    @pytest.fixture(scope="class")
    @classmethod
    def embedder(cls, tiny_model: Path) -> Any:
        return load_embedder(tiny_model, batch_size=4)


class TestClipOnOpenvino(EmbedderContract):
    @pytest.fixture(scope="class")
    @classmethod
    def embedder(cls, tiny_model: Path) -> Any:
        return load_embedder(tiny_model, batch_size=4, backend="openvino")


class TestClipOnOpenvinoInBfloat16(EmbedderContract):
    @pytest.fixture(scope="class")
    @classmethod
    def embedder(cls, tiny_model: Path) -> Any:
        return load_embedder(tiny_model, batch_size=4, backend="openvino", precision="bfloat16")


class TestClipOnNumpy(EmbedderContract):
    @pytest.fixture(scope="class")
    @classmethod
    def embedder(cls, tiny_model: Path) -> Any:
        return load_embedder(tiny_model, batch_size=4, backend="numpy")


class TestExamplePlugin(EmbedderContract):
    """The plug-in in examples/, as if installed."""

    @pytest.fixture
    def embedder(self, monkeypatch: pytest.MonkeyPatch) -> Any:
        point = metadata.EntryPoint("colour", "examples.embedder_plugin:load", plugins.EMBEDDERS)
        monkeypatch.setattr(metadata, "entry_points", lambda **_: [point])
        return load_embedder("colour:", batch_size=4)

    def test_the_bundled_model_recognises_colours(self, embedder: Any) -> None:
        images = [Image.new("RGB", (9, 9), colour) for colour in ("red", "green", "blue")]
        texts = ["a blue sea", "green fields", "red roofs"]
        scores = embedder.embed_texts(texts) @ embedder.embed_images(images).T
        assert scores.argmax(axis=1).tolist() == [2, 1, 0]


def test_the_built_in_embedder_has_an_entry_point(tiny_model: Path) -> None:
    named = load_embedder(f"clip:{tiny_model}")
    assert named.fingerprint == load_embedder(tiny_model).fingerprint


def test_different_inputs_give_different_vectors(embedder: Embedder) -> None:
    images = embedder.embed_images([picture(0), picture(1)])
    texts = embedder.embed_texts(["a desert", "boats in a port"])
    assert np.abs(images[0] - images[1]).max() > 1e-3
    assert np.abs(texts[0] - texts[1]).max() > 1e-3


def test_all_local_devices_share_the_work(tiny_model: Path) -> None:
    code = (
        "import jax, numpy as np, sys, rsicd_embed as r\n"
        "from tests.conftest import picture\n"
        f"e = r.load_embedder({str(tiny_model)!r}, batch_size=20, backend='jax')\n"
        "v = e.embed_images([picture(i) for i in range(27)])\n"
        "t = e.embed_texts(['boats', 'a desert', 'a port'])\n"
        "print(jax.device_count(), e._towers.devices)\n"
        "np.save(sys.argv[1], np.concatenate([v, t]))\n"
    )
    path = tiny_model.parent / "vectors.npy"
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "8"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        env=environment,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == ["8", "8"], done.stderr
    first = load_embedder(tiny_model)
    images = first.embed_images([picture(i) for i in range(27)])
    texts = first.embed_texts(["boats", "a desert", "a port"])
    np.testing.assert_allclose(np.load(path), np.concatenate([images, texts]), atol=1e-5)


@pytest.mark.parametrize(
    ("backend", "precision", "least"),
    [
        ("jax", "bfloat16", 0.999),
        ("openvino", "float32", 0.999999),
        ("openvino", "bfloat16", 0.999),
        ("numpy", "float32", 0.999999),
    ],
)
def test_engines_and_precisions_agree(
    tiny_model: Path, backend: Any, precision: Any, least: float
) -> None:
    images, texts = [picture(i) for i in range(4)], ["boats", "a desert"]
    ours = load_embedder(tiny_model, backend="jax")
    other = load_embedder(tiny_model, backend=backend, precision=precision)
    assert ours.fingerprint == other.fingerprint
    for first, two in (
        (ours.embed_images(images), other.embed_images(images)),
        (ours.embed_texts(texts), other.embed_texts(texts)),
    ):
        assert (first != two).any()  # the engines do differ
        assert (first * two).sum(axis=1).min() > least
        np.testing.assert_allclose(np.linalg.norm(two, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "float8"}, "expected precision float32 or bfloat16, found 'float8'"),
        ({"backend": "torch"}, "expected backend auto, jax, openvino or numpy, found 'torch'"),
        ({"backend": "numpy", "precision": "bfloat16"}, "numpy computes in float32"),
    ],
)
def test_unknown_engines_are_refused(
    tiny_model: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        load_embedder(tiny_model, **options)


def test_openvino_is_an_extra(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"pip install 'rsicd-embed\[openvino\]'"):
        load_embedder(tiny_model, backend="openvino")


def test_an_engine_with_wrong_vectors_is_refused(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One wrong layer norm, as from a faulty fusion in an engine."""

    def wrong(self: Any, x: Any, weight: Any, bias: Any, eps: float) -> Any:
        return self.add(x, self.constant(bias))

    monkeypatch.setattr(on_openvino._OpenvinoOps, "layer_norm", wrong)
    with pytest.raises(ModelError, match=r"expected a cosine of at least 0\.999 to float32, found"):
        load_embedder(tiny_model, backend="openvino")


def test_a_query_needs_no_jax(tiny_model: Path) -> None:
    code = (
        "import sys; from rsicd_embed.embedder.loading import load_for_a_query as load\n"
        f"e = load({str(tiny_model)!r}); print(e.embed_texts(['boats']).shape)\n"
        "assert not {'jax', 'flax', 'openvino', 'torch'} & set(sys.modules), sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_batch_too_large_for_the_device(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 byte")

    monkeypatch.setattr("rsicd_embed.embedder.clip.backends.on_jax._encode_image", full)
    with pytest.raises(ModelError, match=r"a batch of 64 does not fit .* try a batch size of 32"):
        load_embedder(tiny_model, batch_size=64, backend="jax").embed_images([picture(0)] * 64)


def test_long_texts_are_cut_to_the_context(embedder: Embedder) -> None:
    long, longer = "boats " * 60, "boats " * 90
    with pytest.warns(UserWarning, match="2 of 3 texts are longer than the model's context of 32"):
        first, second, _ = embedder.embed_texts([long, longer, "boats"])
    np.testing.assert_array_equal(first, second)


def test_fingerprint_depends_on_the_model_but_not_the_format(
    tiny_model: Path, tmp_path: Path
) -> None:
    same = shutil.copytree(tiny_model, tmp_path / "same")
    half = load_file(tiny_model / "model.safetensors")
    save_file({k: v.astype(np.float32) for k, v in half.items()}, same / "model.safetensors")
    assert load_embedder(same).fingerprint == load_embedder(tiny_model).fingerprint
    other = write_model(tmp_path / "other", seed=5)
    assert load_embedder(other).fingerprint != load_embedder(tiny_model).fingerprint


def test_fingerprint_covers_preprocessing_and_tokenizer(tiny_model: Path, tmp_path: Path) -> None:
    parts = dict(p.split(":") for p in load_embedder(tiny_model).fingerprint.split("/"))
    changed = shutil.copytree(tiny_model, tmp_path / "changed")
    pixels = json.loads((changed / "preprocessor_config.json").read_text())
    (changed / "preprocessor_config.json").write_text(json.dumps(pixels | {"resample": 2}))
    tokens = json.loads((changed / "tokenizer.json").read_text())
    tokens["normalizer"] = {"type": "Lowercase"}
    (changed / "tokenizer.json").write_text(json.dumps(tokens))
    now = dict(p.split(":") for p in load_embedder(changed).fingerprint.split("/"))
    assert {name for name in parts if parts[name] != now[name]} == {"preprocessing", "tokenizer"}
