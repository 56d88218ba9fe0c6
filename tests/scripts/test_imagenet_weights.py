"""ImageNet ResNets as image towers: folded norms, names, and the script."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from rsicd_embed.embedder.clip.resnet_config import ResNetConfig
from rsicd_embed.embedder.loading import load_embedder
from rsicd_embed.errors import WeightsError
from scripts import imagenet_weights as imagenet
from tests.conftest import CAPTIONS
from tests.reference import resnet18

SCRIPT = Path(__file__).parents[2] / "scripts" / "imagenet_resnet.py"


@pytest.fixture(scope="module")
def state() -> dict[str, np.ndarray]:
    """A ResNet-18 with random weights."""
    torch.manual_seed(0)
    return {name: value.numpy() for name, value in resnet18().state_dict().items()}


def test_a_folded_norm_is_equivalent() -> None:
    torch.manual_seed(0)
    convolution = torch.nn.Conv2d(3, 5, 3, bias=False)
    norm = torch.nn.BatchNorm2d(5).eval()
    with torch.no_grad():
        for tensor in (norm.weight, norm.bias, norm.running_mean):
            assert tensor is not None
            tensor.normal_()
        assert norm.running_var is not None
        norm.running_var.uniform_(1e-6, 2)  # small enough for eps to matter
    statistics = {name: value.numpy() for name, value in norm.state_dict().items()}
    kernel, bias = imagenet.fold(convolution.weight.detach().numpy(), statistics)
    x = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        theirs = norm(convolution(x))
        ours = torch.nn.functional.conv2d(x, torch.tensor(kernel), torch.tensor(bias))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_shapes_are_read_from_the_tensors(state: dict[str, np.ndarray]) -> None:
    config, tensors = imagenet.resnet(state)
    assert config == ResNetConfig()
    assert sum(tensor.size for tensor in tensors.values()) == 11_171_712
    deeper = state | {
        name.replace("layer4.1", "layer4.2"): tensor
        for name, tensor in state.items()
        if name.startswith("layer4.1")
    }
    assert imagenet.resnet(deeper)[0].depths == (2, 2, 2, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layer2.0.downsample.0.weight": None}, "found no layer2.0.downsample.0.weight"),
        ({"layer3.1.bn2.running_var": None}, "found no layer3.1.bn2.running_var"),
        ({"layer1.0.conv2.weight": None}, "found no layer1.0.conv2.weight"),
        ({"layer1.0.se.weight": np.ones(3)}, "found layer1.0.se.weight too"),
    ],
)
def test_other_networks_are_refused(
    state: dict[str, np.ndarray], change: dict[str, Any], message: str
) -> None:
    changed = {name: tensor for name, tensor in (state | change).items() if tensor is not None}
    with pytest.raises(WeightsError, match=message):
        imagenet.resnet(changed)


def dataset(folder: Path) -> Path:
    """Captioned images in RSICD's format."""
    folder.mkdir()
    entries = []
    for i, caption in enumerate(CAPTIONS):
        Image.new("RGB", (8, 8)).save(folder / f"port_{i}.png")
        sentences = [{"raw": caption}]
        entries.append({"filename": f"port_{i}.png", "split": "train", "sentences": sentences})
    (folder / "dataset_few.json").write_text(json.dumps({"images": entries}))
    return folder


def make_model(monkeypatch: pytest.MonkeyPatch, *args: object) -> None:
    monkeypatch.syspath_prepend(SCRIPT.parent)
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, args)])
    runpy.run_path(str(SCRIPT), run_name="__main__")


@pytest.mark.slow
def test_the_script_makes_a_model(
    state: dict[str, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save({n: torch.tensor(t) for n, t in state.items()}, tmp_path / "resnet18.pth")
    few, out = dataset(tmp_path / "few"), tmp_path / "model"
    options = ("--captions", few, "--out", out, "--dim", 32)
    make_model(monkeypatch, "--weights", tmp_path / "resnet18.pth", *options, "--image-size", 64)
    embedder = load_embedder(out, backend="numpy")
    assert embedder.dim == 32
    assert embedder.embed_texts(["boats in a port"]).shape == (1, 32)
    config = json.loads((out / "preprocessor_config.json").read_text())
    assert (config["image_mean"], config["crop_size"]["width"]) == (list(imagenet.MEAN), 64)


@pytest.mark.parametrize(
    ("weights", "message"),
    [("resnet18.pth", "the ResNet's stride"), ("none.pth", "none.pth cannot be")],
)
def test_the_script_fails_in_one_line(
    state: dict[str, np.ndarray],
    weights: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.save({n: torch.tensor(t) for n, t in state.items()}, tmp_path / "resnet18.pth")
    options = ("--captions", dataset(tmp_path / "few"), "--out", tmp_path / "model")
    with pytest.raises(SystemExit) as failure:
        make_model(monkeypatch, "--weights", tmp_path / weights, *options, "--image-size", 100)
    error = str(failure.value.code)  # a text is printed on stderr, and the status is 1
    assert message in error
    assert "\n" not in error
