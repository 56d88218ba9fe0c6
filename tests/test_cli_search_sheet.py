"""`rsicd-embed search --html` and `--open`: contact sheets."""

from __future__ import annotations

import base64
import html.parser
import io
from pathlib import Path

import pytest
from PIL import Image

from .conftest import picture
from .helpers import run

pytestmark = pytest.mark.usefixtures("load_each_model_once")


class Sheet(html.parser.HTMLParser):
    """The images, texts and tags of an HTML document."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.pictures: list[Image.Image] = []
        self.texts: list[str] = []
        self.tags: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag == "img":
            head, _, data = str(dict(attrs)["src"]).partition(",")
            assert head == "data:image/jpeg;base64"
            self.pictures.append(Image.open(io.BytesIO(base64.b64decode(data))))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_hits_and_images_are_in_one_file(stored: str, tmp_path: Path) -> None:
    path = tmp_path / "new" / "hits.html"
    outcome = run("search", "<script>x</script>", "--store", stored, "--html", path, "--json")
    assert outcome.status == 0
    assert outcome.stderr == f"pictures: {path}\n"
    sheet = Sheet(path.read_text("utf-8"))
    assert len(sheet.pictures) == 5
    assert all(max(image.size) == 40 for image in sheet.pictures)
    assert "<script>x</script>" in sheet.texts
    assert not sheet.tags & {"script", "link", "iframe"}
    hits = outcome.document["hits"]
    assert [text for text in sheet.texts if text in {hit["id"] for hit in hits}] == [
        hit["id"] for hit in hits
    ]
    assert f"1  {hits[0]['score']:+.4f}" in sheet.texts


def test_missing_image_is_replaced_by_the_reason(
    stored: str, pictures: Path, tmp_path: Path
) -> None:
    (pictures / "a.png").unlink()
    path = tmp_path / "hits.html"
    assert run("search", "port", "--store", stored, "--html", path).status == 0
    sheet = Sheet(path.read_text("utf-8"))
    assert len(sheet.pictures) == 4
    assert "cannot be read: No such file or directory" in sheet.texts


def test_open_starts_a_browser(stored: str, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    def launch(url: str) -> int:
        opened.append(url)
        return len(opened) - 1  # the second launch fails

    monkeypatch.setattr("click.launch", launch)
    outcome = run("search", "port", "--store", stored, "--open")
    (url,) = opened
    assert url.startswith("file:///")
    assert Sheet(Path(url.removeprefix("file://")).read_text("utf-8")).pictures
    assert "open that file yourself" not in outcome.stderr
    assert "open that file yourself" in run("search", "port", "--store", stored, "--open").stderr


def test_unwritable_sheet(stored: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    search = ("search", "port", "--store", stored, "--html")
    assert "cannot write" in run(*search, tmp_path / "file" / "hits.html").error


def test_html_in_names_is_escaped(
    uri: str, pictures: Path, tiny_model: Path, tmp_path: Path
) -> None:
    picture(9).save(pictures / '"><img src=x onerror=alert(1)>.png')
    run("ingest", pictures, "--store", uri, "--model", tiny_model)
    path = tmp_path / "hits.html"
    assert run("search", "port", "--store", uri, "--html", path).status == 0
    sheet = Sheet(path.read_text("utf-8"))
    assert len(sheet.pictures) == 6
    assert '"><img src=x onerror=alert(1)>.png' in sheet.texts
