"""Options, error handling and output that all commands share."""

from __future__ import annotations

import re
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from rsicd_embed.cli.scene_options import SCENE_OPTIONS, with_tiling
from rsicd_embed.cli.terminal_text import link, printable
from rsicd_embed.embedder.clip.backends import BACKENDS, PRECISIONS
from rsicd_embed.errors import RsicdEmbedError, one_line
from rsicd_embed.json_output import as_json as json_bytes

if TYPE_CHECKING:
    from rsicd_embed.datasets.base import Skipped

F = TypeVar("F", bound=Callable[..., Any])

# The keys of `datasets.column_types.DECLARABLE`.
COLUMN_TYPES = ("text", "int64", "float64", "bool", "timestamp", "date")
_LARGEST = 2**32 - 1  # for any whole number on the command line
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


def count_option(*names: str, default: int, help: str, least: int = 1) -> Callable[[F], F]:
    """An option for a whole number of at least `least`, which shows its default."""
    kind = click.IntRange(least)
    return click.option(*names, default=default, show_default=True, type=kind, help=help)


store_option = click.option(
    "--store",
    "store_uri",
    required=True,
    metavar="URI",
    help="Store: lancedb:PATH[#table], nmslib:PATH or exact:PATH.",
)
json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print the result on stdout as one JSON document."
)
as_of_option = click.option(
    "--as-of", metavar="VERSION", help="Read an earlier version of the store: a tag or a number."
)
precision_option = click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    help="Floating-point type of the model.  [default: bfloat16 where few hits change]",
)
backend_option = click.option(
    "--backend",
    type=click.Choice(BACKENDS),
    help="Engine that runs the model; auto is the fastest on this machine.  [default: auto]",
)
batch_size_option = count_option("--batch-size", default=64, help="Images per batch.")
ACTIVATION = click.Choice(["quick_gelu", "gelu"])


def model_option(default: str | None, *, required: bool = False) -> Callable[[F], F]:
    """Returns `--model` and `--activation`, which becomes a part of the model's name.

    Args:
        default: the model used when it is not given, for the help; None for none.
        required: whether it must be given.
    """
    model = click.option(
        "--model",
        metavar="MODEL",
        required=required,
        callback=_with_activation,
        help="Hugging Face id, model directory or checkpoint file."
        + (f"  [default: {default}]" if default else ""),
    )
    activation = click.option(
        "--activation",
        type=ACTIVATION,
        is_eager=True,
        expose_value=False,
        callback=_remember_activation,
        help="Activation function, for checkpoint files that do not specify it.",
    )
    return lambda command: model(activation(command))


