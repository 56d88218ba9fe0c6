"""Labels for all rows of a store: zero-shot from class names, or few-shot from examples.

Rows whose labels people corrected keep them, and are examples of their classes.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rsicd_embed.curation.column_update import Values, require_new_columns
from rsicd_embed.curation.corrections import LabelColumns, corrected_labels
from rsicd_embed.curation.logistic import Validated, cross_validate, softmax
from rsicd_embed.curation.vector_columns import compute_columns
from rsicd_embed.datasets.classes import PROMPT, readable
from rsicd_embed.embedder.base import Embedder, provenance
from rsicd_embed.errors import DatasetError
from rsicd_embed.evaluation.zeroshot import class_vectors, same_names
from rsicd_embed.records import VECTOR, require_same_model, vector_matrix
from rsicd_embed.stores.base import VectorStore, row_vectors

_LOGIT_SCALE = 100.0  # CLIP's, for models without one
_MOST_LISTED = 5
# As `query.table_files` writes cells that begin like a formula.
_PROTECTED = re.compile("'[=+\\-@\t\r\n＝＋－＠]")


@dataclass(frozen=True)
class Labelling:
    """Result of labelling.

    Attributes:
        labelled: number of rows with a label; 0 after a dry run.
        classes: all classes, sorted for examples, as listed otherwise.
        column: the column of labels; their probabilities are in `{column}_probability`.
        counts: number of rows per class, the most frequent first, and per corrected label.
        corrected: number of these rows that keep a corrected label.
        validated: accuracy and calibration on held-out examples; None without examples.
        left_out: classes of a single example or correction, which no other row gets.
    """

    labelled: int
    classes: tuple[str, ...]
    column: str
    counts: dict[str, int]
    corrected: int
    validated: Validated | None = None
    left_out: tuple[str, ...] = ()


def read_classes(path: Path) -> tuple[str, ...]:
    """Reads class names, one per line.

    Raises:
        DatasetError: the file cannot be read, or has fewer than two names, or one twice.
    """
    lines = [line.strip() for line in _text(path).splitlines()]
    names = [line for line in lines if line]
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise DatasetError(f"{path}: expected each class once, found {repeated[0]!r} again")
    if len(names) < 2:
        raise DatasetError(f"{path}: expected at least two classes, found {len(names)}")
    return tuple(names)


def read_examples(path: Path) -> dict[str, str]:
    """Reads a CSV file with the columns `id` and `label` → label by id.

    Raises:
        DatasetError: the file cannot be read, lacks a column, gives an id two labels, or has fewer
            than two classes with two examples each.
    """
    # Ids may contain line breaks.
    reader = csv.DictReader(io.StringIO(_text(path), newline=""), strict=True)
    try:
        header, rows = list(reader.fieldnames or ()), [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise DatasetError(
            f"{path}: line {reader.reader.line_num}: expected CSV: {error}"
        ) from None
    if any(header.count(name) != 1 for name in ("id", "label")):
        raise DatasetError(
            f"{path}: expected the columns id and label, each once, found "
            f"{', '.join(header) or 'none'}"
        )
    labels: dict[str, str] = {}
    for line, row in rows:
        id_, label = (_unprotected(row[name] or "") for name in ("id", "label"))
        label = label.strip()
        if not id_ or not label or any(row.get(None, ())):
            raise DatasetError(
                f"{path}: line {line}: expected an id and a label, and a cell for each column"
            )
        if labels.setdefault(id_, label) != label:
            raise DatasetError(f"{path}: {id_!r} has the labels {labels[id_]!r} and {label!r}")
    _require_classes(labels, str(path))
    return labels


def label_zero_shot(
    store: VectorStore,
    embedder: Embedder,
    classes: Sequence[str],
    *,
    column: str = "label",
    prompts: Sequence[str] = (PROMPT,),
    where: str | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
) -> Labelling:
    """Labels each row with the class whose prompts its vector is most similar to.

    Probabilities are those of the model: the softmax of similarities times its logit scale.

    Args:
        store: the store.
        embedder: the model that made its vectors.
        classes: at least two class names; `GolfCourse` is embedded as "golf course".
        column: name of the column of labels.
        prompts: templates with `{category}`, whose vectors are averaged.
        where: SQL condition; other rows keep their labels.
        overwrite: whether existing columns may be written.
        dry_run: only count the labels.

    Raises:
        FingerprintError: another model made the vectors.
        SchemaError: the columns exist.
        DatasetError: classes are embedded alike, or one has no letters or digits.
        BenchError: a prompt lacks `{category}`.
    """
    require_same_model(store.provenance, provenance(embedder), store.uri, for_queries=True)
    columns = _columns(column)
    require_new_columns(store, columns, overwrite=overwrite or dry_run)
    weights = class_vectors(embedder, _readable_names(classes), prompts).T
    scale = np.float32(getattr(embedder, "logit_scale", _LOGIT_SCALE))
    return _write(
        store,
        tuple(classes),
        column,
        lambda vectors: softmax(scale * (vectors @ weights)),
        where,
        dry_run,
    )


def label_few_shot(
    store: VectorStore,
    examples: Mapping[str, str],
    *,
    column: str = "label",
    where: str | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
    seed: int = 0,
) -> Labelling:
    """Labels each row by a logistic regression on the vectors of examples.

    Args:
        store: the store.
        examples: label by id, at least two classes with two examples each. Corrected rows are added
            if their class has two examples then, and replace examples of the same id.
        column, where, overwrite, dry_run: see `label_zero_shot`.
        seed: random seed of the folds that measure the accuracy.

    Raises:
        DatasetError: an id is not in the store, or there are too few classes or examples.
        SchemaError: the columns exist.
    """
    _require_classes(examples, "the examples")
    columns = _columns(column)
    require_new_columns(store, columns, overwrite=overwrite or dry_run)
    corrections = corrected_labels(store, LabelColumns(column))
    given = {*examples.values(), *corrections.values()}
    examples = _with_corrections(examples, corrections)
    vectors = row_vectors(store, sorted(examples))
    unknown = [id_ for id_ in examples if id_ not in vectors]
    if unknown:
        listed = ", ".join(map(repr, unknown[:_MOST_LISTED]))
        raise DatasetError(
            f"{len(unknown)} of {len(examples)} examples are not in the store: {listed}"
            f"{' and others' if len(unknown) > _MOST_LISTED else ''}; correct their ids"
        )
    classes = tuple(sorted(set(examples.values())))
    ids = sorted(examples)
    labels = np.array([classes.index(examples[id_]) for id_ in ids])
    validated = cross_validate(np.stack([vectors[id_] for id_ in ids]), labels, len(classes), seed)
    probabilities = validated.classifier.probabilities
    result = _write(store, classes, column, probabilities, where, dry_run, validated)
    return replace(result, left_out=tuple(sorted(given - {*classes})))


def _readable_names(classes: Sequence[str]) -> list[str]:
    names = [readable(name) for name in classes]
    if "" in names:
        blank = classes[names.index("")]
        raise DatasetError(f"expected class names with letters or digits, found {blank!r}")
    for name, written in same_names(classes, names).items():
        raise DatasetError(
            f"expected classes with different names, found {written[0]!r} and {written[1]!r}, "
            f"which are both embedded as {name!r}; merge them or rename one"
        )
    return names


def _columns(column: str) -> pa.Schema:
    return pa.schema([(column, pa.string()), (f"{column}_probability", pa.float32())])


def _write(
    store: VectorStore,
    classes: tuple[str, ...],
    column: str,
    probabilities: Callable[[np.ndarray], np.ndarray],
    where: str | None,
    dry_run: bool,
    validated: Validated | None = None,
) -> Labelling:
    names, counts, corrected = pa.array(classes), Counter[str](), 0
    columns = LabelColumns(column)

    def compute(vectors: np.ndarray) -> Values:
        likely = probabilities(vectors)
        return {
            column: names.take(pa.array(likely.argmax(axis=1))),
            columns.probability: pa.array(likely.max(axis=1).astype(np.float32)),
        }

    def corrected_values(rows: pa.RecordBatch, values: Values) -> Values:
        nonlocal corrected
        corrections = columns.corrections(rows)
        label = pc.coalesce(corrections, values[column])
        corrected += len(rows) - corrections.null_count
        for entry in label.value_counts().to_pylist():
            counts[entry["values"]] += entry["counts"]
        certain = pa.scalar(1.0, pa.float32())
        likely = pc.if_else(corrections.is_valid(), certain, values[columns.probability])
        return {column: label, columns.probability: likely}

    labelled = 0
    if dry_run:
        read = [VECTOR, *[columns.corrected] * columns.has_corrections(store.schema)]
        with store.scan(read, where) as reader:
            for batch in filter(len, reader):
                corrected_values(batch, compute(vector_matrix(batch[VECTOR])))
    else:
        labelled = compute_columns(store, _columns(column), compute, where, settle=corrected_values)
    every = [*classes, *sorted(counts.keys() - set(classes))]
    by_class = {name: counts[name] for name in sorted(every, key=lambda name: -counts[name])}
    return Labelling(labelled, classes, column, by_class, corrected, validated)


def _with_corrections(
    examples: Mapping[str, str], corrections: Mapping[str, str]
) -> Mapping[str, str]:
    """Examples and corrections, without classes that have a single one.

    Raises:
        DatasetError: fewer than two classes are left.
    """
    both = {**examples, **corrections}
    counts = Counter(both.values())
    used = {id_: label for id_, label in both.items() if counts[label] > 1}
    _require_classes(used, "the examples and corrected rows")
    return used


def _require_classes(labels: Mapping[str, str], source: str) -> None:
    counts = Counter(labels.values())
    single = [name for name, count in counts.items() if count < 2]
    if len(counts) < 2 or single:
        one = f"one of {single[0]!r}" if len(counts) > 1 else "one class"
        few = one if counts else "none"
        raise DatasetError(
            f"{source}: expected at least two classes with two examples each, found {few}"
        )


def _unprotected(cell: str) -> str:
    """A cell without the apostrophe that exports put before what spreadsheets would execute."""
    return cell[1:] if _PROTECTED.match(cell) else cell


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise DatasetError(f"{path}: expected a text file in UTF-8") from None
