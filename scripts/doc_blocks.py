"""The fenced blocks of documents, and checks of them that run nothing."""

from __future__ import annotations

import contextlib
import re
import shlex
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from rsicd_embed.cli import main as program

PROJECT = Path(__file__).parents[1]

_FENCE = re.compile(
    r"(?:^<!-- example: (?P<directive>[^\n]*?) -->\n)?"
    r"^(?P<indent>[ ]*)```(?P<language>[\w-]*)\n(?P<code>.*?)^[ ]*```$",
    flags=re.DOTALL | re.MULTILINE,
)


def documents() -> list[Path]:
    """The documents whose blocks are run."""
    return [PROJECT / "README.md", PROJECT / "CONTRIBUTING.md", *sorted(PROJECT.glob("docs/*.md"))]


@dataclass(frozen=True)
class Block:
    """A fenced block of a document.

    Attributes:
        language: the word after the fence.
        code: what is between the fences.
        directive: words of the comment above it, or none.
        span: where `code` is in the document.
        line: the line that it begins at, for messages.
    """

    language: str
    code: str
    directive: tuple[str, ...]
    span: tuple[int, int]
    line: int

    def after(self, word: str) -> list[str]:
        """The words of the directive after its first, which must be `word`."""
        return list(self.directive[1:]) if self.directive[:1] == (word,) else []


def blocks(text: str) -> list[Block]:
    """The fenced blocks of a document, in order.

    Example:
        >>> [block] = blocks("<!-- example: head 2 -->\\n```sh\\nmake demo\\n```\\n")
        >>> block.language, block.code, block.after("head")
        ('sh', 'make demo\\n', ['2'])
    """
    return [
        Block(
            match["language"],
            match["code"],
            tuple(shlex.split(match["directive"] or "")),
            match.span("code"),
            text.count("\n", 0, match.start("code")),
        )
        for match in _FENCE.finditer(text)
    ]


class ExampleError(Exception):
    """A block of a document does not do what the document says."""


def shell_lines(code: str) -> list[list[str]]:
    """The words of each command, with continued lines joined and comments left out."""
    joined = code.replace("\\\n", " ")
    return [words for line in joined.splitlines() if (words := shlex.split(line, comments=True))]


def check_options(words: list[str]) -> None:
    """Checks that rsicd-embed has a command and its options, without running it.

    Raises:
        ExampleError: there is no such command or option.
    """
    command: click.Command = program
    parent = None
    rest = list(words)
    try:
        while isinstance(command, click.Group) and rest and rest[0] in command.commands:
            settings = command.context_settings
            parent = click.Context(command, parent=parent, info_name=command.name, **settings)
            command = command.commands[rest.pop(0)]
        if isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
            raise ExampleError(f"{shlex.join(words)}: no command {rest[0]}")
        with _every_path_exists():
            command.make_context(command.name, rest, parent=parent)
    except click.ClickException as error:
        raise ExampleError(f"{shlex.join(words)}: {error.format_message()}") from error


def check_other_command(words: list[str]) -> None:
    """Checks a command that is not rsicd-embed's: pip, make, git clone, or a script of ours.

    Raises:
        ExampleError: there is no such extra, target or script.
    """
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))
    line = shlex.join(words)
    if words[0] == "make":
        makefile = (PROJECT / "Makefile").read_text(encoding="utf-8")
        targets = [word for word in words[1:] if "=" not in word]
        for target in targets:
            require(f"\n{target}:" in makefile, f"{line}: no target {target}")
    elif words[:2] == ["pip", "install"]:
        for extras in re.findall(r"\[([\w,]+)\]", line):
            for extra in extras.split(","):
                known = project["project"]["optional-dependencies"]
                require(extra in known or "jax" in line, f"{line}: no extra {extra}")
    elif Path(words[0]).name in ("python", "python3"):
        name = words[2].replace(".", "/") + ".py" if words[1] == "-m" else words[1]
        if words[1:3] != ["-m", "venv"]:
            path = PROJECT / name
            require(path.is_file(), f"{line}: no {name}")
            text = path.read_text(encoding="utf-8")
            for option in (word for word in words if re.fullmatch("--[a-z][a-z-]+", word)):
                require(f'"{option}"' in text, f"{line}: {name} has no {option}")
    else:
        known_commands = ("git", "cd", "source", "bash")
        require(words[0] in known_commands, f"expected a command that is checked, found {line!r}")


def check_toml(block: Block) -> None:
    """Parses TOML; it must be training settings, part of a pyproject.toml, or a `file`.

    Raises:
        TrainError: a setting is unknown or has a wrong value.
    """
    from rsicd_embed.train.config import defaults
    from rsicd_embed.train.config.parse import read, replaced

    settings = tomllib.loads(block.code)
    if "project" not in settings and not block.after("file"):
        Path("settings.toml").write_text(block.code, encoding="utf-8")
        replaced(defaults(None), read("settings.toml"))


@contextlib.contextmanager
def _every_path_exists() -> Iterator[None]:
    """Lets options that name files pass that do not exist here."""
    convert = click.Path.convert
    try:
        click.Path.convert = lambda self, value, param, ctx: value  # type: ignore[method-assign]
        yield
    finally:
        click.Path.convert = convert  # type: ignore[method-assign]


def require(condition: bool, message: str) -> None:
    """Raises ExampleError with the message unless the condition holds."""
    if not condition:
        raise ExampleError(message)
