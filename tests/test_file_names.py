"""Images with unusual names: any UTF-8 name is stored, found and pruned."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from .conftest import picture
from .helpers import SCHEMES, encoded, rows, run

pytestmark = pytest.mark.usefixtures("load_each_model_once")

NAMES = ["ülkü.png", "海港 🛰.png", "it's.png", 'a "b".png', "two\nlines.png", "a;b--.png", "%s.png"]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_any_name_is_stored_found_and_pruned(scheme: str, tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / 'it\'s a "folder"'
    folder.mkdir()
    uri = f"{scheme}:{tmp_path / 'störe'}"
    for number, name in enumerate(NAMES):
        picture(number).save(folder / name)
    ingest = ("ingest", folder, "--store", uri, "--model", tiny_model, "--json")
    assert run(*ingest).document["embedded"] == len(NAMES)
    for name in NAMES:
        quoted = name.replace("'", "''")
        search = ("search", "--image", folder / name, "--store", uri, "--json")
        (hit,) = run(*search, "--where", f"id = '{quoted}'").document["hits"]
        assert (hit["id"], hit["uri"]) == (name, str(folder / name))
        assert hit["score"] == pytest.approx(1, abs=1e-5)
    assert run(*ingest).document["unchanged"] == len(NAMES)
    for name in NAMES[1:]:
        (folder / name).unlink()
    assert run(*ingest, "--prune").document["removed"] == len(NAMES) - 1
    assert list(rows(uri)) == NAMES[:1]


def test_a_name_that_is_not_utf8_is_listed(uri: str, tiny_model: Path, pictures: Path) -> None:
    bad = os.fsencode(pictures) + b"/\xff.png"
    try:
        with open(bad, "wb") as file:  # noqa: PTH123
            file.write(encoded(picture(0)))
    except OSError:
        pytest.skip("this file system takes only UTF-8 names")
    outcome = run("ingest", pictures, "--store", uri, "--model", tiny_model, "--json")
    assert outcome.document["embedded"] == 5
    assert outcome.document["skipped"] == [
        {"uri": f"{pictures}/\\xff.png", "reason": "expected a UTF-8 file name; rename it"}
    ]
    alone = run("ingest", os.fsdecode(bad), "--store", uri, "--model", tiny_model)
    assert alone.error.endswith("\\xff.png; rename it")
    strict = run("ingest", pictures, "--store", uri, "--model", tiny_model, "--strict")
    assert strict.error == f"error: {pictures}/\\xff.png: expected a UTF-8 file name; rename it"
