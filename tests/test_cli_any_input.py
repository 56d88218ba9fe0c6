"""Odd numbers, texts and paths in every option are accepted or reported in one clear line.

Commands and options are read from click, so new ones are covered automatically.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from rsicd_embed.cli import main
from rsicd_embed.cli.number_range import NumberRange

from .conftest import picture
from .helpers import Outcome, run

pytestmark = pytest.mark.usefixtures("load_each_model_once")

WHOLE = ["-1", "0", str(10**23), str(-(10**23)), "1" * 5000, "1e3", "nan", "", "²", "2147483647"]
REAL = ["nan", "inf", "-inf", "1e999", "-0.0", "1e-320", "0x10", "", "1_000", "9" * 400]
TEXTS = [
    "",
    " ",
    "\0",
    "x" * 100_000,
    "bad\udcff",
    "'",
    '"',
    "木\n\x1b[31m",
    "..",
    "a:b",
    "-",
    "%s{}",
]
PATHS = ["", "\0", "x" * 5000, ".", "/", "/dev/null", "/dev/null/x", "dangling", "locked", "text"]
SCHEMES = ("exact", "nmslib", "lancedb", "nothing", "")
# Arguments with which a command runs, or fails early where running would be slow.
BASE: dict[str, list[str]] = {
    "ingest": ["a.png", "--store", "exact:new", "--model", "model"],
    "embed": ["a.png", "-o", "new.parquet", "--model", "model"],
    "search": ["port", "--store", "exact:store"],
    "find": ["port", "a.png", "--model", "model"],
    "serve": ["--store", "exact:absent"],
    "mcp": ["--store", "exact:absent"],
    "sql": ["SELECT 1", "--store", "exact:store"],
    "info": ["--store", "exact:store"],
    "export": ["--store", "exact:store", "-o", "new.parquet"],
    "import": ["rows.parquet", "--store", "exact:new"],
    "store tag": ["name", "--store", "exact:store"],
    "store untag": ["name", "--store", "exact:store"],
    "store copy": ["exact:copy", "--store", "exact:store"],
    "store rename": ["exact:renamed", "--store", "exact:store"],
    "store delete": ["--store", "exact:store", "--where", "false"],
    "label": ["--store", "exact:store", "--classes", "absent"],
    "caption": ["a.png", "--captioner", "absent"],
    "duplicates": ["--store", "exact:store"],
    "store tags": ["--store", "exact:store"],
    "store drop-column": ["label", "--store", "exact:store"],
    "store restore": ["name", "--store", "exact:store"],
    "reembed": ["--store", "exact:store", "--model", "model"],
    "models": [],
    "train": ["--dataset", "absent", "--out", "run"],
    "train plan": ["--topology", "absent"],
    "train presets": [],
    "train arms": ["--dataset", "absent", "--out", "run"],
    "train caption": ["--dataset", "absent", "--out", "run"],
    "train preview": ["--dataset", "absent", "-o", "preview.png"],
    "augment-captions": ["absent", "-o", "new.jsonl"],
    "eval zeroshot": ["--dataset", "absent"],
    "eval retrieval": ["--dataset", "absent"],
    "eval probe": ["--dataset", "absent"],
    "eval queries": ["--dataset", "absent"],
    "eval forgetting": ["--dataset", "absent", "--baseline", "absent"],
    "eval caption": ["--dataset", "absent"],
    "eval suite": ["--dataset", "absent"],
    "bench ann": ["--vectors", "absent", "-o", "bench"],
    "bench embed": ["--model", "absent", "-o", "bench"],
    "bench ingest": ["absent", "--model", "absent", "-o", "bench"],
    "bench serve": ["--model", "absent", "-o", "bench"],
    "bench report": ["absent", "-o", "bench"],
    "bench compare": ["absent", "absent"],
    "bench recommend": ["absent", "--recall", "0.9"],
}


def commands(command: click.Command, name: str = "") -> Iterator[tuple[str, click.Command]]:
    """All commands except pure groups, by name."""
    if isinstance(command, click.Group):
        for word, below in command.commands.items():
            yield from commands(below, f"{name} {word}".strip())
    if not isinstance(command, click.Group) or command.invoke_without_command:
        yield name, command


COMMANDS = dict(commands(main))


def values(parameter: click.Parameter) -> list[str]:
    """Values for a parameter, mostly invalid."""
    kind = parameter.type
    if isinstance(kind, click.IntRange) or kind is click.INT:
        return WHOLE
    if isinstance(kind, click.FloatRange) or kind is click.FLOAT:
        return REAL
    if isinstance(kind, click.Choice):
        return ["", "木", "x" * 5000]
    if isinstance(kind, click.Path | click.File):
        return PATHS
    if "--store" in parameter.opts:
        return [f"{scheme}:{path}" for scheme in SCHEMES for path in (*PATHS, *TEXTS[:8])]
    return [*TEXTS, *PATHS, *WHOLE[:5]]


def test_no_range_has_nan() -> None:
    for command in COMMANDS.values():
        for parameter in command.params:
            if isinstance(parameter.type, click.FloatRange):
                assert isinstance(parameter.type, NumberRange), parameter.name


def invocations(name: str) -> list[list[str]]:
    """Command lines of a command: its base arguments with one value changed."""
    command, base = COMMANDS[name], BASE[name]
    lines = []
    positional = sum(isinstance(parameter, click.Argument) for parameter in command.params)
    for parameter in command.params:
        for value in values(parameter):
            if isinstance(parameter, click.Option):
                if not parameter.is_flag:
                    lines.append(replaced(base, parameter.opts, value))
            elif positional:
                order = [other for other in command.params if isinstance(other, click.Argument)]
                arguments = list(base)
                at = order.index(parameter)
                if at < len(arguments) and not arguments[at].startswith("-"):
                    arguments[at] = value
                    lines.append([*arguments[positional:], "--", *arguments[:positional]])
    return [[*name.split(), *line] for line in lines]


def replaced(base: list[str], names: list[str], value: str) -> list[str]:
    """Replaces an option of the base arguments, or adds it."""
    others: list[str] = []
    rest = iter(base)
    for word in rest:
        if word in names:
            next(rest)
        else:
            others.append(word)
    longest = max(names, key=len)
    return [*others, f"{longest}={value}" if longest.startswith("--") else f"{longest}{value}"]


@pytest.fixture(scope="module")
def prepared(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an image, a store, a model, and a dangling link."""
    folder = tmp_path_factory.mktemp("prepared")
    picture(0).save(folder / "a.png")
    (folder / "text").write_text("neither an image nor a table\n")
    (folder / "dangling").symlink_to("nowhere")
    (folder / "model").symlink_to(tiny_model)
    uri = f"exact:{folder / 'store'}"
    done = run("ingest", folder / "a.png", "--store", uri, "--model", folder / "model")
    assert done.status == 0, done
    done = run("export", "--store", uri, "-o", folder / "rows.parquet")
    assert done.status == 0, done
    return folder


