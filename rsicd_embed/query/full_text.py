"""Full-text ranking of a store's rows by Okapi BM25 over a text column, the same in every store.

Words are runs of letters and digits in lower case; the endings of English plurals are removed
(Harman 1991's S-stemmer, and -e and -es after ch, sh, ss and x). Statistics are those of the rows
that are ranked. Nothing is indexed: the column is read for each query, and only rows with a word of
the query stay in memory.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache, reduce

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from rsicd_embed.errors import QueryError
from rsicd_embed.parallel import batched
from rsicd_embed.records import FIXED_COLUMNS, is_list
from rsicd_embed.stores.base import VectorStore

USUAL_COLUMNS = ("caption", "captions", "text", "description", "title")
_NO_WORD = r"[^\p{L}\p{N}\p{M}]+"
_BATCHES = 8  # at a time, since preparing a pattern takes as long as using it on a thousand texts
_SPACE, _FIRST_BEYOND_ASCII = ord(" "), 128
# Byte of a text → the same, or a space for an ASCII character that is not in words.
_SPACED = np.array(
    [code if code >= _FIRST_BEYOND_ASCII or chr(code).isalnum() else _SPACE for code in range(256)],
    np.uint8,
)
# Words that nearly all texts have; they say little, but each text that has one must be split.
_STOP_WORDS = (
    "a an and are as at be by for from has in into is it its of on or that the their there these "
    "this to was were which with"
)
_K1, _B = 1.2, 0.75  # as in Lucene
_PLURALS = (
    ("([^ae])ies$", r"\1y"),
    ("(..(ch|sh|ss|x))es?$", r"\1"),  # overpasses, but also avalanche as avalanches
    ("([^aeo])es$", r"\1e"),
    ("([^us])s$", r"\1"),
)


def text_column(schema: pa.Schema, name: str | None) -> str:
    """The column to search: the named one, or the first of `USUAL_COLUMNS` that exists.

    Raises:
        QueryError: no such column, or it contains no texts.
    """
    texts = [f.name for f in schema if _is_text(f.type) and f.name not in FIXED_COLUMNS]
    if name is None:
        name = next((usual for usual in USUAL_COLUMNS if usual in texts), None)
        actual = "no column of a usual name"
    elif name in schema.names:
        actual = f"{name!r} with the type {schema.field(name).type}"
    else:
        actual = f"no column {name!r}"
    if name is None or name not in texts:
        raise QueryError(
            f"expected a text column for a hybrid search, found {actual}; "
            f"text columns: {', '.join(texts) or 'none'}"
        )
    return name


def words(texts: Iterable[str]) -> list[str]:
    """The distinct words of some texts, in order.

    Example:
        >>> words(["Two cities,", "two BOATS"])
        ['two', 'city', 'boat']
    """
    parsed = _words(_plain(pa.array(list(texts), pa.string())))
    return list(dict.fromkeys(parsed.values.to_pylist()))


@cache
def stop_words() -> frozenset[str]:
    """Frequent English words that say little about a text, as `words` returns them."""
    return frozenset(words([_STOP_WORDS]))


def ranked_ids(
    store: VectorStore, column: str, query: list[str], where: str | None, n: int | None = None
) -> list[tuple[str, float]]:
    """(id, BM25 score) of the rows with at least one word of the query, by (-score, id).

    Args:
        store: the store.
        column: a text column, or one of lists of texts, which are searched as one text.
        query: distinct words, as `words` returns them.
        where: SQL condition that selects rows.
        n: maximum number of rows; None for all.
    """
    ids = [pa.array([], pa.string())]
    counts, lengths = [np.zeros((0, len(query)), np.int64)], [np.zeros(0, np.int64)]
    documents = total = 0
    with store.scan(["id", column], where) as reader:
        for batches in batched(filter(len, reader), _BATCHES):
            batch = pa.Table.from_batches(batches).combine_chunks().to_batches()[0]
            texts = _joined(batch[column])
            documents += len(batch) - texts.null_count
            plain = _plain(texts)
            # The words of texts that cannot have any of the query's are only counted.
            likely = _may_have(plain, query)
            near, others = pc.indices_nonzero(likely), plain.filter(pc.invert(likely))
            listed = _words(plain.take(near))
            sizes = np.diff(listed.offsets.to_numpy())
            total += int(sizes.sum()) + _word_count(others)
            places = pc.fill_null(pc.index_in(listed.values, pa.array(query)), -1).to_numpy()
            rows = np.repeat(np.arange(len(near)), sizes)[places >= 0]
            frequencies = np.zeros((len(near), len(query)), np.int64)
            np.add.at(frequencies, (rows, places[places >= 0]), 1)
            chosen = np.flatnonzero(frequencies.any(axis=1))
            ids.append(batch["id"].take(near.take(pa.array(chosen))))
            counts.append(frequencies[chosen])
            lengths.append(sizes[chosen])
    tf, size = np.concatenate(counts), np.concatenate(lengths)
    df = (tf > 0).sum(axis=0)
    idf = np.log1p((documents - df + 0.5) / (df + 0.5))
    norm = _K1 * (1 - _B + _B * size / max(total / max(documents, 1), 1e-9))
    scores = (idf * tf * (_K1 + 1) / (tf + norm[:, None])).sum(axis=1)
    matching = pa.concat_arrays(ids)
    if n is not None and n < len(scores):
        best = np.flatnonzero(scores >= np.partition(scores, -n)[-n])  # with all ties
        matching, scores = matching.take(pa.array(best)), scores[best]
    ranked = zip(matching.to_pylist(), scores.tolist(), strict=True)
    return sorted(ranked, key=lambda hit: (-hit[1], hit[0]))[:n]


def _is_text(kind: pa.DataType) -> bool:
    """Whether values are texts or lists of texts, but not lists of lists."""
    kind = kind.value_type if is_list(kind) else kind
    return bool(pt.is_string(kind) or pt.is_large_string(kind) or pt.is_string_view(kind))


def _joined(column: pa.Array) -> pa.Array:
    if not is_list(column.type):
        return column.cast(pa.string())
    texts = column.cast(pa.list_(pa.string()))
    present = texts.is_valid()
    joined = pc.binary_join(_without_nulls(texts), " ")
    return pc.if_else(present, joined, None)


def _without_nulls(texts: pa.ListArray) -> pa.ListArray:
    """Replaces null texts, which would make the whole joined text null."""
    filled = pc.fill_null(texts.flatten(), "")
    sizes = pc.fill_null(pc.list_value_length(texts), 0).to_numpy()
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), filled)


def _plain(texts: pa.Array) -> pa.Array:
    """Texts in lower case and one Unicode form, with spaces between words; empty for null."""
    plain = pc.utf8_lower(pc.utf8_normalize(pc.fill_null(texts, ""), "NFKC"))
    others = pc.invert(pc.string_is_ascii(plain))
    if pc.any(others).as_py():
        spaced = pc.replace_substring_regex(plain.filter(others), _NO_WORD, " ")
        plain = pc.replace_with_mask(plain, others, spaced)
    # A pattern takes four times as long as a table of the characters in words.
    validity, offsets, characters = plain.buffers()
    if characters is not None:
        characters = pa.py_buffer(_SPACED[np.frombuffer(characters, np.uint8)])
    return pa.Array.from_buffers(
        plain.type, len(plain), [validity, offsets, characters], offset=plain.offset
    )


def _word_count(plain: pa.Array) -> int:
    """The number of words of all texts, as `_plain` returns them."""
    one_list = pa.ListArray.from_arrays(pa.array([0, len(plain)], pa.int32()), plain)
    text = np.frombuffer(pc.binary_join(one_list, " ")[0].as_buffer(), np.uint8)
    in_word = text != _SPACE
    return int(np.count_nonzero(in_word[1:] & ~in_word[:-1]) + np.count_nonzero(in_word[:1]))


def _may_have(plain: pa.Array, query: list[str]) -> pa.Array:
    """Whether each text has the start that all forms of a word of the query share."""
    starts = {word[:-1] if word.endswith("y") else word for word in query}
    matches = [pc.match_substring(plain, start) for start in sorted(starts)]
    return reduce(pc.or_, matches)


def _words(plain: pa.Array) -> pa.ListArray:
    """The words of each text, as `_plain` returns it."""
    split = pc.split_pattern(plain, " ")
    tokens = split.flatten().dictionary_encode()
    stems = tokens.dictionary
    plural = pc.greater(pc.utf8_length(stems), 3)
    for pattern, singular in _PLURALS:
        changed = pc.replace_substring_regex(stems, pattern, singular)
        differs = pc.and_(plural, pc.not_equal(changed, stems))
        stems, plural = pc.if_else(differs, changed, stems), pc.and_not(plural, differs)
    values = stems.take(tokens.indices)
    kept = pc.not_equal(values, "").to_numpy(zero_copy_only=False)
    parents = np.repeat(np.arange(len(plain)), pc.list_value_length(split).to_numpy())
    sizes = np.bincount(parents[kept], minlength=len(plain))
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), values.filter(pa.array(kept)))
