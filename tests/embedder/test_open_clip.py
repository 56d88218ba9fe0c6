"""open_clip's and OpenAI's checkpoints: the same vectors, tokens and pixels, in every file form."""

from __future__ import annotations

import functools
import io
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from rsicd_embed.embedder import clip_vocabulary
from rsicd_embed.embedder.clip import parts
from rsicd_embed.embedder.clip.formats import naming, open_clip_config, torchscript
from rsicd_embed.embedder.clip.tensors import checked
from rsicd_embed.embedder.loading import load_embedder
from rsicd_embed.embedder.locate import locate
from rsicd_embed.embedder.preprocess import from_open_clip
from rsicd_embed.embedder.tokenizer import Tokenizer
from rsicd_embed.errors import ModelError, WeightsError
from tests.embedder import open_clip_models as reference
from tests.helpers import run

ENGINES = ("jax", "numpy", "openvino")
KINDS = {
    "gelu": reference.settings(),
    "quick_gelu": reference.settings(quick=True),
    "resnet": reference.settings(reference.RESNET),
}


def picture(height: int, width: int, colour: tuple[float, float, float], seed: int) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3))
    return Image.fromarray((noise * np.array(colour)).astype(np.uint8))


IMAGES = [
    picture(40, 51, (1, 0.1, 0.2), 0),
    picture(64, 64, (0.1, 0.9, 0.1), 1),
    picture(90, 35, (0.5, 0.2, 1), 2),
]


_clip_tokenizer = functools.cache(clip_vocabulary.clip_tokenizer)


@pytest.fixture
def one_tokenizer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Builds CLIP's tokenizer once."""
    empty = Path("without a tokenizer")
    monkeypatch.setattr(clip_vocabulary, "clip_tokenizer", lambda _: _clip_tokenizer(empty))


def weights(located: Any) -> tuple[Any, dict[str, bytes]]:
    """The config and the bytes of all tensors."""
    model = parts.read(located)
    return model.config, {name: tensor.tobytes() for name, tensor in model.tensors.items()}


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    return {name: reference.model(config) for name, config in KINDS.items()}


