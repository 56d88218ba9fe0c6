"""CLIP with a ResNet: parity with torchvision on every engine, and on disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from safetensors.numpy import load_file

from rsicd_embed.bench import reference_models
from rsicd_embed.embedder import export_model
from rsicd_embed.embedder.clip import config as clip_config
from rsicd_embed.embedder.clip import tensors as clip_tensors
from rsicd_embed.embedder.clip import weights
from rsicd_embed.embedder.clip.backends.on_jax import JaxTowers
from rsicd_embed.embedder.clip.backends.on_numpy import NumpyTowers
from rsicd_embed.embedder.clip.backends.on_openvino import OpenvinoTowers
from rsicd_embed.embedder.clip.backends.towers import Towers
from rsicd_embed.embedder.clip.config import ClipConfig, TowerConfig
from rsicd_embed.embedder.clip.model import Clip
from rsicd_embed.embedder.clip.resnet_config import ResNetConfig
from rsicd_embed.embedder.loading import load_embedder
from rsicd_embed.embedder.preprocess import Preprocessor
from rsicd_embed.errors import ModelError, WeightsError
from rsicd_embed.testing.embedders import EmbedderContract, picture
from rsicd_embed.train.initialization import learn_vocabulary
from scripts import imagenet_weights as imagenet
from tests.conftest import CAPTIONS
from tests.embedder.onnx_towers import OnnxTowers
from tests.helpers import run
from tests.reference import resnet18, resnet50

HOW = Preprocessor(resize=None, crop=None, mean=imagenet.MEAN, std=imagenet.STD)
TEXT = TowerConfig(32, 2, 2, 64)
TINY = ResNetConfig((8, 8, 16, 24), (1, 2, 1, 1), stem_width=8)


def clip(vision: ResNetConfig, image_size: int) -> ClipConfig:
    return ClipConfig(vision, TEXT, 24, image_size, 0, 600, 32, 599)


def random_tensors(config: ClipConfig, seed: int) -> dict[str, np.ndarray]:
    """Larger than initial parameters, whose blocks and biases are zero."""
    draw = np.random.default_rng(seed)
    return {
        name: draw.normal(0, max(1, np.prod(shape[1:])) ** -0.5, shape).astype(np.float32)
        for name, shape in clip_tensors.shapes(config).items()
    }


def engines(config: ClipConfig, tensors: dict[str, np.ndarray]) -> dict[str, Towers]:
    return {
        "jax": JaxTowers(config, weights.params_from_hf(config, tensors), HOW),
        "numpy": NumpyTowers(config, tensors, HOW),
        "openvino": OpenvinoTowers(config, tensors, HOW),
        "onnx": OnnxTowers(config, tensors, HOW),
    }


@pytest.mark.parametrize(
    ("build", "side"),
    [
        (resnet18, 96),
        pytest.param(resnet18, 64, marks=pytest.mark.slow),
        # The conversion from Keras compares one of this size as well.
        pytest.param(resnet50, 64, marks=pytest.mark.slow),
    ],
)
def test_features_match_torchvision(build: Any, side: int) -> None:
    """At full size, with random weights and batch norm statistics."""
    torch.manual_seed(0)
    reference = build().eval()
    with torch.no_grad():
        for name, tensor in reference.state_dict().items():
            if "bn" in name or "downsample.1" in name:
                if name.endswith(("running_var", "weight")):
                    tensor.uniform_(0.5, 1.5)
                elif tensor.is_floating_point():
                    tensor.normal_(0, 0.1)
    state = {name: value.numpy() for name, value in reference.state_dict().items()}
    vision, image = imagenet.resnet(state)
    config = clip(vision, side)
    tensors = clip_tensors.checked(config, random_tensors(config, 0) | image)
    pixels = np.random.default_rng(1).integers(0, 256, (3, side, side, 3), np.uint8)
    reference.fc = torch.nn.Identity()
    with torch.no_grad():
        theirs = reference(torch.tensor(HOW.normalise(pixels).transpose(0, 3, 1, 2))).numpy()

    model = weights.build(config, weights.params_from_hf(config, tensors))
    ours = np.asarray(model.image(jnp.asarray(HOW.normalise(pixels))))
    np.testing.assert_allclose(ours, theirs, atol=2e-5 * np.abs(theirs).max())

    projected = theirs @ tensors["visual_projection.weight"].T
    expected = projected / np.linalg.norm(projected, axis=1, keepdims=True)
    for name, towers in engines(config, tensors).items():
        vectors = towers.encode_images(pixels)
        assert vectors.dtype == np.float32, name
        assert (vectors * expected).sum(axis=1).min() >= 0.99999, name
        np.testing.assert_allclose(vectors, expected, atol=2e-5, err_msg=name)


@pytest.mark.slow
def test_keras_resnet_50_is_converted_completely() -> None:
    """Including strides, convolution biases, eps, channel order and scale."""
    torch.manual_seed(0)
    reference = resnet50().eval()
    state: dict[str, np.ndarray] = {}
    names = {"conv1": ("conv1", "bn_conv1")}
    for stage in range(1, 5):
        blocks = getattr(reference, f"layer{stage}")
        if stage > 1:
            blocks[0].conv1.stride, blocks[0].conv2.stride = (2, 2), (1, 1)
        for place in range(len(blocks)):
            torch_id, keras = f"layer{stage}.{place}", f"{stage + 1}{'abcdef'[place]}_branch"
            for layer, letter in enumerate("abc", start=1):
                names[f"{torch_id}.conv{layer}"] = (
                    f"res{keras}2{letter}",
                    f"bn{keras}2{letter}",
                )
            if place == 0:
                names[f"{torch_id}.downsample.0"] = (f"res{keras}1", f"bn{keras}1")
    modules = dict(reference.named_modules())
    with torch.no_grad():
        for name, (conv, norm) in names.items():
            ours = modules[name]
            ours.bias = torch.nn.Parameter(torch.randn(ours.out_channels) * 0.1)
            batch_norm = modules[name.replace("downsample.0", "downsample.1").replace("conv", "bn")]
            batch_norm.eps = 1e-3
            batch_norm.weight.uniform_(0.5, 1.5)
            batch_norm.running_var.uniform_(0.5, 1.5)
            batch_norm.bias.normal_(0, 0.1)
            batch_norm.running_mean.normal_(0, 0.1)
            state[f"{conv}/kernel"] = ours.weight.numpy().transpose(2, 3, 1, 0)
            state[f"{conv}/bias"] = ours.bias.numpy()
            state[f"{norm}/gamma"], state[f"{norm}/beta"] = (
                batch_norm.weight.numpy(), batch_norm.bias.numpy(),
            )  # fmt: skip
            state[f"{norm}/moving_mean"] = batch_norm.running_mean.numpy()
            state[f"{norm}/moving_variance"] = batch_norm.running_var.numpy()
        reference.fc = torch.nn.Identity()
        pixels = np.random.default_rng(1).integers(0, 256, (2, 64, 64, 3), np.uint8)
        centred = pixels[..., ::-1].astype(np.float32) - (103.939, 116.779, 123.68)
        theirs = reference(torch.tensor(centred.transpose(0, 3, 1, 2)).float()).numpy()
    vision, image = imagenet.keras_resnet_50(state | {"fc1000/bias": np.zeros(1000)})
    config = clip(vision, 64)
    preprocessor = Preprocessor(None, None, mean=imagenet.KERAS_MEAN, std=imagenet.STD)
    params = weights.params_from_hf(
        config, clip_tensors.checked(config, random_tensors(config, 0) | image)
    )
    ours = np.asarray(
        weights.build(config, params).image(jnp.asarray(preprocessor.normalise(pixels)))
    )
    np.testing.assert_allclose(ours, theirs, atol=5e-5 * np.abs(theirs).max())
    assert clip_config.from_hf(clip_config.to_hf(config, bos_token_id=0, logit_scale=1)) == config
    with pytest.raises(WeightsError, match="found no res5c_branch2c/bias"):
        imagenet.keras_resnet_50({n: t for n, t in state.items() if n != "res5c_branch2c/bias"})
    with pytest.raises(WeightsError, match="found res9/bias too"):
        imagenet.keras_resnet_50(state | {"res9/bias": np.zeros(1)})


def test_earlier_fingerprints_are_unchanged() -> None:
    """They hash the text of the config, which new fields must not change."""
    text = "ResNetConfig(widths=(8, 8, 16, 24), depths=(1, 2, 1, 1), stem_width=8, bottleneck=False"
    assert repr(TINY) == f"{text})"
    other = ResNetConfig(TINY.widths, TINY.depths, 8, True, downsample_in_bottleneck=True)
    assert repr(other).endswith("bottleneck=True, downsample_in_bottleneck=True)")


@pytest.mark.parametrize("bottleneck", [False, True])
def test_engines_agree(bottleneck: bool) -> None:
    vision = ResNetConfig(TINY.widths, TINY.depths, TINY.stem_width, bottleneck)
    config = clip(vision, 64)
    draw = np.random.default_rng(0)
    pixels = draw.integers(0, 256, (5, 64, 64, 3), np.uint8)
    tokens = draw.integers(0, 598, (2, 9)).astype(np.int32)
    tokens[:, 7] = 599
    jax_, *others = engines(config, random_tensors(config, 0)).values()
    for other in others:
        for first, two in (
            (jax_.encode_images(pixels), other.encode_images(pixels)),
            (jax_.encode_texts(tokens), other.encode_texts(tokens)),
        ):
            np.testing.assert_allclose(first, two, atol=2e-6)


def test_bfloat16_is_close() -> None:
    config = clip(TINY, 64)
    tensors = random_tensors(config, 0)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    params = weights.params_from_hf(config, tensors)
    exact = JaxTowers(config, params, HOW).encode_images(pixels)
    for rough in (
        JaxTowers(config, params, HOW, precision="bfloat16"),
        OpenvinoTowers(config, tensors, HOW, precision="bfloat16"),
    ):
        assert (exact * rough.encode_images(pixels)).sum(axis=1).min() > 0.999


def test_large_batches_are_processed_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The size of NumPy's window chunks does not change the result."""
    config = clip(TINY, 32)
    towers = NumpyTowers(config, random_tensors(config, 0), HOW)
    pixels = np.random.default_rng(0).integers(0, 256, (7, 32, 32, 3), np.uint8)
    whole = towers.encode_images(pixels)
    monkeypatch.setattr("rsicd_embed.embedder.clip.backends.on_numpy._WINDOW_BYTES", 1)
    np.testing.assert_allclose(towers.encode_images(pixels), whole, atol=1e-6)


