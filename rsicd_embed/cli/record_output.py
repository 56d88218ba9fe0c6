"""Commands that produce a record: their shared options, and how a record is saved and printed."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from rsicd_embed.cli.base import F, count_option, note, print_json, show

if TYPE_CHECKING:
    from rsicd_embed.reports.machine import CpuTimes
    from rsicd_embed.reports.record_types import RunRecord

RecordT = TypeVar("RecordT", bound="RunRecord")

_ARGUMENTS = "rsicd_embed.arguments"
_CPU_TIMES = "rsicd_embed.cpu_times"

seed_option = count_option("--seed", default=0, least=0, help="Random seed.")


def output_option(*, required: bool = False) -> Callable[[F], F]:
    """`--output`, the folder of the record."""
    return click.option(
        "-o",
        "--output",
        required=required,
        type=click.Path(file_okay=False, path_type=Path),
        help="Folder for the record, a JSON file, and its HTML page.",
    )


class Recorded(click.Command):
    """A command that remembers its arguments as typed, and the CPU times at its start."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Remembers the arguments for `command_line`."""
        ctx.meta[_ARGUMENTS] = list(args)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Remembers the CPU times for `cpu_times_at_start`."""
        from rsicd_embed.reports.machine import CpuTimes

        ctx.meta[_CPU_TIMES] = CpuTimes.now()
        return super().invoke(ctx)


def cpu_times_at_start() -> CpuTimes | None:
    """The CPU times when the current command started; None if they could not be read."""
    times: CpuTimes | None = click.get_current_context().meta[_CPU_TIMES]
    return times


def command_line() -> str:
    """The current command as typed, without `--output` and `--json`."""
    context = click.get_current_context()
    words = ["rsicd-embed", *context.command_path.split()[1:]]
    arguments = iter(context.meta[_ARGUMENTS])
    for word in arguments:
        if word in ("-o", "--output"):
            next(arguments, None)
        elif word != "--json" and not word.startswith(("-o", "--output=")):
            words.append(word)
    return shlex.join(words)


def finish(
    run: RecordT,
    output: Path | None,
    name: str,
    lines: Callable[[RecordT], list[str]],
    *,
    as_json: bool,
) -> None:
    """Saves a record with its page, and prints its results on stdout.

    Args:
        run: the record.
        output: folder of the record; None to save nothing.
        name: file name of the record, without suffix.
        lines: formats the results as text.
        as_json: print the record as JSON instead.

    Raises:
        click.Abort: the run was interrupted; its record is saved nevertheless.
    """
    saved: dict[str, Path] = {}
    if output is not None:
        from rsicd_embed.reports import record, record_pages

        saved["record"] = record.save(output, name, run)
        page = saved["record"].with_suffix(".html")
        saved["report"] = record_pages.save(page, [run])
    if as_json:
        print_json(run)
    else:
        for line in [*lines(run), *(f"{kind}: {path}" for kind, path in saved.items())]:
            show(line)
    if not run.get("complete", True):
        note(f"results up to the interruption are in {saved.get('record')}")
        raise click.Abort