@pytest.fixture(scope="module")
def files(models: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `KIND.pt`, as RemoteCLIP and GeoRSCLIP are published."""
    folder = tmp_path_factory.mktemp("open_clip")
    for name, model in models.items():
        torch.save(model.state_dict(), folder / f"{name}.pt")
    return folder


@pytest.mark.usefixtures("one_tokenizer")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.filterwarnings("ignore:1 of 5 texts are longer")
def test_vectors_match_open_clip(
    kind: str, engine: Any, models: dict[str, Any], files: Path
) -> None:
    activation: Any = "quick_gelu" if kind == "quick_gelu" else "gelu"
    ours = load_embedder(files / f"{kind}.pt", activation=activation, backend=engine)
    images, texts = reference.vectors(models[kind], IMAGES, reference.TEXTS)
    for vectors, expected in (
        (ours.embed_images(IMAGES), images),
        (ours.embed_texts(reference.TEXTS), texts),
    ):
        assert (vectors * expected).sum(axis=1).min() >= 0.99999
        np.testing.assert_allclose(vectors, expected, atol=2e-5)


PUBLISHED: dict[str, tuple[dict[str, Any], Any]] = {
    "B/32 gelu": (reference.settings({"layers": 12, "width": 768, "patch_size": 32}), "gelu"),
    "B/32 quick_gelu": (
        reference.settings({"layers": 12, "width": 768, "patch_size": 32}, quick=True),
        "quick_gelu",
    ),
    "B/16": (reference.settings({"layers": 12, "width": 768, "patch_size": 16}), "gelu"),
    "L/14": (reference.settings({"layers": 24, "width": 1024, "patch_size": 14}), "gelu"),
    "H/14 towers": (
        reference.settings({"layers": 2, "width": 1280, "patch_size": 14, "head_width": 80}),
        "gelu",
    ),
    "RN50": (
        reference.settings({"layers": [3, 4, 6, 3], "width": 64, "patch_size": None}), "gelu"
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_full_widths_match_open_clip(name: str, tmp_path: Path) -> None:
    """With the sizes of the published models; the text towers are B/32's."""
    config, activation = PUBLISHED[name]
    config["text_cfg"] |= {"width": 512, "heads": 8, "layers": 12}
    model = reference.model(config | {"embed_dim": 512})
    torch.save(model.state_dict(), tmp_path / "model.pt")
    images, texts = reference.vectors(model, IMAGES, reference.TEXTS[:3])
    for engine in ("jax", "openvino"):
        ours = load_embedder(tmp_path / "model.pt", activation=activation, backend=engine)  # type: ignore[arg-type]
        assert (ours.embed_images(IMAGES) * images).sum(axis=1).min() >= 0.9999
        assert (ours.embed_texts(reference.TEXTS[:3]) * texts).sum(axis=1).min() >= 0.9999


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


@pytest.mark.usefixtures("one_tokenizer")
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


@pytest.mark.usefixtures("one_tokenizer")
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


@pytest.mark.usefixtures("one_tokenizer")
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


@pytest.mark.usefixtures("one_tokenizer")
def test_the_activation_is_never_guessed(files: Path, pictures: Path, tmp_path: Path) -> None:
    model = files / "quick_gelu.pt"
    with pytest.raises(ModelError, match=r"--activation quick_gelu .*, or --activation gelu"):
        load_embedder(model)
    with pytest.raises(ModelError, match=r"gelu, as in the model.s name, found q"):
        load_embedder(f"{model}?activation=gelu", activation="quick_gelu")
    with pytest.raises(ModelError, match=r"expected activation quick_gelu or .*, found 'relu'"):
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


def test_tokens_match_open_clip(tmp_path: Path) -> None:
    ours = Tokenizer(
        clip_vocabulary.clip_tokenizer(tmp_path), context_length=77, pad_id=0, cleaning="lower"
    )
    theirs = reference.open_clip.get_tokenizer("ViT-B-32")
    samples = list(reference.random_texts(5000))
    with pytest.warns(UserWarning, match="were cut"):
        ids = ours(samples, length=77)
    np.testing.assert_array_equal(ids, theirs(samples).numpy())


def test_pixels_match_open_clip() -> None:
    sizes = [(31, 77), (224, 224), (225, 227), (300, 224), (500, 333), (64, 1000)]
    for preprocess in ({}, {"resize_mode": "squash", "interpolation": "bilinear"}):
        ours = from_open_clip(preprocess, 224)
        config = reference.open_clip.transform.PreprocessCfg(size=224, **preprocess)
        theirs = reference.image_transform_v2(config, is_train=False)
        for seed, size in enumerate(sizes):
            image = picture(*size, (1, 1, 1), seed)
            expected = theirs(image).numpy().transpose(1, 2, 0)
            np.testing.assert_allclose(ours.normalise(ours(image)), expected, atol=1e-6)


def test_long_clips_positions(models: dict[str, Any]) -> None:
    """The first 20 positions are CLIP's, the others come from a second table."""
    state = {name: value.numpy() for name, value in models["gelu"].state_dict().items()}
    state["positional_embedding"] = np.arange(248 * 64, dtype=np.float32).reshape(248, 64)
    state["positional_embedding_res"] = -state["positional_embedding"]
    config = open_clip_config.from_tensors(state, "gelu")
    assert config.context_length == 248
    tensors = checked(config, state, naming.open_clip(config, state))
    positions = tensors["text_model.embeddings.position_embedding.weight"]
    np.testing.assert_array_equal(positions[:20], state["positional_embedding"][:20])
    np.testing.assert_array_equal(positions[20:], state["positional_embedding_res"][20:])


@pytest.mark.parametrize("kind", KINDS)
def test_configs_and_tensors_round_trip(kind: str, models: dict[str, Any]) -> None:
    state = {name: value.numpy() for name, value in models[kind].state_dict().items()}
    config = open_clip_config.from_config(KINDS[kind], state)
    assert open_clip_config.from_config(open_clip_config.to_config(config), state) == config
    activation: Any = "quick_gelu" if kind == "quick_gelu" else "gelu"
    assert open_clip_config.from_tensors(state, activation) == config
    tensors = checked(config, state, naming.open_clip(config, state))
    written = naming.write(config, naming.open_clip(config), tensors)
    assert set(written) == set(state)
    again = checked(config, written, naming.open_clip(config))
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(again[name], tensor, err_msg=name)
    assert json.dumps(open_clip_config.to_config(config))
