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

from rsicd_embed.cli.argument_checks import require_meaning
from rsicd_embed.cli.links import link
from rsicd_embed.embedder.clip.backends.engine_names import BACKENDS, PRECISIONS
from rsicd_embed.errors import RsicdEmbedError
from rsicd_embed.json_output import as_json

if TYPE_CHECKING:
    from rsicd_embed.datasets.base import Skipped

F = TypeVar("F", bound=Callable[..., Any])

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
    from rsicd_embed.datasets.unread import describe

    if unread:
        note(f"{sum(unread.values()):,} files were not read: {describe(unread)}")
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
    warn(" ".join(str(message).split()))


def _one_line(error: Exception) -> str:
    text = _with_short_words(" ".join(str(error).split()))
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
    click.echo(as_json(document))


def printable(text: str) -> str:
    """One line of text in which nothing steers the terminal: a newline becomes `\\n`, and so on."""
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode() for one in text
    )


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
