"""Parameters frozen by `step.freeze`."""

from __future__ import annotations

import jax
import pytest
from flax import nnx

from rsicd_embed.embedder.clip.config import ClipConfig
from rsicd_embed.embedder.clip.model import Clip
from rsicd_embed.errors import TrainError
from rsicd_embed.train.optimizers import frozen, named

from .steps import RESNET, VIT, config


def names(model: ClipConfig) -> list[str]:
    params = nnx.eval_shape(lambda: nnx.state(Clip(model, rngs=nnx.Rngs(0))))
    return list(jax.eval_shape(named, params))


def modules(model: ClipConfig, *freeze: str) -> set[str]:
    return {name.rpartition(".")[0] or name for name in frozen(names(model), freeze)}


def test_whole_parts() -> None:
    every = names(VIT)
    assert frozen(every, []) == frozenset()
    assert frozen(every, ["image"]) == {name for name in every if name.startswith("image.")}
    assert frozen(every, ["logit_scale", "text_projection"]) == {
        "logit_scale", "text_projection.kernel",
    }  # fmt: skip
    both = frozen(every, ["image", "text"])
    assert set(every) - both == {
        "image_projection.kernel", "text_projection.kernel", "logit_scale",
    }  # fmt: skip


def test_the_beginning_of_a_transformer() -> None:
    assert frozen(names(VIT), ["image:0"]) == {
        "image.class_embed", "image.norm_pre.bias", "image.norm_pre.scale",
        "image.patch_embed.kernel", "image.position_embed",
    }  # fmt: skip
    assert frozen(names(VIT), ["text:0"]) == {"text.position_embed", "text.token_embed.embedding"}
    first = modules(VIT, "image:1") - modules(VIT, "image:0")
    assert first
    assert all(name.startswith("image.blocks.0.") for name in first)
    assert modules(VIT, "image") - modules(VIT, "image:2") == {"image.norm_post"}


def test_the_beginning_of_a_resnet() -> None:
    assert modules(RESNET, "image:0") == {"image.stem"}
    two = {name.split(".")[2] for name in modules(RESNET, "image:2") if "stages" in name}
    assert two == {"0", "1"}
    assert modules(RESNET, "image:4") == modules(RESNET, "image")


@pytest.mark.parametrize(
    ("word", "complaint"),
    [
        ("vision", "expected step.freeze to list parts such as image, text, .* found 'vision'"),
        ("image:", "found 'image:'"),
        ("logit_scale:2", "found 'logit_scale:2'"),
    ],
)
def test_unknown_parts(word: str, complaint: str) -> None:
    with pytest.raises(TrainError, match=complaint):
        config(step__freeze=[word])


def test_freezing_too_much() -> None:
    with pytest.raises(TrainError, match=r"at most 2 blocks or stages of the image tower .* 3"):
        frozen(names(VIT), ["image:3"])
    every = ["image", "text", "image_projection", "text_projection", "logit_scale"]
    with pytest.raises(TrainError, match="something left to train"):
        frozen(names(VIT), every)
