"""Labels: zero-shot and few-shot, their accuracy, and atomic columns in every store."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from rsicd_embed.curation import corrections, labels
from rsicd_embed.curation.column_update import update_columns
from rsicd_embed.curation.corrections import LabelColumns, LabelState, set_label
from rsicd_embed.curation.logistic import cross_validate, fit
from rsicd_embed.errors import DatasetError, RowChangedError, SchemaError, UnknownRowError
from rsicd_embed.records import vector_array, vector_matrix
from rsicd_embed.stores.base import VectorStore, open_store
from tests.helpers import SCHEMES, run
from tests.query.conftest import DIM, MADE_BY, Words, direction

CLASSES = ("port", "river", "desert")


def clustered(n: int, seed: int = 0, noise: float = 0.15) -> tuple[np.ndarray, np.ndarray]:
    """float32 (n, DIM) unit vectors around the directions of `CLASSES`, and int (n,) classes."""
    random = np.random.default_rng(seed)
    truth = random.integers(0, len(CLASSES), n)
    centres = np.concatenate([direction(f"An aerial photograph of {name}") for name in CLASSES])
    vectors = centres[truth] + noise * random.standard_normal((n, DIM))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), truth


@pytest.fixture(params=SCHEMES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> VectorStore:
    vectors, truth = clustered(200)
    table = pa.table(
        {
            "id": [f"{i}" for i in range(200)],
            "vector": vector_array(vectors),
            "truth": [CLASSES[i] for i in truth],
            "captions": [["a"] * (i % 3) for i in range(200)],
        }
    )
    with open_store(f"{request.param}:{tmp_path / 'store'}", MADE_BY) as opened:
        opened.upsert(table.to_batches())
        opened.tag("before")
        yield opened


def read(store: VectorStore) -> pa.Table:
    return store.scan().read_all().sort_by("id")


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (["Tennis Court", "sea", "tenniscourt"], "found 'Tennis Court' and 'tenniscourt'"),
        (["port", "--"], "letters or digits, found '--'"),
    ],
)
def test_classes_that_are_embedded_alike_are_refused(
    store: VectorStore, words: Words, classes: list[str], message: str
) -> None:
    with pytest.raises(DatasetError, match=message):
        labels.label_zero_shot(store, words, classes)
    assert "label" not in store.schema.names


def test_conditions_on_the_labels_themselves(store: VectorStore, words: Words) -> None:
    labels.label_zero_shot(store, words, CLASSES, where="id < '5'")
    first = read(store)
    result = labels.label_zero_shot(store, words, CLASSES, where="label IS NULL", overwrite=True)
    rows = read(store)
    assert result.labelled == first["label"].null_count == sum(result.counts.values()) > 0
    assert rows["label"].null_count == 0
    kept = first["label"].is_valid()
    assert rows.filter(kept).equals(first.filter(kept))


def test_zero_shot(store: VectorStore, words: Words) -> None:
    before = read(store)
    result = labels.label_zero_shot(store, words, CLASSES, where="id < '5'", dry_run=True)
    assert (result.labelled, store.schema) == (0, before.schema)
    with pytest.raises(SchemaError, match="column 'score' is reserved"):
        labels.label_zero_shot(store, words, CLASSES, column="score", dry_run=True)
    result = labels.label_zero_shot(store, words, CLASSES, where="id < '5'")
    rows = read(store)
    assert rows.select(before.column_names).equals(before)
    chosen = [id_ < "5" for id_ in rows["id"].to_pylist()]
    assert result.labelled == sum(chosen) == sum(result.counts.values())
    texts = np.concatenate([direction(f"An aerial photograph of {name}") for name in CLASSES])
    logits = 100 * vector_matrix(rows["vector"]) @ texts.T
    likely = np.exp(logits - logits.max(axis=1, keepdims=True))
    likely /= likely.sum(axis=1, keepdims=True)
    for i, is_chosen in enumerate(chosen):
        expected = CLASSES[likely[i].argmax()] if is_chosen else None
        assert rows["label"][i].as_py() == expected
        if is_chosen:
            assert rows["label_probability"][i].as_py() == pytest.approx(likely[i].max(), abs=1e-4)
    with pytest.raises(SchemaError, match="exists already; choose another name"):
        labels.label_zero_shot(store, words, CLASSES)
    labels.label_zero_shot(store, words, CLASSES, overwrite=True)
    assert read(store)["label"].null_count == 0
    assert store.as_of("before").scan().read_all().sort_by("id").equals(before)


def test_few_shot(store: VectorStore) -> None:
    rows = read(store)
    examples = dict(zip(rows["id"].to_pylist()[:40], rows["truth"].to_pylist()[:40], strict=True))
    result = labels.label_few_shot(store, examples, column="kind")
    labelled = read(store)
    right = np.mean(
        [a == b for a, b in zip(*(labelled[n].to_pylist() for n in ("kind", "truth")), strict=True)]
    )
    assert result.validated.accuracy == pytest.approx(right, abs=0.12)
    assert right > 0.85
    assert result.classes == tuple(sorted(CLASSES))
    assert sum(result.counts.values()) == result.labelled == 200
    with pytest.raises(DatasetError, match="2 of 6 examples are not in the store: 'x', 'y'"):
        labels.label_few_shot(
            store, {"x": "a", "y": "b", "0": "a", "1": "b", "2": "a", "3": "b"}, column="other"
        )


def test_corrected_rows_keep_their_labels_and_are_examples(
    store: VectorStore, words: Words
) -> None:
    columns = LabelColumns("label")
    labels.label_zero_shot(store, words, CLASSES)
    rows = read(store)
    truth = dict(zip(rows["id"].to_pylist(), rows["truth"].to_pylist(), strict=True))
    corrected = {"3": "lake", "7": "lake", "8": "delta"} | {
        id_: f"new {truth[id_]}" for id_ in ("20", "21", "22", "23", "24", "25")
    }
    for id_, label in corrected.items():
        was = rows["label"][rows["id"].to_pylist().index(id_)].as_py()
        set_label(store, columns, id_, was, LabelState(label, 1.0, label))
    result = labels.label_zero_shot(store, words, CLASSES, overwrite=True)
    assert (result.labelled, result.corrected, sum(result.counts.values())) == (200, 9, 200)
    assert result.counts["lake"] == 2
    after = read(store)
    places = {id_: place for place, id_ in enumerate(after["id"].to_pylist())}
    for id_, label in corrected.items():
        row = after.slice(places[id_], 1).to_pylist()[0]
        assert [row[name] for name in columns.schema.names] == [label, 1.0, label]
    unchanged = pa.compute.is_null(after["label_corrected"])
    assert after.filter(unchanged)["label"].equals(rows.filter(unchanged)["label"])

    examples = {id_: truth[id_] for id_ in list(truth)[:40] if id_ not in ("20", "21", "22")}
    result = labels.label_few_shot(store, examples, overwrite=True)
    assert result.corrected == 9
    assert "lake" in result.classes  # two corrected rows
    assert "delta" in result.left_out and not {*result.left_out} & {*result.classes}
    assert "delta" not in result.classes and result.counts["delta"] == 1  # only one
    dry = labels.label_few_shot(store, examples, dry_run=True)
    assert (dry.counts, dry.corrected, dry.labelled) == (result.counts, 9, 0)


def test_a_correction_keeps_what_others_wrote(
    store: VectorStore, words: Words, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row that is ingested again while its label is set keeps its new columns."""
    columns, labelled = LabelColumns("label"), labels.label_zero_shot(store, words, CLASSES)
    rows = read(store)
    row = rows.filter(pa.compute.equal(rows["id"], "7"))
    update = corrections.update_columns

    def ingest_first(*arguments: Any) -> int:
        with open_store(store.uri) as other:
            uri = row.schema.get_field_index("uri")
            other.upsert(row.set_column(uri, "uri", pa.array(["again"])).to_batches())
        return update(*arguments)

    monkeypatch.setattr(corrections, "update_columns", ingest_first)
    was = row["label"][0].as_py()
    before = set_label(store, columns, "7", was, LabelState("lake", 1.0, "lake"))
    assert (before.label, before.corrected) == (was, None)
    after = {row["id"]: row for row in read(store).to_pylist()}
    assert (after["7"]["uri"], after["7"]["label"]) == ("again", "lake")
    assert len(after) == labelled.labelled
    monkeypatch.undo()
    with pytest.raises(RowChangedError, match="is 'lake' by now, not 'port'"):
        set_label(store, columns, "7", "port", LabelState("sea", 1.0, "sea"))
    with pytest.raises(UnknownRowError, match="no row with the id 'x'"):
        set_label(store, LabelColumns("other"), "x", None, LabelState("sea", 1.0, "sea"))
    assert "other" not in store.schema.names


