"""The list of known models, the user's list, and `rsicd-embed models`."""

from __future__ import annotations

import pwd
from pathlib import Path

import pytest

from rsicd_embed.embedder import known_models
from rsicd_embed.embedder.known_models import KnownModel, PublishedFigure
from rsicd_embed.embedder.locate import locate
from rsicd_embed.errors import ModelError, StoreError
from rsicd_embed.files import cache_folder

from ..helpers import run


@pytest.fixture
def user_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "models.toml"
    monkeypatch.setenv(known_models.VARIABLE, str(path))
    return path


def test_without_a_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container whose user has no entry in the password file."""

    def no_entry(_: object) -> None:
        raise KeyError

    for name in ("HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", known_models.VARIABLE):
        monkeypatch.delenv(name, raising=False)
    for name in ("getpwuid", "getpwnam"):
        monkeypatch.setattr(pwd, name, no_entry)
    assert known_models.find("bundled") is not None
    with pytest.raises(ModelError, match="expected a model directory"):
        locate("~nobody/model")
    with pytest.raises(StoreError, match="found no home folder; set XDG_CACHE_HOME"):
        cache_folder()


def test_ours_are_complete() -> None:
    """Revisions are whole commit ids, figures are fractions with a source, and names are unique."""
    models = known_models.known_models()
    assert "bundled" in models and len(models) > 20
    for name, model in models.items():
        assert model.name == name and model.architecture and model.trained_on
        assert model.revision is None or len(bytes.fromhex(model.revision)) == 20, name
        for figure in model.published.values():
            assert 0 < figure.value < 1 and figure.source.startswith("https://"), name
        if model.file and model.file.endswith(".pt") and name != "clip-rs":
            known = known_models.published_at(str(model.source), model.file)
            assert known is model
    bundled = models["bundled"]
    assert bundled.saw("dataset_rsicd") and bundled.saw("UCM") and not bundled.saw("aid")
    assert models["clip-rs"].saw("rsicd") is None


def test_location_pins_revision_and_file() -> None:
    known = known_models.find("georsclip-b32-ret2")
    assert known is not None and known.activation == "quick_gelu"
    assert known.location == (
        "Zilun/GeoRSCLIP@4920188e6eba4e711ef9848cfd7cb77e874ee33f:ckpt/RS5M_ViT-B-32_RET-2.pt"
    )
    assert known_models.find("owner/name") is None and known_models.find("Bundled") is None
    with pytest.raises(ModelError, match=r"skyclip-b32, published at https://.*download it"):
        locate("skyclip-b32")
    with pytest.raises(ModelError, match=r"did you mean georsclip-b32"):
        locate("geoclip-b32")


def test_user_list_adds_and_replaces(user_list: Path, tiny_model: Path) -> None:
    user_list.with_name("mine").symlink_to(tiny_model)
    user_list.write_text(
        f"""
        [mine]
        source = "./mine"
        seen = ["AID"]
        [theirs]
        source = "{tiny_model}"
        [clip-b32]
        source = "me/other"
        published = {{ "mR" = {{ value = 0.5, source = "a page" }} }}
        """
    )
    located = locate("mine")
    assert located.name == "mine" and located.directory.samefile(tiny_model)
    assert locate("theirs").directory == tiny_model
    replaced = known_models.find("clip-b32")
    assert replaced == KnownModel(
        "clip-b32",
        "me/other",
        published={"mR": PublishedFigure(0.5, "a page")},
        listed_in=str(user_list),
    )
    listed = run("models", "--json").document["models"]
    assert [model["listed_in"] for model in listed if model["name"] == "mine"] == [str(user_list)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[a", "TOML list of models"),
        ("a = 1", r"\[a\]: expected a table, found 1"),
        ("[A]", "name of lower-case letters"),
        ("[a]\nsource = 'o/n'\nwidth = 3", "found 'width'"),
        ("[a]\nsource = 3", "source to be a text, found 3"),
        ("[a]\nsource = 'a'", "Hugging Face id or a path, found 'a'"),
        ("[a]\nsource = 'o/n'\nactivation = 'relu'", "quick_gelu or gelu, found 'relu'"),
        ("[a]\nsource = 'o/n'\ndim = 0", "dim to be a number ≥ 1, found 0"),
        ("[a]\nsource = 'o/n'\nseen = 'UCM'", "seen to be a list of texts, found 'UCM'"),
        ("[a]\nsource = 'o/n'\npublished = { mR = 0.3 }", "published figures like"),
        (
            f"[a]\nsource = 'o/n'\npublished = {{ mR = {{ value = 1{'0' * 400}, source = 'x' }} }}",
            "published figures like",
        ),
        ("[a]\ndim = 3", "either source or download"),
        ("[bundled]\nsource = 'o/n'", "the bundled model cannot be replaced"),
        ("[a]\nsource = 'b'\n[b]\nsource = 'a'", "or a path as its source, found a → b → a"),
        (None, "No such file"),
    ],
)
def test_bad_user_lists(text: str | None, message: str, user_list: Path) -> None:
    if text is not None:
        user_list.write_text(text)
    known_models._read.cache_clear()
    with pytest.raises(ModelError, match=message):
        known_models.known_models()


def test_command() -> None:
    lines = run("models").stdout.splitlines()
    assert lines[0].split()[:3] == ["name", "architecture", "dim"]
    assert any(line.startswith("georsclip-b32-ret2") and "0.389" in line for line in lines)
    (model,) = run("models", "clip-rsicd-v2", "--json").document["models"]
    assert model["source"] == "flax-community/clip-rsicd-v2"
    assert model["published"]["RSICD test zero-shot top-1"]["value"] == 0.883
    assert "source       Zilun/GeoRSCLIP" in run("models", "georsclip-h14").stdout
    assert "expected a listed model, found 'nothing'" in run("models", "nothing").error
