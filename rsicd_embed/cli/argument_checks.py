"""Arguments of any command that click would silently take for something else."""

from __future__ import annotations

import click

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
