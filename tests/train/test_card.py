"""The model card of a run: its contents, and paths that it must not reveal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rsicd_embed.datasets.base import Example
from rsicd_embed.train.card import DataCard, model_card
from rsicd_embed.train.config import TrainConfig, parse
from rsicd_embed.train.initialization import card_licence, from_checkpoint

DATA = DataCard(24, 30, 3, 12, ("rsicd", "ucm.csv"))
ROW = {"epoch": 1, "mr": 0.5}


def card(data: DataCard = DATA, **settings: Any) -> str:
    named = {name.replace("__", "."): value for name, value in settings.items()}
    return model_card(parse.replaced(TrainConfig(), named), data, ROW)


def front(text: str) -> Any:
    yaml = pytest.importorskip("yaml")
    return yaml.safe_load(text.split("---\n")[1])


def test_datasets_and_splits_are_listed() -> None:
    text = card()
    for line in ("datasets | rsicd, ucm.csv", "images, train | 24", "images, val | 12"):
        assert f"| {line} |" in text
    examples = [Example(str(i), f"/x/{i}", {"captions": ["a", "b"]}) for i in range(3)]
    assert DataCard.of(examples[:2], examples[2:], ["x"]) == DataCard(2, 2, 0, 1, ("x",))
    unsaid = card(DataCard.of(examples))
    assert "images, train | 3 |" in unsaid
    assert "val |" not in unsaid
    assert "datasets" not in unsaid


@pytest.mark.parametrize(
    ("init", "base", "words"),
    [
        ("openai/clip-vit-base-patch32", "openai/clip-vit-base-patch32", "`openai/clip-vit"),
        ("some/model@v2", "some/model", "Fine-tuned by `rsicd-embed train` from `some/model@v2`."),
        ("bundled", None, "Fine-tuned by `rsicd-embed train` from the bundled model."),
        ("none", None, "from random weights"),
    ],
)
def test_initial_model(init: str, base: str | None, words: str) -> None:
    text = card(model__init=init)
    assert front(text).get("base_model") == base
    assert words in text


@pytest.mark.parametrize(
    ("setting", "inherited", "licence", "words"),
    [
        (
            "unknown",
            "apache-2.0",
            "apache-2.0",
            "apache-2.0, is that of the model it was trained from.",
        ),
        ("mit", "apache-2.0", "mit", "Its licence is mit."),
        ("unknown", "", "unknown", "Its licence is unknown: set `license` above"),
    ],
)
def test_the_licence_is_set_or_inherited_or_unknown(
    setting: str, inherited: str, licence: str, words: str
) -> None:
    config = parse.replaced(TrainConfig(), {"model.init": "bundled", "model.license": setting})
    text = model_card(config, DATA, ROW, inherited)
    assert front(text)["license"] == licence
    assert words in text


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\nlicense: mit\n---\n", "mit"),
        ("---\nlicense: other\nlicense_name: nc-1\n---\n", "nc-1"),
        ("---\nlicense: [mit, x]\n---\n", ""),
        ("---\nlicense: unknown\n---\n", ""),
        ("---\nlicense: [\n---\n", ""),
        ("---\n- a\n---\n", ""),
        ("no front matter", ""),
        (None, ""),
    ],
)
def test_the_licence_of_a_checkpoint_is_read_from_its_card(
    card: str | None, licence: str, tmp_path: Path
) -> None:
    if card is not None:
        (tmp_path / "README.md").write_text(card)
    assert card_licence(tmp_path) == licence


def test_licence_of_the_bundled_model() -> None:
    assert from_checkpoint("bundled").licence == "apache-2.0"


def test_local_paths_are_not_revealed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "runs" / "first"
    folder.mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    for place in (folder, "runs/first"):
        text = card(model__init=str(place), teacher__model=str(place))
        assert "base_model" not in front(text)
        assert "Fine-tuned by `rsicd-embed train` from `first`." in text
        assert "| `teacher.model` | `first` |" in text
        assert "runs" not in text


def test_teacher_is_described() -> None:
    text = card(teacher__model="some/large", teacher__views=4, teacher__share=0.25)
    assert "distilled from a teacher, `some/large`: 25% of the loss" in text
    assert "4 views of each image" in text
    assert "teacher too" not in card()


def test_special_characters_are_escaped() -> None:
    odd = 'x: "y"\n| # [z'
    text = card(DataCard(1, 1, 0, 1, ("a|b",)), model__license=odd)
    assert front(text)["license"] == odd
    assert r"| datasets | a\|b |" in text
    assert r'| `model.license` | `x: "y" \| # [z` |' in text
