"""What every command shares: options, errors in one line, and output."""

from __future__ import annotations

import re
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from rsicd_embed.cli.terminal_text import link, printable
from rsicd_embed.embedder.clip.backends import BACKENDS, PRECISIONS
from rsicd_embed.errors import RsicdEmbedError, one_line
from rsicd_embed.json_output import as_json as json_bytes

if TYPE_CHECKING:
    from rsicd_embed.datasets.base import Skipped

F = TypeVar("F", bound=Callable[..., Any])

# Published models, and all that can be trained from nothing; named here so that `--help` is quick.
PUBLISHED_SHAPES = ("vit-b-32", "vit-b-16", "vit-l-14", "vit-l-14-336")
SHAPES = ("tiny", "small", *PUBLISHED_SHAPES)
# The keys of `datasets.column_types.DECLARABLE`.
COLUMN_TYPES = ("text", "int64", "float64", "bool", "timestamp", "date")

store_option = click.option(
    "--store",
    "store_uri",
    required=True,
    metavar="URI",
    help="lancedb:PATH[#table], nmslib:PATH or exact:PATH.",
)
json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON document, and nothing else, on stdout."
)


as_of_option = click.option(
    "--as-of", metavar="VERSION", help="Look at an older state: a tag, or a number."
)


def model_option(default: str) -> Callable[[F], F]:
    """`--model`, with what is taken when it is not given."""
    return click.option(
        "--model",
        metavar="MODEL",
        help=f"A Hugging Face id or a directory in its CLIP layout. [default: {default}]",
    )


precision_option = click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    help="What the model computes in.  [default: float32 on a CPU, bfloat16 elsewhere]",
)
backend_option = click.option(
    "--backend",
    type=click.Choice(BACKENDS),
    help="What the model runs on; openvino is the fastest on a CPU.  [default: jax]",
)
batch_size_option = click.option(
    "--batch-size",
    default=64,
    show_default=True,
    type=click.IntRange(1),
    help="Images embedded at once.",
)


def _column_types(
    context: click.Context, parameter: click.Parameter, given: tuple[str, ...]
) -> dict[str, str]:
    """`NAME=TYPE`, repeated → type by name."""
    types: dict[str, str] = {}
    for text in given:
        name, _, kind = text.rpartition("=")
        if not name or kind not in COLUMN_TYPES:
            raise click.BadParameter(
                f"expected NAME=TYPE with a TYPE of {', '.join(COLUMN_TYPES)}, found {text!r}"
            )
        if types.setdefault(name, kind) != kind:
            raise click.BadParameter(f"{name!r} is given as {types[name]} and as {kind}")
    return types


column_types_option = click.option(
    "--column-type",
    "column_types",
    metavar="NAME=TYPE",
    multiple=True,
    callback=_column_types,
    help=f"Read a column of a manifest as TYPE: {', '.join(COLUMN_TYPES)}; repeatable. Dates and "
    "times are text unless given here.",
)


def embedding_options(command: F) -> F:
    """What every command that embeds images takes: sources, model, how, and `--json`."""
    for option in (
        json_option,
        precision_option,
        backend_option,
        batch_size_option,
        click.option("--strict", is_flag=True, help="Fail on the first image that cannot be read."),
        column_types_option,
        click.option("--split", help="Only the images that the source puts in this split."),
        model_option("the bundled model"),
        click.argument("sources", nargs=-1, required=True, type=click.Path(path_type=Path)),
    ):
        command = option(command)
    return command


def tell_skipped(skipped: Iterable[Skipped]) -> None:
    """A line for each image that was left out."""
    for one in skipped:
        note(f"skipped {one.uri}: {one.reason}")


def report_source(unread: Mapping[str, int], notes: Iterable[str]) -> None:
    """A line for files of formats that are not read, and one for each note on a source."""
    from rsicd_embed.datasets.folder import describe_unread

    if unread:
        note(f"{sum(unread.values()):,} files were not read: {describe_unread(unread)}")
    for line in notes:
        note(f"note: {line}")


_debug_option = click.Option(
    ["--debug"],
    is_flag=True,
    expose_value=False,
    is_eager=True,
    help="Show the traceback of a failure.",
    callback=lambda context, option, on: (
        context.find_root().meta.update(debug=True) if on else None
    ),
)


