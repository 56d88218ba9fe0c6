"""open_clip's checkpoints that are broken, damaged or hostile are refused, with the reason."""

from __future__ import annotations

import io
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from rsicd_embed.embedder.clip import parts
from rsicd_embed.embedder.locate import locate
from rsicd_embed.errors import ModelError, WeightsError
from tests.embedder import open_clip_models as reference
from tests.embedder.open_clip_models import KINDS

State = dict[str, Any]


def broken(
    change: Callable[[dict[str, Any]], object],
) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def breaking(state: State) -> State:
        change(state)
        return state

    return breaking


FUSED = "transformer.resblocks.1.attn.in_proj_weight"

BROKEN: dict[str, tuple[Callable[[State], State], str]] = {
    "missing": (broken(lambda s: s.pop(FUSED)), rf"missing {FUSED}$"),
    "one too many": (broken(lambda s: s.update(extra=torch.ones(2))), "unused extra$"),
    "fused shape": (
        broken(lambda s: s.update({FUSED: torch.ones(190, 64)})),
        rf"{FUSED}: expected shape \(192, 64\), found \(190, 64\)",
    ),
    "projection": (
        broken(lambda s: s.update({"visual.proj": torch.ones(128, 47)})),
        r"visual\.proj: expected shape \(128, 48\), found \(128, 47\)",
    ),
    "NaN": (broken(lambda s: s["ln_final.bias"].fill_(torch.nan)), r"ln_final\.bias: NaN"),
    "no text tower": (
        broken(lambda s: [s.pop(n) for n in list(s) if not n.startswith("visual.")]),
        r"lacks token_embedding\.weight, .* incomplete",
    ),
    "LoRA": (
        lambda s: {f"{n}.lora_A": v for n, v in s.items()},
        r"expected a CLIP, found the adapters .*LoRA.*merge",
    ),
    "diffusion": (
        lambda s: {f"cond_stage_model.{n}": v for n, v in s.items()},
        "expected a CLIP, found a diffusion model.*cond_stage_model",
    ),
}


@pytest.mark.usefixtures("one_tokenizer")
@pytest.mark.parametrize("name", BROKEN)
def test_broken_checkpoints_are_refused_by_name(name: str, files: Path, tmp_path: Path) -> None:
    change, message = BROKEN[name]
    state = torch.load(files / "gelu.pt")
    torch.save(change(state), tmp_path / "model.pt")
    with pytest.raises(WeightsError, match=message) as caught:
        parts.read(locate(tmp_path / "model.pt", activation="gelu"))
    assert "\n" not in str(caught.value)


def encrypted(path: Path) -> None:
    """Sets the flag of encryption of the first entry."""
    data = bytearray(path.read_bytes())
    data[6] |= 1
    at = data.index(b"PK\x01\x02")
    data[at + 8] |= 1
    path.write_bytes(data)


def lightning(path: Path) -> None:
    torch.save({"state_dict": {}, "callbacks": pytest.approx}, path)


def rezipped(path: Path, keep: Callable[[str], bool]) -> None:
    with zipfile.ZipFile(path) as old:
        content = {name: old.read(name) for name in old.namelist() if keep(name)}
    with zipfile.ZipFile(path, "w") as new:
        for name, data in content.items():
            new.writestr(name, data)


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "encrypted": (encrypted, "the zip file is encrypted; decrypt it first"),
    "truncated": (
        lambda path: path.write_bytes(path.read_bytes()[: 1 << 20]),
        "the zip file is damaged or truncated; download it again",
    ),
    "other globals": (
        lambda path: torch.save({"args": io.StringIO}, path), r"refers to _?io\.StringIO.*do not tr"
    ),
    "a test": (lightning, "do not trust this file"),
    "another zip": (
        lambda path: rezipped(path, lambda name: not name.endswith(".pkl")), "with one data.pkl"
    ),
    "without a buffer": (
        lambda path: rezipped(path, lambda name: not name.endswith("/data/3")), "cannot be read"
    ),
    "a web page": (lambda path: path.write_text("<html>"), "expected a zip file written by torch"),
    "empty": (lambda path: path.write_bytes(b""), "expected a zip file written by torch"),
}  # fmt: skip


@pytest.mark.usefixtures("one_tokenizer")
@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_and_hostile_files(name: str, files: Path, tmp_path: Path) -> None:
    damage, message = DAMAGE[name]
    path = Path(shutil.copyfile(files / "gelu.pt", tmp_path / "model.pt"))
    damage(path)
    with pytest.raises(WeightsError, match=message) as caught:
        parts.read(locate(path, activation="gelu"))
    assert "\n" not in str(caught.value)
    assert "model.pt" in str(caught.value)


CONFIGS: dict[str, tuple[dict[str, Any], str]] = {
    "wider": (
        {"vision_cfg": {**reference.VIT, "width": 192}},
        r"visual\.conv1\.weight: expected shape",
    ),
    "deeper": ({"text_cfg": {**reference.TEXT, "layers": 3}}, r"missing transformer\.resblocks\.2"),
    "words": ({"embed_dim": "wide"}, "expected embed_dim to be a whole number above 0, found 'wi"),
    "no towers": ({"vision_cfg": None}, "expected vision_cfg to be an object, found None"),
    "timm": ({"vision_cfg": {"timm_model_name": "vit"}}, "timm_model_name 'vit' belongs to an arc"),
    "pooling": ({"vision_cfg": {**reference.VIT, "pool_type": "avg"}}, "pool_type 'avg' belongs"),
    "vocabulary": ({"text_cfg": {**reference.TEXT, "vocab_size": 100}}, "of 49408 tokens, CLIP's"),
}


@pytest.mark.usefixtures("one_tokenizer")
@pytest.mark.parametrize("name", CONFIGS)
def test_configs_that_contradict_the_tensors(
    name: str, models: dict[str, Any], tmp_path: Path
) -> None:
    change, message = CONFIGS[name]
    folder = reference.hub_folder(tmp_path / "hub", models["gelu"], KINDS["gelu"] | change)
    with pytest.raises(ModelError, match=message) as caught:
        parts.read(locate(folder))
    assert "\n" not in str(caught.value)


def test_folders_with_several_checkpoints_or_another_vocabulary(
    models: dict[str, Any], files: Path, tiny_model: Path, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=r"found several; pass .*gelu\.pt, .*quick_gelu\.pt, .*re"):
        locate(files)
    folder = reference.hub_folder(tmp_path / "hub", models["gelu"], KINDS["gelu"])
    shutil.copy(tiny_model / "tokenizer.json", folder)
    with pytest.raises(ModelError, match=r"tokenizer\.json: expected OpenAI's CLIP vocabulary"):
        parts.read(locate(folder))
    (folder / "open_clip_model.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"expected open_clip_model\.safetensors"):
        parts.read(locate(folder))
