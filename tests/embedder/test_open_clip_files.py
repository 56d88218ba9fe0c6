"""Every form of file in which open_clip's and OpenAI's checkpoints are published."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from rsicd_embed.embedder.clip import parts
from rsicd_embed.embedder.clip.formats import torchscript
from rsicd_embed.embedder.loading import load_embedder
from rsicd_embed.embedder.locate import locate
from rsicd_embed.errors import ModelError
from tests.embedder import open_clip_models as reference
from tests.embedder.open_clip_models import KINDS
from tests.helpers import run

pytestmark = pytest.mark.usefixtures("one_tokenizer")


def weights(located: Any) -> tuple[Any, dict[str, bytes]]:
    """The config and the bytes of all tensors."""
    model = parts.read(located)
    return model.config, {name: tensor.tobytes() for name, tensor in model.tensors.items()}


def training_checkpoint(model: Any, path: Path) -> None:
    """As open_clip's training and SkyCLIP write it."""
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([weight], lr=1e-3)
    weight.sum().backward()
    optimizer.step()
    state = {f"module.{name}": value for name, value in model.state_dict().items()}
    content = {
        "epoch": 3,
        "name": "run",
        "state_dict": state,
        "optimizer": optimizer.state_dict(),
        "scaler": {"scale": 1.0, "growth_tracker": 0},
    }
    torch.save(content, path)


def safetensors(model: Any, path: Path) -> None:
    from safetensors.torch import save_file

    save_file({n: v.contiguous() for n, v in model.state_dict().items()}, path)


FORMS: dict[str, tuple[str, Callable[[Any, Path], None]]] = {
    "training checkpoint": ("epoch_3.pt", training_checkpoint),
    "safetensors": ("model-b32.safetensors", safetensors),
    "bin": ("ckpt.bin", lambda model, path: torch.save(dict(model.state_dict()), path)),
    "parameters": ("p.pth", lambda model, path: torch.save(
        {n: torch.nn.Parameter(v) for n, v in model.state_dict().items()}, path
    )),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_file_is_the_same_model(
    form: str, models: dict[str, Any], files: Path, tmp_path: Path
) -> None:
    name, write = FORMS[form]
    write(models["gelu"], tmp_path / name)
    same = weights(locate(files / "gelu.pt", activation="gelu"))
    assert weights(locate(tmp_path / name, activation="gelu")) == same
    # A folder with one checkpoint and nothing else is that checkpoint.
    assert weights(locate(tmp_path, activation="gelu")) == same


@pytest.mark.parametrize("kind", KINDS)
def test_hub_folders_need_no_activation(
    kind: str, models: dict[str, Any], files: Path, tmp_path: Path
) -> None:
    folder = reference.hub_folder(tmp_path / "hub", models[kind], KINDS[kind])
    activation: Any = "quick_gelu" if kind == "quick_gelu" else "gelu"
    same = weights(locate(files / f"{kind}.pt", activation=activation))
    assert weights(locate(folder)) == same
    (folder / "open_clip_model.safetensors").unlink()
    torch.save(models[kind].state_dict(), folder / "open_clip_pytorch_model.bin")
    assert weights(locate(folder)) == same
    if kind == "gelu":
        with pytest.raises(ModelError, match="says gelu for the image tower, found activation qui"):
            parts.read(locate(folder, activation="quick_gelu"))


def openai_archive(model: Any, path: Path) -> None:
    """A TorchScript archive like OpenAI's, whose modules have three integers more."""
    for name, value in (("input_resolution", 32), ("context_length", 77), ("vocab_size", 49408)):
        if hasattr(model, name):
            delattr(model, name)
        model.register_buffer(name, torch.tensor(value))
    size = model.visual.image_size
    with torch.no_grad():
        images, texts = torch.zeros(1, 3, *size), torch.zeros(1, 77, dtype=torch.int)
        traced = torch.jit.trace(model, (images, texts), check_trace=False)
    torch.jit.save(traced, path)


@pytest.mark.filterwarnings("ignore")
def test_openais_archives_are_read_without_executing_them(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in ("quick_gelu", "gelu"):
        openai_archive(reference.model(KINDS[kind]), tmp_path / f"{kind}.pt")
    monkeypatch.setattr(torch.jit, "load", None)
    for kind in ("quick_gelu", "gelu"):
        path = tmp_path / f"{kind}.pt"
        assert torchscript.activation(path) == kind
        same = weights(locate(files / path.name, activation=kind))  # type: ignore[arg-type]
        assert weights(locate(path)) == same
    with pytest.raises(ModelError, match="its code uses gelu, found activation quick_gelu"):
        parts.read(locate(tmp_path / "gelu.pt", activation="quick_gelu"))


def test_the_activation_is_never_guessed(files: Path, pictures: Path, tmp_path: Path) -> None:
    model = files / "quick_gelu.pt"
    with pytest.raises(ModelError, match=r"--activation quick_gelu .*, or --activation gelu"):
        load_embedder(model)
    with pytest.raises(ModelError, match=r"gelu, as in the model.s name, found q"):
        load_embedder(f"{model}?activation=gelu", activation="quick_gelu")
    with pytest.raises(ModelError, match=r"an activation among quick_gelu, .*, found 'relu'"):
        load_embedder(f"{model}?activation=relu")
    store = f"exact:{tmp_path / 'store'}"
    done = run("ingest", pictures, "--store", store, "--model", model, "--activation", "quick_gelu")
    assert done.status == 0, done.stderr
    # The store remembers it.
    assert (
        run("search", "a boat", "--store", store, "--json")
        .document["model"]
        .endswith("quick_gelu.pt?activation=quick_gelu")
    )
    other = run("search", "a boat", "--store", store, "--model", f"{model}?activation=gelu")
    assert "weights" in other.error
