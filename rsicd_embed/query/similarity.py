"""`similarity('…')` and `similarity_image('…')` in a SQL query: found, embedded and scored."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from rsicd_embed.embedder.base import Embedder
from rsicd_embed.errors import SQLError
from rsicd_embed.query.session import function
from rsicd_embed.records import vector_array, vector_matrix
from rsicd_embed.stores.scoring import cosines_with, unit_queries

TEXT, IMAGE = "similarity", "similarity_image"
FUNCTIONS = {TEXT: "'a text'", IMAGE: "'image.jpg'"}

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
        argument: the text, or the path of the image.
        start: position of the arguments in the SQL text.
    """

    function: str
    argument: str
    start: int


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
        SQLError: a call whose argument is not one string literal.
    """
    tokens = list(_tokens(query))
    calls = []
    for index, token in enumerate(tokens):
        following = [token.text for token in tokens[index + 1 : index + 2]]
        qualified = index > 0 and tokens[index - 1].text == "."
        if token.name in FUNCTIONS and following == ["("] and not qualified:
            argument = _argument(token.name, tokens[index + 2 : index + 4])
            calls.append(Call(token.name, argument, tokens[index + 1].end))
    return calls


def with_first_argument(query: str, calls: Sequence[Call], column: str) -> str:
    """Inserts a column as the first argument of each call."""
    pieces, end = [], 0
    for call in calls:
        pieces += [query[end : call.start], f'"{column}", ']
        end = call.start
    return "".join([*pieces, query[end:]])


def _argument(name: str, tokens: Sequence[_Token]) -> str:
    """The string argument of a call; `tokens` are the two after its parenthesis."""
    if [token.kind for token in tokens[:1]] == ["string"] and tokens[1:] and tokens[1].text == ")":
        return tokens[0].text[1:-1].replace("''", "'")
    hint = "; double quotes are for names" if tokens and tokens[0].text.startswith('"') else ""
    raise SQLError(
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
    """The distinct texts and images of a query, which rows are scored against.

    Args:
        calls: the calls in the query.
        dim: length of a vector.
        of_scores: whether the vector column that SQL sees contains a row's scores instead of its
            vector.
    """

    def __init__(self, calls: Sequence[Call], dim: int, *, of_scores: bool) -> None:
        targets = dict.fromkeys((call.function, call.argument) for call in calls)
        self._indices = {target: index for index, target in enumerate(targets)}
        self._queries = np.zeros((len(targets), dim))
        self.of_scores = of_scores
        self.type = pa.list_(pa.float32(), len(targets) if of_scores else dim)

    @property
    def texts(self) -> list[str]:
        """The distinct texts."""
        return [argument for name, argument in self._indices if name == TEXT]

    def embed(self, embedder: Embedder) -> None:
        """Embeds each text and image; to be called before rows are read."""
        # One at a time, like `search`, as the last bits of a batch may differ.
        vectors = [
            embedder.embed_texts([argument]) if name == TEXT else embedder.embed_images([argument])
            for name, argument in self._indices
        ]
        self._queries = unit_queries(np.concatenate(vectors), self._queries.shape[1])

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