@pytest.fixture
def folder(prepared: Path, tmp_path: Path) -> Path:
    """A copy of that folder for one test, with an unreadable file."""
    folder = shutil.copytree(prepared, tmp_path / "any", symlinks=True)
    (folder / "locked").touch(0)
    return Path(folder)


def require_one_clear_line(line: list[str], outcome: Outcome) -> None:
    """Checks that a command succeeded, or failed with one clear line."""
    shown = [word[:80] for word in line]
    assert outcome.status in (0, 1, 2), (shown, outcome)
    assert "Traceback" not in outcome.stderr, (shown, outcome)
    assert "unexpected" not in outcome.stderr, (shown, outcome.stderr[:600])
    if outcome.status == 0:
        return
    start = "error: " if outcome.status == 1 else "Error: "
    last = outcome.stderr.rstrip("\n").splitlines()[-1]
    assert last.startswith(start), (shown, outcome.stderr[-600:])
    assert len(last) < 2000, (shown, last[:200])
    assert sum(text.startswith(start) for text in outcome.stderr.splitlines()) == 1, shown


def test_every_command_has_base_arguments() -> None:
    assert set(COMMANDS) == set(BASE)


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", BASE)
def test_sample_of_values(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few command lines per command, the same in every run."""
    lines = invocations(name)
    chosen = random.Random(name).sample(lines, min(len(lines), 5))
    check(chosen, folder, monkeypatch)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", BASE)
def test_all_values(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check(invocations(name), folder, monkeypatch)


def check(lines: list[list[str]], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for line in lines:
        require_one_clear_line(line, run(*line))
