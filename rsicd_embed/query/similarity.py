"""Calls of `similarity('…')` and `similarity_image('…')` in a SQL query: parsing and scoring."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from rsicd_embed.embedder.base import Embedder
from rsicd_embed.errors import SQLError
from rsicd_embed.query.composed import (
    AVOIDED_EXAMPLE,
    AVOIDED_TEXT,
    WANTED,
    Part,
    Query,
    query_vector,
    require_positive,
)
from rsicd_embed.query.session import function
from rsicd_embed.records import sql_literal, vector_array, vector_matrix
from rsicd_embed.stores.base import VectorStore
from rsicd_embed.stores.scoring import cosines_with, unit_queries

TEXT, IMAGE = "similarity", "similarity_image"
FUNCTIONS = {TEXT: "'a text'", IMAGE: "'image.jpg'"}
# Names of further arguments: kind of the part, and its weight.
_NAMED = {
    "also": ("text", WANTED),
    "not": ("text", AVOIDED_TEXT),
    "image": ("image", WANTED),
    "not_image": ("image", AVOIDED_EXAMPLE),
    "like": ("id", WANTED),
    "unlike": ("id", AVOIDED_EXAMPLE),
}

# Tokens as DataFusion splits them.
_TOKEN = re.compile(
    r"""
      (?P<space>   \s+ | --[^\n]* )
    | (?P<comment> /\* )                               # nested: `_end_of_comment` finds its end
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
        function: name of the function.
        argument: the text, or the path of the image; all arguments as written if there are several.
        parts: the texts, images and rows to compare with.
        start, end: position of the arguments in the SQL text.
    """

    function: str
    argument: str
    parts: tuple[Part, ...]
    start: int
    end: int

    @property
    def literal(self) -> str:
        """The argument as a SQL literal."""
        return sql_literal(self.argument)

    @property
    def shown(self) -> str:
        """The call as the user wrote it."""
        return f"{self.function}({self.literal if len(self.parts) == 1 else self.argument})"


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    end: int

    @property
    def name(self) -> str:
        """The name in the token, folded as DataFusion does; "" if it is not a name."""
        if self.kind == "word":
            return self.text.lower()
        return self.text[1:-1] if self.kind == "quoted" else ""


def find_calls(query: str) -> list[Call]:
    """Finds the calls in a query in order, ignoring strings, quoted names and comments.

    Raises:
        SQLError: a call whose arguments are not string literals, with names after the first.
        QueryError: a text is blank, or there is nothing to look for.
    """
    tokens = list(_tokens(query))
    calls = []
    for index, token in enumerate(tokens):
        following = [token.text for token in tokens[index + 1 : index + 2]]
        qualified = index > 0 and tokens[index - 1].text == "."
        if token.name in FUNCTIONS and following == ["("] and not qualified:
            start = tokens[index + 1].end
            arguments = _arguments(token.name, tokens[index + 2 :])
            end = arguments[-1].end
            kind = "text" if token.name == TEXT else "image"
            first = Part.parse(kind, arguments[0].value)
            rest = (
                Part.parse(_NAMED[a.name][0], a.value, _NAMED[a.name][1]) for a in arguments[1:]
            )
            parts = (first, *rest)
            require_positive(parts)
            argument = arguments[0].value if len(parts) == 1 else query[start:end].strip()
            calls.append(Call(token.name, argument, parts, start, end))
    return calls


def with_literals(query: str, calls: Sequence[Call], column: str | None = None) -> str:
    """Replaces the arguments of each call by one literal, and a column before it if given."""
    pieces, end = [], 0
    for call in calls:
        pieces += [query[end : call.start], f'"{column}", ' if column else "", call.literal]
        end = call.end
    return "".join([*pieces, query[end:]])


@dataclass(frozen=True)
class _Argument:
    name: str
    value: str
    end: int


def _arguments(name: str, tokens: Sequence[_Token]) -> list[_Argument]:
    """The arguments of a call; `tokens` are those after its opening parenthesis."""
    arguments: list[_Argument] = []
    place = 0
    while True:
        key = ""
        if arguments:
            key = tokens[place].text.lower() if tokens[place:] else ""
            arrow = "".join(token.text for token in tokens[place + 1 : place + 3])
            if key not in _NAMED or arrow != "=>":
                named = ", ".join(f"{known} => '…'" for known in _NAMED)
                raise SQLError(
                    f"expected further arguments of {name} by name, from {named}; found {key[:60]}"
                )
            place += 3
        value, after = tokens[place : place + 1], tokens[place + 1 : place + 2]
        if not (value and value[0].kind == "string" and after and after[0].text in (",", ")")):
            raise _not_a_string(name, tokens[place : place + 2])
        arguments.append(_Argument(key, value[0].text[1:-1].replace("''", "'"), value[0].end))
        if after[0].text == ")":
            return arguments
        place += 2


def _not_a_string(name: str, tokens: Sequence[_Token]) -> SQLError:
    hint = "; double quotes are for names" if tokens and tokens[0].text.startswith('"') else ""
    return SQLError(
        f"expected {name}({FUNCTIONS[name]}), with one string in single quotes, "
        f"found {name}({' '.join(token.text for token in tokens)[:60]}…{hint}"
    )


def _tokens(query: str) -> Iterator[_Token]:
    """All tokens except spaces and comments, up to an unterminated string or comment."""
    end = 0
    while end < len(query):
        match = _TOKEN.match(query, end)
        assert match is not None  # `other` matches any character
        kind, end = str(match.lastgroup), match.end()
        if match["literal"] is not None:
            kind = "literal"
        if kind == "comment":
            end = _end_of_comment(query, end)
        elif match[0] in ("'", '"', "`"):
            return
        elif kind != "space":
            yield _Token(kind, match[0], end)


def _end_of_comment(query: str, start: int) -> int:
    depth = 1
    for match in re.compile(r"/\*|\*/").finditer(query, start):
        depth += 1 if match[0] == "/*" else -1
        if not depth:
            return match.end()
    return len(query)


class Similarities:
    """The distinct texts, images and composed queries that rows are scored against.

    Args:
        calls: the calls in the query.
        dim: length of a vector.
        of_scores: whether the vector column that SQL sees contains a row's scores instead of its
            vector.
    """

    def __init__(self, calls: Sequence[Call], dim: int, *, of_scores: bool) -> None:
        self._parts = {(call.function, call.argument): call.parts for call in calls}
        self._indices = {target: index for index, target in enumerate(self._parts)}
        self._queries = np.zeros((len(self._parts), dim))
        self.of_scores = of_scores
        self.type = pa.list_(pa.float32(), len(self._parts) if of_scores else dim)

    @property
    def texts(self) -> list[str]:
        """The distinct texts."""
        parts = (part for parts in self._parts.values() for part in parts)
        return list(dict.fromkeys(part.text for part in parts if part.text is not None))

    def embed(self, store: VectorStore, embedder: Callable[[], Embedder]) -> None:
        """Makes the vectors to compare with; to be called before rows are read."""
        # One at a time, like `search`, as the last bits of a batch may differ.
        vectors = [query_vector(Query(parts), store, embedder) for parts in self._parts.values()]
        self._queries = unit_queries(np.stack(vectors), self._queries.shape[1])

    def column(self, vectors: pa.Array) -> pa.Array:
        """Replaces each vector by the list of its scores with all texts and images."""
        matrix = vector_matrix(vectors)
        scores = [cosines_with(matrix, query) for query in self._queries]
        return vector_array(np.stack(scores, axis=1))

    def functions(self) -> list[Any]:
        """The SQL functions of a vector column (or scores) and a string."""
        return [
            function(name, partial(self._score, name), [self.type, pa.string()])
            for name in FUNCTIONS
        ]

    def _score(self, name: str, rows: pa.Array, arguments: pa.Array) -> pa.Array:
        valid = np.asarray(rows.is_valid())
        scores = np.zeros(len(rows), dtype=np.float32)
        if valid.any():  # outer joins produce rows without a vector
            matrix = vector_matrix(rows.drop_null())
            index = self._indices[name, arguments[0].as_py()]
            scores[valid] = (
                matrix[:, index] if self.of_scores else cosines_with(matrix, self._queries[index])
            )
        return pa.array(scores, mask=~valid)


def placeholders() -> list[Any]:
    """The SQL functions as users call them, with a string only, to plan a query."""

    def never(arguments: pa.Array) -> pa.Array:
        raise AssertionError("a placeholder is not computed")

    return [function(name, never, [pa.string()], volatile=True) for name in FUNCTIONS]
