"""Small open_clip models, their files, and CLIP's tokenizer, shared by several test files."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest

from rsicd_embed.embedder import clip_vocabulary

_clip_tokenizer = functools.cache(clip_vocabulary.clip_tokenizer)


@pytest.fixture
def one_tokenizer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Builds CLIP's tokenizer once."""
    empty = Path("without a tokenizer")
    monkeypatch.setattr(clip_vocabulary, "clip_tokenizer", lambda _: _clip_tokenizer(empty))


@pytest.fixture(scope="session")
def models() -> dict[str, Any]:
    """open_clip's models by kind."""
    from tests.embedder import open_clip_models

    return {name: open_clip_models.model(config) for name, config in open_clip_models.KINDS.items()}


@pytest.fixture(scope="session")
def files(models: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `KIND.pt`, as RemoteCLIP and GeoRSCLIP are published."""
    import torch

    folder = tmp_path_factory.mktemp("open_clip")
    for name, model in models.items():
        torch.save(model.state_dict(), folder / f"{name}.pt")
    return folder