class Group(click.Group):
    """A group whose commands fail with one line and status 1."""

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        """Gives each command `--debug`."""
        cmd.params.append(_debug_option)
        super().add_command(cmd, name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Finds a command; refuses what no command can mean, see `require_meaning`."""
        name, command, rest = super().resolve_command(ctx, args)
        if command is not None and not ctx.resilient_parsing:
            settings = command.context_settings
            context = click.Context(command, parent=ctx, info_name=name, **settings)
            require_meaning(context, rest)
        return name, command, rest

    def invoke(self, ctx: click.Context) -> Any:
        """Runs a command; what it raises is told in one line, or in full with `--debug`."""
        try:
            with warnings.catch_warnings():
                warnings.showwarning = _tell_warning
                # Pillow warns of odd metadata without naming the file, and reads on.
                warnings.filterwarnings("ignore", module=r"PIL\b")
                return super().invoke(ctx)
        except click.ClickException as error:
            error.message = _with_short_words(error.message)  # type: ignore[misc]
            raise
        except (click.exceptions.Exit, BrokenPipeError):
            raise
        except (KeyboardInterrupt, click.Abort):
            click.echo("interrupted; run the same command again to go on", err=True)
            ctx.exit(130)
        except Exception as error:
            if ctx.meta.get("debug"):
                traceback.print_exc()
            note(f"error: {_one_line(error)}")
            ctx.exit(1)


def _tell_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    warn(one_line(message))


def _one_line(error: Exception) -> str:
    text = _with_short_words(one_line(error, empty=""))
    if isinstance(error, RsicdEmbedError):
        return text
    if isinstance(error, MemoryError):
        return f"not enough memory ({text or 'no message'}); use smaller numbers, or less at once"
    if isinstance(error, UnicodeEncodeError):  # bytes of an argument that are not UTF-8
        wrong = error.object[max(0, error.start - 20) : error.end]
        return f"expected names and texts in UTF-8, found {wrong!r}"
    if isinstance(error, OSError) and error.strerror:  # the system's refusal is no surprise
        place = _with_short_words(f"{error.filename}: " if error.filename else "")
        return f"{place}{error.strerror}"
    return f"unexpected {type(error).__name__}: {text or 'no message'} (--debug shows where)"


def _with_short_words(text: str) -> str:
    """A message in which no word, a wrong value perhaps, is longer than a line or two."""
    return re.sub(r"\S{200,}", lambda word: f"{word[0][:120]}…{word[0][-20:]}", text)


def print_json(document: Any) -> None:
    """One JSON document on stdout; see `as_json`."""
    click.echo(json_bytes(document))


def show(text: str, *, uri: str | None = None) -> None:
    """A line of the result on stdout; what its encoding lacks is escaped.

    It ends with `uri`, if there is one: a link to the file where the terminal shows links.
    """
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    line = printable(text)
    if uri:
        line += f"  {link(uri, printable(uri))}"
    click.echo(line.encode(encoding, "backslashreplace").decode(encoding))


def note(text: str) -> None:
    """A line for the person at the terminal, on stderr."""
    click.echo(printable(text), err=True)


def warn(text: str) -> None:
    """A line on stderr about a result that may mislead."""
    note(f"warning: {text}")


def on_terminal() -> bool:
    """Whether stderr is a terminal."""
    return sys.stderr.isatty()


_LARGEST = 2**32 - 1  # of any whole number on the command line


def require_meaning(context: click.Context, args: list[str]) -> None:
    """Refuses arguments that click takes for something else than they say.

    Raises:
        UsageError: an option that has one value is given twice, and the last would be used; an
            empty path, which would be the current folder; a huge number; a null character.
    """
    values, _, given = context.command.make_parser(context).parse_args(list(args))
    if context.command.get_help_option(context) in given:
        return
    if any("\0" in one for one in args):
        raise click.UsageError("expected arguments without null characters", context)
    for parameter in context.command.params:
        value = values.get(str(parameter.name))
        given_values = value if isinstance(value, tuple | list) else (value,)
        if isinstance(parameter.type, click.Path) and "" in given_values:
            raise click.BadParameter("expected a path, found an empty text", context, parameter)
        if isinstance(parameter.type, click.types.IntParamType) and any(
            map(_is_huge, given_values)
        ):
            raise click.BadParameter(f"expected at most {_LARGEST}", context, parameter)
    for option in dict.fromkeys(given):
        if not isinstance(option, click.Option) or option.multiple or option.count:
            continue
        if option.is_flag and not option.secondary_opts:
            continue  # given twice, it says the same
        if given.count(option) > 1:
            raise click.UsageError(
                f"{'/'.join(option.opts)} takes one value, found {given.count(option)}", context
            )


def _is_huge(value: object) -> bool:
    """Whether a text is a whole number that is too large to count anything."""
    try:
        return abs(int(str(value))) > _LARGEST
    except ValueError:
        return False


def save_and_show(
    run: Mapping[str, Any],
    output: Path | None,
    name: str,
    lines: Callable[[Any], list[str]],
    *,
    as_json: bool,
) -> Path | None:
    """Saves a record and its page of plots, and prints its results on stdout.

    Args:
        run: the record.
        output: folder of the record; None saves nothing.
        name: what the record's file is named after.
        lines: from the record to its results in words.
        as_json: print the record as JSON instead.

    Returns:
        The record's file, None if none was saved.
    """
    saved: dict[str, Path] = {}
    if output is not None:
        from rsicd_embed.reports import record, write

        saved["record"] = record.save(output, name, run)
        saved["report"] = write.beside(saved["record"], run)
    if as_json:
        print_json(run)
    else:
        for line in [*lines(run), *(f"{kind}: {path}" for kind, path in saved.items())]:
            show(line)
    return saved.get("record")
