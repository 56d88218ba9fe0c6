"""Finding similarity calls in SQL, but not in strings, names and comments."""

from __future__ import annotations

import pytest
from datafusion import SessionContext
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from rsicd_embed.errors import QueryError, SQLError
from rsicd_embed.query.composed import Part
from rsicd_embed.query.similarity import Call, find_calls, with_literals


def calls_in(query: str) -> list[tuple[str, str]]:
    return [(call.function, call.argument) for call in find_calls(query)]


@pytest.mark.parametrize(
    ("query", "arguments"),
    [
        ("SELECT similarity('a port')", ["a port"]),
        ("SELECT SIMILARITY ( 'it''s' )", ["it's"]),
        ("select similarity/* why /* not */ */('x'/**/) + similarity(--\n'x')", ["x", "x"]),
        ("select avg(similarity('.')) from (select similarity('''') from images)", [".", "'"]),
        ("select \"similarity\"('x'), `similarity`('y')", ["x", "y"]),
        ("select 'similarity(''x'')', \"similarity('x')\", `similarity('x')`", []),
        ("select 1 -- similarity('x')\n, 2 /* similarity('x') /* */ similarity('y') */", []),
        ("select $$similarity('x')$$, $t$ $$ similarity('x')$t$", []),
        ("select E'\\'similarity(''x'')', N'similarity(''x'')'", []),
        ("select 'a\\', similarity('x'), 'b'", ["x"]),
        ("select similarity, a.similarity, images.similarity ('x'), my_similarity('x')", []),
        ("select \"SIMILARITY\"('x'), similarity2('x'), similarity$('x'), @similarity('x')", []),
        ("select similarity('海 \n/*--')", ["海 \n/*--"]),
        ("select 1e5similarity", []),
        ("select similarity", []),
        ("select /* never ends similarity('x')", []),
        ("select 'never ends, similarity(x)", []),
    ],
)
def test_find_calls(query: str, arguments: list[str]) -> None:
    assert calls_in(query) == [("similarity", argument) for argument in arguments]


def test_images_and_positions() -> None:
    query = "SELECT similarity_image('a.png') - similarity( 'b')"
    first, second = find_calls(query)
    assert first == Call(
        "similarity_image",
        "a.png",
        (Part(image="a.png"),),
        query.index("'a.png'"),
        query.index(") -"),
    )
    assert (second.argument, second.start, second.end) == ("b", query.index(" 'b'"), len(query) - 1)
    assert with_literals(query, find_calls(query), "vector") == (
        "SELECT similarity_image(\"vector\", 'a.png') - similarity(\"vector\", 'b')"
    )


def test_further_arguments() -> None:
    query = "SELECT similarity('2*port', NOT => 'it''s', like=>'.5*a' , not_image => 'b.png' ) AS x"
    (call,) = find_calls(query)
    assert call.parts == (
        Part("port", weight=2.0),
        Part("it's", weight=-0.5),
        Part(id="a", weight=0.5),
        Part(image="b.png", weight=-0.25),
    )
    assert call.shown in query.replace(" )", ")")
    assert with_literals(query, [call]) == f"SELECT similarity({call.literal} ) AS x"


@pytest.mark.parametrize(
    "rest",
    ["'b'", "more => 'b'", "not = 'b'", "not 'b'", "not =>", "", "not => 'b', 'c'"],
)
def test_further_arguments_need_a_name(rest: str) -> None:
    with pytest.raises(SQLError, match="similarity"):
        find_calls(f"SELECT similarity('a', {rest}) FROM images")


def test_empty_texts_are_refused() -> None:
    with pytest.raises(QueryError, match="not empty"):
        find_calls("SELECT similarity(' ')")


@pytest.mark.parametrize(
    "call",
    [
        "similarity()", "similarity(label)", "similarity(3)",
        "similarity('a' || 'b')", "similarity(NULL)", "similarity($1)", "similarity(E'a')",
        "similarity(vector, 'a')", "similarity(similarity('a'))", "similarity(lower('a'))",
        "similarity(", "similarity('a'", "similarity($$a$$)", "similarity(*)",
        "similarity(DISTINCT 'a')", "similarity_image(uri)",
    ],
)  # fmt: skip
def test_arguments_other_than_one_string(call: str) -> None:
    name = call.partition("(")[0]
    with pytest.raises(SQLError, match=rf"^expected {name}\('.*'\), with one string in single"):
        find_calls(f"SELECT {call} FROM images")


def test_double_quotes_are_explained() -> None:
    with pytest.raises(SQLError, match="double quotes are for names"):
        find_calls('SELECT similarity("a port") FROM images')


TEXTS = st.text("ab'\"`\\$/*-#@\n; ()similarity", max_size=12)
PIECES = st.one_of(
    TEXTS.map(lambda text: "'" + text.replace("'", "''") + "'"),
    TEXTS.map(lambda text: "E'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"),
    TEXTS.filter(lambda text: "$" not in text).map(lambda text: f"$${text}$$"),
    TEXTS.filter(lambda text: "$" not in text).map(lambda text: f"$q${text}$q$"),
    TEXTS.map(lambda text: "'it''s' || '" + text.replace("'", "''") + "'"),
    TEXTS.map(lambda text: f'1 AS "{text.replace(chr(34), chr(34) * 2)}"'),
)
TRIVIA = st.one_of(
    st.just(" "),
    TEXTS.map(lambda text: "--" + text.replace("\n", "") + "\n"),
    TEXTS.map(lambda text: "/*" + text.replace("/", "").replace("*", "") + "*/"),
    TEXTS.map(lambda text: "/* /*" + text.replace("/", "").replace("*", "") + "*/ ' */"),
)


@settings(max_examples=150, derandomize=True)
@given(st.lists(st.tuples(TRIVIA, PIECES), min_size=1, max_size=6), TEXTS)
def test_rest_of_the_query_is_unchanged(pieces: list[tuple[str, str]], text: str) -> None:
    """DataFusion reads equal constants before and after the change."""
    assume(text.strip())
    context = SessionContext()
    constants = ", ".join(
        f"{trivia}{piece}{'' if ' AS ' in piece else f' AS c{place}'}"
        for place, (trivia, piece) in enumerate(pieces)
    )
    literal = "'" + text.replace("'", "''") + "'"
    query = f"SELECT {constants}, arrow_typeof(struct({{}}{literal})) AS last"
    plain = query.replace("{}", "")
    try:
        expected = context.sql(plain).collect()
    except Exception as error:
        assert "unique expression names" in str(error)
        return
    call = plain.replace("struct(", "similarity(")
    assert calls_in(call) == [("similarity", text)]
    changed = with_literals(call, find_calls(call), "vector")
    assert changed.count('"vector", ') == 1 + call.count('"vector", ')
    assert context.sql(changed.replace('similarity("vector", ', "struct(")).collect() == expected
