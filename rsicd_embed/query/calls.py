"""Finds `similarity('…')` and `similarity_image('…')` in a SQL text, read as DataFusion does."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rsicd_embed.errors import SQLError

TEXT, IMAGE = "similarity", "similarity_image"
FUNCTIONS = {TEXT: "'a text'", IMAGE: "'image.jpg'"}

_TOKEN = re.compile(
    r"""
      (?P<space>   \s+ | --[^\n]* )
    | (?P<comment> /\* )                               # they nest: its end is sought by hand
    | (?P<string>  ' (?: [^'] | '' )* ' )
    | (?P<literal> [eE]' (?: [^'\\] | \\. | '' )* '    # with backslash escapes
                 | \$(?P<tag>\w*)\$ .*? \$(?P=tag)\$ ) # $$…$$ and $tag$…$tag$
    | (?P<quoted>  " (?: [^"] | "" )* " | ` (?: [^`] | `` )* ` )
    | (?P<word>    [^\W\d][\w@$\#]* | [@\#][\w@$\#]* )
    | (?P<number>  \d+ (?: \.\d* )? (?: [eE][+-]?\d+ )? )
    | (?P<other>   . )
    """,
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True)
class Call:
    """A call of one of `FUNCTIONS`.

    Attributes:
        function: its name.
        argument: the text or the path that it is given.
        start: where its arguments begin in the SQL text.
    """

    function: str
    argument: str
    start: int


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    end: int


def find(query: str) -> list[Call]:
    """The calls in a query, in their order; none in strings, quoted names or comments.

    Raises:
        SQLError: a call with something else than one string literal.
    """
    tokens = list(_tokens(query))
    found = []
    for index, token in enumerate(tokens):
        name = _name(token)
        after = [one.text for one in tokens[index + 1 : index + 2]]
        qualified = index > 0 and tokens[index - 1].text == "."
        if name in FUNCTIONS and after == ["("] and not qualified:
            argument = _argument(name, tokens[index + 2 : index + 4])
            found.append(Call(name, argument, tokens[index + 1].end))
    return found


def with_first_argument(query: str, calls: Sequence[Call], column: str) -> str:
    """The query with a column as one more argument, the first, of each call."""
    pieces, done = [], 0
    for call in calls:
        pieces += [query[done : call.start], f'"{column}", ']
        done = call.start
    return "".join([*pieces, query[done:]])


def _argument(name: str, tokens: Sequence[_Token]) -> str:
    """The string that a call is given; `tokens` are the two after its parenthesis."""
    if [token.kind for token in tokens[:1]] == ["string"] and tokens[1:] and tokens[1].text == ")":
        return tokens[0].text[1:-1].replace("''", "'")
    hint = "; double quotes are for names" if tokens and tokens[0].text.startswith('"') else ""
    raise SQLError(
        f"expected {name}({FUNCTIONS[name]}), with one string in single quotes, "
        f"found {name}({' '.join(token.text for token in tokens)[:60]}…{hint}"
    )


def _name(token: _Token) -> str:
    """What a token calls, as DataFusion folds names; empty if it is no name."""
    if token.kind == "word":
        return token.text.lower()
    return token.text[1:-1] if token.kind == "quoted" else ""


def _tokens(query: str) -> Iterator[_Token]:
    """All tokens but spaces and comments; none from where a string or a comment does not end."""
    at = 0
    while at < len(query):
        match = _TOKEN.match(query, at)
        assert match is not None  # `other` takes any character
        kind, at = str(match.lastgroup), match.end()
        if match["literal"] is not None:
            kind = "literal"
        if kind == "comment":
            at = _end_of_comment(query, at)
        elif match[0] in ("'", '"', "`"):
            return
        elif kind != "space":
            yield _Token(kind, match[0], at)


def _end_of_comment(query: str, start: int) -> int:
    depth = 1
    for match in re.compile(r"/\*|\*/").finditer(query, start):
        depth += 1 if match[0] == "/*" else -1
        if not depth:
            return match.end()
    return len(query)
