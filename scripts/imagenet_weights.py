"""Converts ImageNet ResNets of torchvision and Keras to image towers without batch norms."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from rsicd_embed.embedder.clip.resnet_config import ResNetConfig
from rsicd_embed.embedder.clip.tensors import RESNET_STEM, resnet_block
from rsicd_embed.errors import WeightsError

# Normalisation of the pixels in ImageNet training, after division by 255.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
_EPS = 1e-5  # of torch.nn.BatchNorm2d

_BLOCK = re.compile(r"layer(\d+)\.(\d+)\.conv1\.weight")

Tensors = Mapping[str, np.ndarray]


def fold(kernel: np.ndarray, norm: Tensors, eps: float = _EPS) -> tuple[np.ndarray, np.ndarray]:
    """Folds a batch norm into the preceding convolution.

    Args:
        kernel: (out, in, height, width).
        norm: the norm's `weight`, `bias`, `running_mean` and `running_var`, each (out,).
        eps: added to the variance by the norm.

    Returns:
        Kernel and bias of an equivalent convolution, float32, computed in float64.
    """
    weight, bias, mean, variance = (
        norm[name].astype(np.float64) for name in ("weight", "bias", "running_mean", "running_var")
    )
    scale = weight / np.sqrt(variance + eps)
    folded = kernel.astype(np.float64) * scale[:, None, None, None]
    return folded.astype(np.float32), (bias - mean * scale).astype(np.float32)


def resnet(state: Tensors) -> tuple[ResNetConfig, dict[str, np.ndarray]]:
    """Converts a torchvision ResNet to the shape and tensors of an image tower.

    Args:
        state: its state dict; the classifier `fc` is ignored.

    Raises:
        WeightsError: it is not a torchvision ResNet, or tensors are missing or unknown.
    """
    left = {
        name: tensor
        for name, tensor in state.items()
        if not name.startswith("fc.") and not name.endswith(".num_batches_tracked")
    }

    def take(name: str) -> np.ndarray:
        if name not in left:
            raise WeightsError(f"expected a state dict of a torchvision ResNet, found no {name}")
        return left.pop(name)

    def folded(ours: str, kernel: str, norm: str) -> dict[str, np.ndarray]:
        statistics = ("weight", "bias", "running_mean", "running_var")
        weight, bias = fold(
            take(f"{kernel}.weight"), {name: take(f"{norm}.{name}") for name in statistics}
        )
        return {f"{ours}.weight": weight, f"{ours}.bias": bias}

    config = _shape(left)
    tensors = folded(RESNET_STEM, "conv1", "bn1")
    for stage, blocks in enumerate(config.stages()):
        for place, block in enumerate(blocks):
            ours, theirs = resnet_block(stage, place), f"layer{stage + 1}.{place}"
            for layer in range(len(block.convolutions)):
                tensors |= folded(
                    f"{ours}.layer.{layer}.convolution",
                    f"{theirs}.conv{layer + 1}",
                    f"{theirs}.bn{layer + 1}",
                )
            if block.shortcut is not None:
                tensors |= folded(
                    f"{ours}.shortcut.convolution",
                    f"{theirs}.downsample.0",
                    f"{theirs}.downsample.1",
                )
    if left:
        more = ", ".join(sorted(left)[:8])
        raise WeightsError(f"expected a state dict of a torchvision ResNet, found {more} too")
    return config, tensors


def _shape(state: Tensors) -> ResNetConfig:
    places = [match.groups() for match in map(_BLOCK.fullmatch, state) if match]
    depths = [sum(stage == str(i) for stage, _ in places) for i in range(1, 5)]
    last = "conv3" if "layer1.0.conv3.weight" in state else "conv2"
    try:
        return ResNetConfig(
            widths=tuple(len(state[f"layer{i}.0.{last}.weight"]) for i in range(1, 5)),
            depths=tuple(depths),
            stem_width=len(state["conv1.weight"]),
            bottleneck=last == "conv3",
        )
    except KeyError as error:
        raise WeightsError(
            f"expected a state dict of a torchvision ResNet, found no {error.args[0]}"
        ) from error


# Mean of red, green and blue, 0 to 255, in Keras's ResNet-50 (2015).
_KERAS_MEAN = (123.68, 116.779, 103.939)
_KERAS_EPS = 1e-3
KERAS_MEAN = tuple(value / 255 for value in _KERAS_MEAN)

_KERAS_LAYERS = ("branch2a", "branch2b", "branch2c")


def keras_resnet_50(state: Tensors) -> tuple[ResNetConfig, dict[str, np.ndarray]]:
    """Converts Keras's first ResNet-50 to the shape and tensors of an image tower.

    The tower expects pixels normalised with `KERAS_MEAN` and `STD`: the original channel order
    (blue first) and scale are folded into its first convolution.

    Args:
        state: its weights by Keras's names; the classifier `fc1000` is ignored.

    Raises:
        WeightsError: it is another model, or tensors are missing or unknown.
    """
    left = {name: tensor for name, tensor in state.items() if not name.startswith("fc1000/")}

    def take(name: str) -> np.ndarray:
        if name not in left:
            raise WeightsError(f"expected the weights of Keras's ResNet-50, found no {name}")
        return left.pop(name)

    def folded(ours: str, kernel: str, norm: str) -> dict[str, np.ndarray]:
        names = {
            "weight": "gamma",
            "bias": "beta",
            "running_mean": "moving_mean",
            "running_var": "moving_variance",
        }
        statistics = {name: take(f"{norm}/{theirs}") for name, theirs in names.items()}
        statistics["running_mean"] = statistics["running_mean"] - take(f"{kernel}/bias")
        weight, bias = fold(take(f"{kernel}/kernel").transpose(3, 2, 0, 1), statistics, _KERAS_EPS)
        return {f"{ours}.weight": weight, f"{ours}.bias": bias}

    config = ResNetConfig(
        (256, 512, 1024, 2048), (3, 4, 6, 3), bottleneck=True, downsample_in_bottleneck=True
    )
    tensors = folded(RESNET_STEM, "conv1", "bn_conv1")
    rgb = tensors[f"{RESNET_STEM}.weight"][:, ::-1]
    scale = 255 * np.asarray(STD, np.float32)
    tensors[f"{RESNET_STEM}.weight"] = np.ascontiguousarray(rgb * scale[:, None, None])
    for stage, blocks in enumerate(config.stages()):
        for place, block in enumerate(blocks):
            ours, theirs = resnet_block(stage, place), f"{stage + 2}{'abcdef'[place]}_"
            for layer, name in enumerate(_KERAS_LAYERS):
                tensors |= folded(
                    f"{ours}.layer.{layer}.convolution", f"res{theirs}{name}", f"bn{theirs}{name}"
                )
            if block.shortcut is not None:
                tensors |= folded(
                    f"{ours}.shortcut.convolution", f"res{theirs}branch1", f"bn{theirs}branch1"
                )
    if left:
        raise WeightsError(
            f"expected the weights of Keras's ResNet-50, found {', '.join(sorted(left)[:8])} too"
        )
    return config, tensors
