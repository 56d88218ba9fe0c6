"""Export of a model in the Hugging Face layout."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from rsicd_embed._lazy_torchvision import mend_torchvision
from rsicd_embed.cli import main
from rsicd_embed.embedder.loading import load_embedder
from tests.conftest import picture


def run(*words: object) -> Result:
    return CliRunner().invoke(main, ["export", *map(str, words)])


@pytest.mark.parametrize(
    ("option", "dtype", "cosine"),
    [("dtype", "float32", 1 - 1e-6), ("dtype", "float16", 0.9999), ("quantize", "int8", 0.999)],
)
def test_the_copy_gives_the_same_vectors(
    tiny_model: Path, tmp_path: Path, option: str, dtype: str, cosine: float
) -> None:
    out = tmp_path / "copy"
    result = run("--model", tiny_model, "-o", out, f"--{option}", dtype, "--json")
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    (weights,) = out.glob("*.safetensors")
    assert (document["dtype"], document["bytes"]) == (dtype, weights.stat().st_size)
    assert "no model card" in result.stderr
    before, after = load_embedder(tiny_model), load_embedder(out)
    assert after.fingerprint == document["fingerprint"]
    assert (after.fingerprint == before.fingerprint) == (dtype == "float32")
    images, texts = [picture(i) for i in range(3)], ["a harbour", "bare land"]
    for first, other in (
        (before.embed_images(images), after.embed_images(images)),
        (before.embed_texts(texts), after.embed_texts(texts)),
    ):
        assert np.sum(first * other, axis=1).min() > cosine
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]


def test_transformers_loads_it(tiny_model: Path, tmp_path: Path) -> None:
    import torch

    mend_torchvision()
    from transformers import CLIPModel

    run("--model", tiny_model, "-o", tmp_path / "copy")
    theirs = CLIPModel.from_pretrained(tmp_path / "copy").eval()
    embedder: Any = load_embedder(tmp_path / "copy")
    texts = ["a harbour full of boats", "bare land"]
    with torch.no_grad():
        ids = torch.tensor(embedder.tokenizer(texts), dtype=torch.long)
        features = theirs.get_text_features(input_ids=ids)
    vectors = getattr(features, "pooler_output", features).numpy()
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    assert np.sum(vectors * embedder.embed_texts(texts), axis=1).min() > 0.9999


def test_the_card_is_exported_and_nothing_is_overwritten(tiny_model: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(tiny_model, source)
    (source / "README.md").write_text("# A card\n")
    out = tmp_path / "out"
    assert run("--model", source, "-o", out).exit_code == 0
    assert (out / "README.md").read_text() == "# A card\n"
    again = run("--model", source, "-o", out)
    assert (again.exit_code, again.stdout) == (1, "")
    assert again.stderr == (
        f"error: expected a new folder, found {out}, which exists; choose another -o\n"
    )


def test_wrong_usage(tiny_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run("-o", out).exit_code == 2
    assert run("-o", out, "--model", tiny_model, "--store", "exact:x").exit_code == 2
    assert run("-o", out, "--model", tiny_model, "--where", "width > 1").exit_code == 2
    assert run("-o", out, "--store", "exact:x", "--push-to", "me/model").exit_code == 2
    assert run("-o", out, "--store", "exact:x", "--quantize", "int8").exit_code == 2
    rows = ("-o", out / "x.parquet", "--store", "exact:x")
    assert run(*rows, "--dtype", "float16").exit_code == 2
    both = ("--dtype", "float16", "--quantize", "int8")
    assert run("-o", out, "--model", tiny_model, *both).exit_code == 2
    assert not out.exists()


def test_the_hub_is_written_only_on_request(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    calls: list[tuple[str, Any]] = []

    class Api:
        def create_repo(self, repo: str, **options: Any) -> None:
            calls.append((repo, options))

        def upload_folder(self, **options: Any) -> Any:
            calls.append(("upload", options))
            return SimpleNamespace(commit_url="https://hub/commit/1")

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    assert run("--model", tiny_model, "-o", tmp_path / "a").exit_code == 0
    assert calls == []
    result = run("--model", tiny_model, "-o", tmp_path / "b", "--push-to", "me/model", "--json")
    assert json.loads(result.stdout)["commit"] == "https://hub/commit/1"
    assert calls == [
        ("me/model", {"private": True, "exist_ok": True}),
        ("upload", {"folder_path": str(tmp_path / "b"), "repo_id": "me/model"}),
    ]

    def refuse(self: Api, repo: str, **options: Any) -> None:
        raise OSError("no network")

    monkeypatch.setattr(Api, "create_repo", refuse)
    refused = run("--model", tiny_model, "-o", tmp_path / "c", "--push-to", "me/model")
    assert refused.exit_code == 1
    assert "me/model could not be written on the Hub: no network; the model is in" in refused.stderr
    assert (tmp_path / "c" / "model.safetensors").exists()
