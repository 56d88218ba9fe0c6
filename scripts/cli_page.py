"""Writes the reference page of the command line from the click commands."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

import click

_INTRODUCTION = """# Command line

This page is generated from the commands; `rsicd-embed COMMAND --help` prints the same.

- **Output.** `--json` prints one JSON document on stdout; progress, warnings and notes go to
  stderr.
- **Exit status.** 0: done. 1: failed, with one line that says why. 2: wrong usage.
- **Store URIs** are `lancedb:PATH[#table]`, `nmslib:PATH` or `exact:PATH` ([Stores](stores.md)).
"""


def page(program: click.Group, name: str) -> str:
    """The reference page as Markdown.

    Args:
        program: the command with all its subcommands.
        name: how it is called.
    """
    context = click.Context(program, info_name=name, **program.context_settings)
    parts = [_INTRODUCTION]
    for command in sorted(program.commands):
        parts += _sections(program.commands[command], context, level=2)
    return "\n".join(parts)


def _sections(command: click.Command, parent: click.Context, level: int) -> Iterator[str]:
    """The section of a command, then those of its subcommands."""
    context = click.Context(command, info_name=command.name, parent=parent)
    yield f"{'#' * level} {context.command_path}\n"
    yield f"{_text(command.help or '')}\n"
    usage = " ".join(command.collect_usage_pieces(context))
    yield f"```text\n{context.command_path} {usage}\n```\n"
    records = [
        record
        for parameter in command.get_params(context)
        if (record := parameter.get_help_record(context))
        and isinstance(parameter, click.Option)
        and "--help" not in parameter.opts
    ]
    if records:
        yield "| option | description |\n| --- | --- |"
        for names, text in records:
            cell = " ".join(text.split()).replace("|", "\\|")
            yield f"| {_options(names)} | {_code(cell)} |"
        yield ""
    if isinstance(command, click.Group):
        for name in sorted(command.commands):
            yield from _sections(command.commands[name], context, level + 1)


def _options(names: str) -> str:
    """`-o, --output FILE` → both names, each as code that does not break."""
    return f"`{names}`".replace("|", "\\|")


def _text(text: str) -> str:
    """A help text as Markdown: paragraphs, and lines marked with \\b as a code block."""
    paragraphs = inspect.cleandoc(text).split("\n\n")
    return "\n\n".join(
        f"```text\n{paragraph.removeprefix(chr(8)).strip(chr(10))}\n```"
        if paragraph.startswith("\b")
        else _code(paragraph)
        for paragraph in paragraphs
    )


def _code(text: str) -> str:
    """Marks options as code, and escapes what Markdown would read as HTML or a link."""
    text = text.replace("<", "&lt;").replace("[", "\\[")
    return re.sub(r"(?<![\w`-])(--[a-z][a-z-]+)(?![\w`])", r"`\1`", text)