@pytest.mark.slow
def test_every_parameter_learns() -> None:
    """Two steps of gradient descent change every initial parameter of the tower."""
    config = clip(TINY, 32)
    graph, params = nnx.split(Clip(config, rngs=nnx.Rngs(0)))
    pixels = jnp.asarray(np.random.default_rng(0).normal(size=(4, 32, 32, 3)), jnp.float32)

    @jax.jit
    @jax.grad
    def gradient(params: Any) -> Any:
        return (nnx.merge(graph, params).encode_image(pixels)[:, 0] ** 2).sum()

    params = jax.tree.map(lambda value, slope: value + slope, params, gradient(params))
    for path, slope in nnx.to_flat_state(gradient(params)):
        if path[0] in ("image", "image_projection"):
            assert np.abs(np.asarray(slope[...])).max() > 0, path


def test_a_resnet_has_no_patches_to_keep() -> None:
    config = clip(TINY, 32)
    assert config.patches == 0
    model = Clip(config, rngs=nnx.Rngs(0))
    with pytest.raises(ModelError, match="expected keep to be None for a ResNet"):
        model.encode_image(jnp.zeros((1, 32, 32, 3)), jnp.zeros((1, 2), jnp.int32))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a tiny CLIP with a ResNet."""
    config = clip(TINY, 64)
    params = weights.params_from_hf(config, random_tensors(config, 0))
    pixels = Preprocessor(64, (64, 64), mean=imagenet.MEAN, std=imagenet.STD)
    folder = tmp_path_factory.mktemp("resnet")
    export_model.save(folder, config, params, learn_vocabulary(CAPTIONS, config.vocab_size), pixels)
    return folder


class TestClipWithResNet(EmbedderContract):
    @pytest.fixture(scope="class")
    @classmethod
    def embedder(cls, saved: Path) -> Any:
        return load_embedder(saved, batch_size=4, backend="openvino")


def test_save_and_load_round_trip(saved: Path, tmp_path: Path) -> None:
    """A round trip keeps files and fingerprint; float16 nearly so."""
    config = json.loads((saved / "config.json").read_text())
    assert config["model_type"] == "rsicd-embed-clip"
    assert "architectures" not in config
    shape = clip_config.from_hf(config)
    assert shape == clip(TINY, 64)
    stored = load_file(saved / "model.safetensors")
    params = weights.params_from_hf(shape, clip_tensors.checked(shape, stored))
    embedder = load_embedder(saved)
    args = (shape, params, learn_vocabulary(CAPTIONS, shape.vocab_size), embedder.preprocessor)
    export_model.save(tmp_path / "again", *args)
    export_model.save(tmp_path / "half", *args, dtype=np.float16)
    for name in ("config.json", "model.safetensors", "preprocessor_config.json"):
        assert (saved / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    again, half = load_embedder(tmp_path / "again"), load_embedder(tmp_path / "half")
    assert embedder.fingerprint == again.fingerprint != half.fingerprint
    images = [picture(i) for i in range(3)]
    near = (embedder.embed_images(images) * half.embed_images(images)).sum(axis=1)
    assert near.min() > 0.9999


def test_mismatched_weights_are_named(saved: Path) -> None:
    config = clip(TINY, 64)
    stored = load_file(saved / "model.safetensors")
    gone = "vision_model.encoder.stages.1.layers.0.shortcut.convolution.bias"
    other = "vision_model.embedder.embedder.convolution.weight"
    broken = {name: tensor for name, tensor in stored.items() if name != gone}
    broken |= {"bn1.weight": np.ones(3, np.float32), other: stored[other][:, :2]}
    with pytest.raises(WeightsError) as caught:
        clip_tensors.checked(config, broken)
    message = str(caught.value)
    assert f"missing {gone}" in message
    assert "unused bn1.weight" in message
    assert f"{other}: expected shape (8, 3, 7, 7)" in message


BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "size": ({"image_size": 100}, "divisible by the ResNet's stride, found 100 and 32"),
    "stages": ({"hidden_sizes": [8, 8, 8]}, "a ResNet of four stages"),
    "depth": ({"depths": [1, 1, 0, 1]}, "depths of 1 or more"),
    "kind": ({"layer_type": "wide"}, "layer_type of basic or bottleneck"),
    "inside": ({"layer_type": "bottleneck", "hidden_sizes": [8, 8, 8, 6]}, "divisible by 4"),
    "activation": ({"hidden_act": "gelu"}, "expected hidden_act 'relu', found 'gelu'"),
    "tower": ({"model_type": "swin"}, "expected model_type 'resnet', found 'swin'"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_invalid_shapes_are_refused(name: str) -> None:
    change, message = BROKEN[name]
    content = clip_config.to_hf(clip(TINY, 64), bos_token_id=598, logit_scale=1.0)
    content["vision_config"] |= change
    with pytest.raises(ModelError) as caught:
        clip_config.from_hf(content)
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_missing_config_keys_are_refused() -> None:
    with pytest.raises(ModelError, match="expected embedding_size, hidden_sizes, depths and a"):
        clip_config.from_hf({"model_type": "rsicd-embed-clip"})
    with pytest.raises(ModelError, match="expected patch size 0 for a ResNet, found 32"):
        ClipConfig(TINY, TEXT, 24, 64, 32, 600, 32, 599)


@pytest.mark.slow
def test_bench_embed_needs_no_reference(saved: Path, tmp_path: Path) -> None:
    done = run(
        *("bench", "embed", "--model", saved, "--backend", "numpy", "--one-process"),
        *("--rounds", "2", "--batch-size", "2", "--matmul-side", "64", "-o", tmp_path, "--json"),
    )
    assert done.status == 0, done.stderr
    record = done.document
    assert list(record["images"]["candidates"]) == ["rsicd-embed numpy"]
    assert record["flop_per_image"] > 0
    assert set(record["left_out"]) == set(reference_models.CLIP_NEEDS)
    assert "a CLIP with a ViT in the Hugging Face layout" in str(record["left_out"])
