"""Corrections of labels: through the API, on the page, and as examples of `label`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from rsicd_embed.curation import labels
from rsicd_embed.curation.column_update import update_columns
from rsicd_embed.curation.corrections import LabelColumns, corrected_labels
from rsicd_embed.stores.base import open_store
from tests.helpers import run

from .browsing import (
    SCREENS,
    SIZES,
    opened,
    patient_page,
    search,
    searched,
    serious_violations,
    served,
    until,
)
from .conftest import Archive, make_archive

COLUMNS = LabelColumns("cover")
CLASSES = ("port", "river", "golfCourse")


def labelled_archive(folder: Path, model: Path, scheme: str = "exact", count: int = 12) -> Archive:
    """An archive whose column `cover` has labels with probabilities."""
    archive = make_archive(folder, model, scheme, count)

    def compute(batch: pa.RecordBatch) -> dict[str, pa.Array]:
        n = len(batch)
        return {
            "cover": pa.array([CLASSES[i % 3] for i in range(n)]),
            "cover_probability": pa.array([0.5 + i / 100 for i in range(n)], pa.float32()),
        }

    with open_store(archive.uri) as store:
        update_columns(store, pa.schema(list(COLUMNS.schema)[:2]), compute)
    return archive


def row(archive: Archive, id_: str) -> dict[str, Any]:
    with open_store(archive.uri) as store, store.scan(where=f"id = '{id_}'") as reader:
        (found,) = reader.read_all().to_pylist()
    return dict(found)


# --- the API ---------------------------------------------------------------------------------


def test_servers_only_read_by_default(
    tmp_path: Path, tiny_model: Path, serve: Callable[..., Any]
) -> None:
    archive = labelled_archive(tmp_path, tiny_model)
    client = serve(archive)
    before = row(archive, "1.png")
    for got in (
        client.post("/api/labels", json={"id": "1.png", "label": "river", "was": "river"}),
        client.get("/api/labels"),
    ):
        assert got.status_code == 403
        assert "--allow-labels" in got.json()["error"]
    assert row(archive, "1.png") == before
    names = client.get("/api/columns").json()["labels"]
    assert names == {
        "label": "cover",
        "probability": "cover_probability",
        "corrected": "cover_corrected",
        "writable": False,
    }


@pytest.mark.parametrize("scheme", ["exact", "nmslib", "lancedb"])
def test_a_correction_changes_one_row(
    tmp_path: Path, tiny_model: Path, serve: Callable[..., Any], scheme: str
) -> None:
    archive = labelled_archive(tmp_path, tiny_model, scheme)
    client = serve(archive, labels="cover")
    assert client.get("/api/labels").text == "id,label\r\n"
    before = row(archive, "1.png")
    others = [row(archive, id_) for id_ in archive.ids if id_ != "1.png"]
    change = {"id": "1.png", "label": "a marina", "was": before["cover"]}
    got = client.post("/api/labels", json=change)
    assert got.status_code == 200, got.text
    state = {"label": "a marina", "probability": 1.0, "corrected": "a marina"}
    old = {"label": before["cover"], "probability": pytest.approx(before["cover_probability"])}
    assert got.json() == {"id": "1.png", **state, "before": {**old, "corrected": None}}
    new = {"cover": "a marina", "cover_probability": 1.0, "cover_corrected": "a marina"}
    assert row(archive, "1.png") == before | new
    assert [row(archive, id_) for id_ in archive.ids if id_ != "1.png"] == [
        other | {"cover_corrected": None} for other in others
    ]
    hits = client.post("/api/search", json={"text": "a port", "k": 12}).json()["hits"]
    assert next(hit for hit in hits if hit["id"] == "1.png")["cover"] == "a marina"
    columns = client.get("/api/columns").json()["columns"]
    assert "a marina" in next(column for column in columns if column["name"] == "cover")["values"]
    assert client.get("/api/labels").text == "id,label\r\n1.png,a marina\r\n"
    # Undo.
    undo = {"id": "1.png", "label": before["cover"], "was": "a marina", "corrected": False}
    undo["probability"] = before["cover_probability"]
    assert client.post("/api/labels", json=undo).status_code == 200
    assert row(archive, "1.png") == before | {"cover_corrected": None}


def test_a_changed_label_is_not_overwritten(
    tmp_path: Path, tiny_model: Path, serve: Callable[..., Any]
) -> None:
    archive = labelled_archive(tmp_path, tiny_model)
    client = serve(archive, labels="cover")
    was = row(archive, "1.png")["cover"]
    change = {"id": "1.png", "label": "a marina", "was": was}
    assert client.post("/api/labels", json=change).status_code == 200
    got = client.post("/api/labels", json=change | {"label": "a lake"})
    assert got.status_code == 409
    assert "is 'a marina' by now" in got.json()["error"]
    assert row(archive, "1.png")["cover"] == "a marina"


def test_a_new_column(own_archive: Archive, serve: Callable[..., Any]) -> None:
    client = serve(own_archive, labels="cover")
    assert client.get("/api/columns").json()["labels"]["writable"]
    got = client.post("/api/labels", json={"id": "1.png", "label": "a marina"})
    assert got.json()["before"] == {"label": None, "probability": None, "corrected": None}
    assert row(own_archive, "1.png")["cover"] == "a marina"
    assert row(own_archive, "2.png")["cover"] is None


def test_a_store_that_is_embedded_again(
    tmp_path: Path, tiny_model: Path, other_model: Path, serve: Callable[..., Any]
) -> None:
    archive = labelled_archive(tmp_path, tiny_model)
    client = serve(archive, labels="cover")
    was = row(archive, "1.png")["cover"]
    assert client.post("/api/search", json={"text": "a port"}).status_code == 200
    command = ["reembed", "--store", archive.uri, "--model", str(other_model)]
    assert run(*command, "--backend", "numpy").status == 0
    vector = row(archive, "1.png")["vector"]
    got = client.post("/api/labels", json={"id": "1.png", "label": "a marina", "was": was})
    assert got.status_code == 200, got.text
    after = row(archive, "1.png")
    assert (after["cover"], after["vector"]) == ("a marina", vector)


@pytest.mark.parametrize(
    ("change", "status", "message"),
    [
        ({"id": "no.png", "label": "x"}, 404, "no row with the id 'no.png'"),
        ({"id": "1.png", "label": ""}, 422, "label: "),
        ({"id": "1.png", "label": " x"}, 422, "without spaces around it"),
        ({"id": "1.png", "label": "x" * 201}, 422, "label: "),
        ({"id": "1.png", "label": None}, 422, "expected the label of a correction"),
        ({"id": "1.png"}, 422, "label: "),
        ({"id": "1.png", "label": "x", "column": "year"}, 422, "column: "),
        ({"id": "1.png", "label": "x", "probability": 2}, 422, "probability: "),
    ],
)
def test_invalid_changes(
    archive: Archive, serve: Callable[..., Any], change: Any, status: int, message: str
) -> None:
    got = serve(archive, labels="cover").post("/api/labels", json=change)
    assert got.status_code == status
    assert message in got.json()["error"]


def test_other_sites_cannot_write(own_archive: Archive, serve: Callable[..., Any]) -> None:
    client = serve(own_archive, labels="cover")
    change = {"id": "1.png", "label": "a marina"}
    headers = {"origin": "https://evil.example"}
    assert client.post("/api/labels", json=change, headers=headers).status_code == 403
    headers = {"host": "evil.example"}
    assert client.post("/api/labels", json=change, headers=headers).status_code == 421
    # A form of another site needs no permission of the browser to send text.
    text = {"content-type": "text/plain", "origin": "null"}
    got = client.post("/api/labels", content='{"id": "1.png", "label": "x"}', headers=text)
    assert got.status_code == 403
    assert "cover" not in row(own_archive, "1.png")


def test_a_column_of_another_type_is_refused(own_archive: Archive) -> None:
    for column, message in (("year", "has the type"), ("uri", "is not for labels")):
        command = ("serve", "--store", own_archive.uri, "--port", "0", "--allow-labels", column)
        result = run(*command)
        assert result.status == 1
        assert message in result.stderr


# --- examples of `label` ---------------------------------------------------------------------


def test_corrections_are_examples(
    tmp_path: Path, tiny_model: Path, serve: Callable[..., Any]
) -> None:
    archive = labelled_archive(tmp_path, tiny_model)
    client = serve(archive, labels="cover")
    wanted = {"1.png": "=a", "2.png": "=a", "4.png": "b", "5.png": "b"}
    for id_, label in wanted.items():
        change = {"id": id_, "label": label, "was": row(archive, id_)["cover"]}
        assert client.post("/api/labels", json=change).status_code == 200
    path = tmp_path / "labels.csv"
    path.write_bytes(client.get("/api/labels").content)
    assert "'=a" in path.read_text()  # which no spreadsheet executes
    assert labels.read_examples(path) == wanted
    with open_store(archive.uri) as store:
        assert corrected_labels(store, COLUMNS) == wanted


# --- the page --------------------------------------------------------------------------------


@pytest.fixture
def written(tmp_path: Path, tiny_model: Path) -> Iterator[tuple[Archive, str]]:
    """An archive, and the address of a server that writes its labels."""
    archive = labelled_archive(tmp_path, tiny_model)
    command = ("--backend", "numpy", "--allow-labels", "cover")
    with served(archive.uri, *command) as address:
        yield archive, address


@pytest.mark.parametrize("size", SCREENS)
def test_correct_labels_on_the_page(
    browser: Any, written: tuple[Archive, str], size: str, tmp_path: Path
) -> None:
    archive, address = written
    with opened(browser, address, viewport=SIZES[size]) as page:
        until(lambda: page.is_visible("#corrections"))  # the columns are loaded
        search(page, "a port")
        card = page.locator(".card", has=page.get_by_text("4.png", exact=True))
        select = card.locator("select")
        assert select.get_attribute("aria-label") == "Label of 4.png"
        was = select.input_value()
        assert card.locator(".note").inner_text().endswith(" %")
        assert "cover" not in card.locator(".attributes").text_content()
        label = next(name for name in CLASSES if name != was)
        select.select_option(label)
        until(lambda: card.locator(".note").inner_text() == "corrected")
        assert page.text_content("#announcement") == f"Label of 4.png: {label}"
        assert page.evaluate("document.activeElement.getAttribute('aria-label')") == (
            "Label of 4.png"
        )
        assert row(archive, "4.png")["cover_corrected"] == label
        # Undo.
        card.locator(".undo").click()
        until(lambda: card.locator(".note").inner_text().endswith(" %"))
        assert row(archive, "4.png")["cover"] == was
        # Confirm by keyboard.
        card.locator(".confirm").focus()
        page.keyboard.press("Enter")
        until(lambda: card.locator(".note").inner_text() == "corrected")
        assert row(archive, "4.png")["cover_corrected"] == was
        # A new label.
        select = card.locator("select")
        select.select_option(label="another …")
        page.keyboard.type("a marina")
        page.keyboard.press("Enter")
        until(lambda: card.locator("select").input_value() == "a marina")
        with page.expect_download() as download:
            page.click("#corrections")
        assert Path(download.value.path()).read_text() == "id,label\n4.png,a marina\n"
        assert serious_violations(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= SIZES[size]["width"]


def test_a_conflict_is_shown(browser: Any, written: tuple[Archive, str]) -> None:
    _, address = written
    with patient_page(browser) as page:  # not `opened`: the console reports the conflict
        page.goto(address)
        until(lambda: page.is_visible("#corrections"))
        search(page, "a port")
        card = page.locator(".card", has=page.get_by_text("4.png", exact=True))
        was = card.locator("select").input_value()
        change = {"id": "4.png", "label": "a marina", "was": was}
        assert page.request.post(f"{address}api/labels", data=change).status == 200
        card.locator("select").select_option(next(name for name in CLASSES if name != was))
        until(lambda: "is 'a marina' by now" in page.inner_text("#error"))
        assert card.locator("select").input_value() == was


def test_labels_are_shown_by_servers_that_only_read(
    browser: Any, tmp_path: Path, tiny_model: Path
) -> None:
    archive = labelled_archive(tmp_path, tiny_model)
    with served(archive.uri, "--backend", "numpy") as address, opened(browser, address) as page:
        until(lambda: "12 images" in page.inner_text("#about"))
        search(page, "a port")
        searched(page, "12 results")
        until(lambda: page.locator(".card .label").count() == 12)
        assert page.locator(".card select, .card .confirm").count() == 0
        assert page.is_hidden("#corrections")
        assert set(page.locator(".label .class").all_text_contents()) == set(CLASSES)