def _remember_activation(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> None:
    context.meta["rsicd_embed.activation"] = value


def _with_activation(
    context: click.Context, parameter: click.Parameter, model: str | None
) -> str | None:
    return with_activation(model, context.meta.get("rsicd_embed.activation"), "--model")


def with_activation(model: str | None, activation: str | None, option: str) -> str | None:
    """The model's name with its activation, if there is one; UsageError without a model."""
    if activation is None:
        return model
    if model is None:
        raise click.UsageError(f"expected {option} with --activation, found none")
    return f"{model}?activation={activation}"


def _column_types(
    context: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> dict[str, str]:
    """Parses repeated `NAME=TYPE` into types by column name."""
    types: dict[str, str] = {}
    for text in values:
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
    help=f"Type of a manifest's column: {', '.join(COLUMN_TYPES)}; repeatable. Dates and times are "
    "read as text unless declared.",
)


class SourcePath(click.ParamType):  # type: ignore[type-arg]
    """A path, or a URL, whose slashes `Path` would lose."""

    name = "path"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> str | Path:
        """Returns URLs as text."""
        return str(value) if _ADDRESS.match(str(value)) else Path(value)


def embedding_options(command: Callable[..., None]) -> Callable[..., None]:
    """Adds the arguments of commands that embed images: sources, model, engine and `--json`."""
    command = with_tiling(command)
    for option in (
        json_option,
        precision_option,
        backend_option,
        batch_size_option,
        *SCENE_OPTIONS[::-1],
        click.option("--strict", is_flag=True, help="Fail on the first unreadable image."),
        column_types_option,
        click.option("--split", help="Use only images of this split.  [default: all images]"),
        model_option("the bundled model"),
        click.argument("sources", nargs=-1, required=True, type=SourcePath()),
    ):
        command = option(command)
    return command


_debug_option = click.Option(
    ["--debug"],
    is_flag=True,
    expose_value=False,
    is_eager=True,
    help="Show a traceback when the command fails.",
    callback=lambda context, option, on: (
        context.find_root().meta.update(debug=True) if on else None
    ),
)


class Group(click.Group):
    """A group of commands that fail with one line on stderr and exit status 1."""

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        """Adds a command, with `--debug`."""
        cmd.params.append(_debug_option)
        super().add_command(cmd, name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Resolves a command and checks its arguments; see `_check_arguments`."""
        name, command, rest = super().resolve_command(ctx, args)
        if command is not None and not ctx.resilient_parsing:
            settings = command.context_settings
            context = click.Context(command, parent=ctx, info_name=name, **settings)
            _check_arguments(context, rest)
        return name, command, rest

    def invoke(self, ctx: click.Context) -> Any:
        """Runs a command and prints its errors in one line, or in full with `--debug`."""
        try:
            with warnings.catch_warnings():
                warnings.showwarning = _show_warning
                # Pillow warns about odd metadata without naming the file, and reads it anyway.
                warnings.filterwarnings("ignore", module=r"PIL\b")
                return super().invoke(ctx)
        except click.ClickException as error:
            error.message = _shorten_words(error.message)  # type: ignore[misc]
            raise
        except (click.exceptions.Exit, BrokenPipeError):
            raise
        except (KeyboardInterrupt, click.Abort):
            click.echo("interrupted; run the same command again to continue", err=True)
            ctx.exit(130)
        except Exception as error:
            if ctx.meta.get("debug"):
                traceback.print_exc()
            note(f"error: {_one_line(error)}")
            ctx.exit(1)


def _check_arguments(context: click.Context, args: list[str]) -> None:
    """Refuses arguments that click would accept but misread.

    Raises:
        UsageError: a single-valued option is repeated (click would use the last value), a path is
            empty (click would use the current folder), a number is huge, or a text contains a null
            character.
    """
    values, _, parameters = context.command.make_parser(context).parse_args(list(args))
    if context.command.get_help_option(context) in parameters:
        return
    if any("\0" in arg for arg in args):
        raise click.UsageError("expected arguments without null characters", context)
    for parameter in context.command.params:
        value = values.get(str(parameter.name))
        texts = value if isinstance(value, tuple | list) else (value,)
        if isinstance(parameter.type, click.Path | SourcePath) and "" in texts:
            raise click.BadParameter("expected a path, found an empty text", context, parameter)
        if isinstance(parameter.type, click.types.IntParamType) and any(map(_is_huge, texts)):
            raise click.BadParameter(f"expected at most {_LARGEST}", context, parameter)
    for option in dict.fromkeys(parameters):
        if not isinstance(option, click.Option) or option.multiple or option.count:
            continue
        if option.is_flag and not option.secondary_opts:
            continue  # repeating a flag changes nothing
        if (count := parameters.count(option)) > 1:
            raise click.UsageError(
                f"{'/'.join(option.opts)} takes one value, found {count}", context
            )


def _is_huge(value: object) -> bool:
    try:
        return abs(int(str(value))) > _LARGEST
    except ValueError:
        return False


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    warn(one_line(message))


def _one_line(error: Exception) -> str:
    text = _shorten_words(one_line(error, empty=""))
    if isinstance(error, RsicdEmbedError):
        return text
    if isinstance(error, MemoryError):
        return f"not enough memory ({text or 'no message'}); use smaller numbers or smaller batches"
    if isinstance(error, UnicodeEncodeError):  # an argument that is not UTF-8
        wrong = error.object[max(0, error.start - 20) : error.end]
        return f"expected names and texts in UTF-8, found {wrong!r}"
    if isinstance(error, OSError) and error.strerror:  # raised by the operating system
        place = _shorten_words(f"{error.filename}: " if error.filename else "")
        return f"{place}{error.strerror}"
    return f"unexpected {type(error).__name__}: {text or 'no message'} (--debug shows where)"


def _shorten_words(text: str) -> str:
    """Shortens words of 200 or more characters, such as a wrong value that a message quotes."""
    return re.sub(r"\S{200,}", lambda word: f"{word[0][:120]}…{word[0][-20:]}", text)


def require_text(text: str) -> None:
    """Raises a UsageError if a query text is blank or not UTF-8."""
    if not text.strip():
        raise click.UsageError("expected a text, found an empty one")
    if text.encode("utf-8", "replace").decode() != text:
        raise click.UsageError(f"expected a text in UTF-8, found {text!r}")


def print_json(document: Any) -> None:
    """Prints one JSON document on stdout."""
    click.echo(json_bytes(document))


def show(text: str, *, uri: str | None = None) -> None:
    """Prints a line of the result on stdout, escaping what its encoding lacks.

    Args:
        text: the line.
        uri: a file printed at the end of the line, as a link where the terminal supports links.
    """
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    line = printable(text)
    if uri:
        line += f"  {link(uri, printable(uri))}"
    click.echo(line.encode(encoding, "backslashreplace").decode(encoding))


def note(text: str) -> None:
    """Prints a line of information on stderr."""
    click.echo(printable(text), err=True)


def warn(text: str) -> None:
    """Prints a warning about the result on stderr."""
    note(f"warning: {text}")


def on_terminal() -> bool:
    """Whether stderr is a terminal."""
    return sys.stderr.isatty()


def report_skipped(skipped: Iterable[Skipped]) -> None:
    """Prints a line on stderr for each image that was skipped."""
    for item in skipped:
        note(f"skipped {item.uri}: {item.reason}")


def report_source(unread: Mapping[str, int], notes: Iterable[str]) -> None:
    """Prints on stderr how many files have unsupported formats, and notes about a source."""
    from rsicd_embed.datasets.folder import describe_unread

    if unread:
        note(f"{sum(unread.values()):,} files were not read: {describe_unread(unread)}")
    for line in notes:
        note(f"note: {line}")
