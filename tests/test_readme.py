"""The README's commands and code, run as they stand there."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from rsicd_embed.cli import main
from tests.conftest import picture

PROJECT = Path(__file__).parents[1]
README = (PROJECT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


@pytest.fixture
def here(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with ./images in it, and a toy data set."""
    pictures.rename(tmp_path / "images")
    data = tmp_path / "toy"
    data.mkdir()
    entries = []
    for i in range(12):
        name = f"{['beach', 'river'][i % 2]}_{i}.png"
        picture(i).save(data / name)
        entries.append(
            {
                "filename": name,
                "split": ("val", "test", "train", "train")[i // 3],
                "sentences": [{"raw": f"picture number {i} ."}],
            }
        )
    (data / "dataset_toy.json").write_text(json.dumps({"images": entries}))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_command_works_in_its_order(here: Path) -> None:
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    assert 'pip install ".[train]"' in README
    commands = [line for line in lines if line.startswith("rsicd-embed ")]
    assert len(commands) >= 7
    for line in commands:
        words = shlex.split(line.replace("PATH/TO/rsicd", str(here / "toy")))[1:]
        if words[:2] == ["train", "--dataset"]:  # as it stands, it would take an hour
            words += ["--shape", "tiny", "--epochs", "1", "--batch-size", "4"]
        result = CliRunner().invoke(main, words)
        assert result.exit_code == 0, f"{line}\n{result.output}"
        assert result.stdout or words[0] == "train"


def test_the_python_works(here: Path) -> None:
    ours, lancedbs = blocks("python")
    names: dict[str, Any] = {}
    exec(compile(ours, "README.md", "exec", dont_inherit=True), names)
    assert names["hits"].num_rows == 10  # two queries, five pictures
    assert names["hits"].column_names[:4] == ["query", "rank", "id", "score"]
    exec(compile(lancedbs, "README.md", "exec", dont_inherit=True), names)
    assert names["hits"]["uri"].to_pylist() == ["./images/a.png"]


def test_it_shows_the_set_up() -> None:
    assert [block for block in blocks("sh") if "make" in block] == ["make demo\n", "make test\n"]
    for target in ("demo", "test"):
        assert re.search(rf"^{target}:", (PROJECT / "Makefile").read_text(), flags=re.MULTILINE)