def test_updates_run_while_the_store_is_locked(store: VectorStore) -> None:
    """A write during an update is refused or lands after it; it is never lost."""
    columns = pa.schema([("mark", pa.int64())])
    assert update_columns(
        store, columns, lambda batch: {"mark": pa.array(range(len(batch)), pa.int64())}
    ) == len(store)
    with pytest.raises(ZeroDivisionError):
        update_columns(store, columns, lambda batch: {"mark": pa.array([1 // 0])})
    assert read(store)["mark"].null_count == 0


def test_logistic_regression_agrees_with_scikit_learn() -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    vectors, truth = clustered(150, noise=0.4)
    for c in (1.0, 100.0):
        ours = fit(vectors, truth, 3, c).probabilities(vectors)
        model = linear_model.LogisticRegression(C=c, max_iter=2000, tol=1e-8)
        theirs = model.fit(vectors.astype(float), truth).predict_proba(vectors)
        np.testing.assert_allclose(ours, theirs, atol=5e-3)


def test_validation_is_honest() -> None:
    """Labels without any relation to the vectors are predicted at chance."""
    vectors, truth = clustered(240, noise=0.3)
    good = cross_validate(vectors, truth, 3, seed=0)
    fresh, fresh_truth = clustered(4000, seed=9, noise=0.3)
    predicted = good.classifier.probabilities(fresh)
    right = predicted.argmax(axis=1) == fresh_truth
    assert good.accuracy == pytest.approx(right.mean(), abs=0.08)
    assert predicted.max(axis=1).mean() == pytest.approx(right.mean(), abs=0.08)
    chance = cross_validate(vectors, np.random.default_rng(5).integers(0, 3, 240), 3, seed=0)
    assert chance.accuracy < 0.48


@pytest.mark.parametrize(
    ("read_file", "text", "message"),
    [
        (labels.read_classes, "port\n\n", "at least two classes, found 1"),
        (labels.read_classes, "port\nriver\nport\n", "found 'port' again"),
        (labels.read_examples, "id,class\na,b\n", "expected the columns id and label"),
        (labels.read_examples, "id,label\na,x\nb,x\n", "found one class"),
        (labels.read_examples, "id,label\na,x\nb,x\nc,y\n", "found one of 'y'"),
        (labels.read_examples, "id,label\na,x\na,y\n", "has the labels 'x' and 'y'"),
        (labels.read_examples, "id,label\na,\n", "line 2: expected an id and a label"),
        (labels.read_examples, "id,label\na,b,x\n", "line 2: .* a cell for each column"),
        (labels.read_examples, "id,label,id\na,x,b\n", "id and label, each once"),
        (labels.read_examples, f"id,label\n{'a' * 200_000},x\n", "line 2: expected CSV: field"),
        (labels.read_examples, 'id,label\n"a"b,x\n', "line 2: expected CSV"),
    ],
)
def test_wrong_files(
    read_file: Callable[[Path], object], text: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text(text)
    with pytest.raises(DatasetError, match=message):
        read_file(tmp_path / "file")


def test_ids_with_line_breaks(tmp_path: Path) -> None:
    ids = ["a\nb", "a\u2028b", "a\r\nb", "ab"]
    with (tmp_path / "file").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("id", "label"), *zip(ids, "xxyy", strict=True)])
    assert labels.read_examples(tmp_path / "file") == dict(zip(ids, "xxyy", strict=True))


def test_command(stored: str, tmp_path: Path) -> None:
    (tmp_path / "classes").write_text("port\nGolfCourse\n")
    command = ("label", "--store", stored, "--classes", tmp_path / "classes", "--column", "kind")
    document = run(*command, "--prompts", "aerial", "--json").document
    assert (document["labelled"], document["column"]) == (5, "kind")
    assert document["classes"] == ["port", "GolfCourse"]
    assert "exists already" in run(*command).error
    assert "expected prompts named" in run(*command, "--prompts", "areal").error
    (tmp_path / "e.csv").write_text("id,label\na.png,x\nb.png,x\nc.jpg,y\nd.tif,y\n")
    few = run("label", "--store", stored, "--examples", tmp_path / "e.csv")
    assert "labelled 5 rows in column label" in few.stdout
    assert "uncertain" in few.stderr
    assert run("label", "--store", stored).status == 2
