"""Builds the documentation site in build/docs/site and checks it.

    python -m scripts.build_docs

docs/ is copied to build/docs/pages, where the generated pages and pictures join it; Zensical then
builds the site in strict mode. The build fails on a broken link or anchor, a page that the
navigation lacks, a public name without documentation, or anything that a browser would load from
another site.
"""

from __future__ import annotations

import importlib
import inspect
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from rsicd_embed.cli import main as program
from scripts import cli_page, http_api_page, import_graph

PROJECT = Path(__file__).parents[1]
PAGES, SITE = PROJECT / "build" / "docs" / "pages", PROJECT / "build" / "docs" / "site"
# Every name in their `__all__` is public.
PUBLIC_MODULES = (
    "rsicd_embed",
    "rsicd_embed.embedder",
    "rsicd_embed.stores",
    "rsicd_embed.evaluation",
    "rsicd_embed.pictures",
    "rsicd_embed.testing",
    "rsicd_embed.errors",
    "rsicd_embed.lancedb",
)
# Documents outside docs/ that are pages of the site too.
_INCLUDED = {
    "benchmarks/README.md": "recorded-runs.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
}


def build() -> None:
    """Writes the pages, builds the site and checks it.

    Raises:
        SystemExit: the build or a check failed.
    """
    write_pages(PAGES)
    shutil.rmtree(SITE, ignore_errors=True)
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean"]
    if subprocess.run(command, cwd=PROJECT, check=False).returncode:
        sys.exit("the site was not built: see the warnings above")
    problems = [
        *unlisted_pages(),
        *undocumented_names(SITE),
        *broken_links(SITE),
        *external_requests(SITE),
    ]
    if problems:
        sys.exit("\n".join(problems))


def write_pages(folder: Path) -> None:
    """Copies docs/ into a folder and adds the generated pages."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(PROJECT / "docs", folder)
    for source, target in _INCLUDED.items():
        text = (PROJECT / source).read_text(encoding="utf-8")
        (folder / target).write_text(_relinked(text, Path(source).parent), encoding="utf-8")
    (folder / "python-api.md").write_text(python_page(), encoding="utf-8")
    command_line = cli_page.page(program, "rsicd-embed")
    (folder / "cli.md").write_text(command_line, encoding="utf-8")
    document = http_api_page.openapi_document()
    (folder / "http-api.md").write_text(http_api_page.page(document), encoding="utf-8")
    graph = import_graph.svg(import_graph.import_graph())
    (folder / "images" / "imports.svg").write_text(graph, encoding="utf-8")
    for page in folder.glob("*.md"):
        text = page.read_text(encoding="utf-8")
        text = _with_included_code(_relinked(text, Path("docs")))
        page.write_text(text, encoding="utf-8")


def python_page() -> str:
    """The Python reference: every public module with every public name."""
    parts = [
        "# Python API\n\nPublic names are the ones on this page; everything else may change in any "
        "release. Importing `rsicd_embed` alone imports neither JAX nor LanceDB.\n"
    ]
    parts += [f"::: {module}\n" for module in PUBLIC_MODULES]
    return "\n".join(parts)


def unlisted_pages() -> list[str]:
    """Pages that the navigation of mkdocs.yml does not list."""
    navigation = (PROJECT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:")[2]
    listed = set(re.findall(r": ([\w-]+\.md)$", navigation, flags=re.MULTILINE))
    names = {page.name for page in PAGES.glob("*.md")}
    return [f"{name}: not in the navigation of mkdocs.yml" for name in sorted(names - listed)]


def undocumented_names(site: Path) -> list[str]:
    """Public names without a docstring, or missing from the Python reference."""
    anchors = _Page.read(site / "python-api.html").anchors
    problems = []
    for module in map(importlib.import_module, PUBLIC_MODULES):
        for name in module.__all__:
            value, full = getattr(module, name), f"{module.__name__}.{name}"
            if full not in anchors:
                problems.append(f"{full}: not in the Python reference; has it a docstring?")
            if (inspect.isclass(value) or inspect.isroutine(value)) and not inspect.getdoc(value):
                problems.append(f"{full}: has no docstring")
    return problems


def broken_links(site: Path) -> list[str]:
    """Links and pictures of the site that lead to no file or anchor of it."""
    pages = {path: _Page.read(path) for path in site.rglob("*.html")}
    problems = []
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if path.name == "404.html" and parts.path.startswith("/"):
                target = (site / unquote(parts.path).lstrip("/")).resolve()
            if target.is_dir():
                target /= "index.html"
            fragment = unquote(parts.fragment)
            if not target.is_file() or (
                fragment and target in pages and fragment not in pages[target].anchors
            ):
                problems.append(f"{path.relative_to(site)}: broken link {link}")
    return problems


def external_requests(site: Path) -> list[str]:
    """What a browser would load from another site to show a page."""
    loaded = [
        (path, address) for path in site.rglob("*.html") for address in _Page.read(path).loaded
    ]
    in_styles = re.compile(r"(?:url\(|@import )[\"']?((?:https?:)?//[^)\"']+)")
    for path in site.rglob("*.css"):
        text = path.read_text(encoding="utf-8")
        loaded += [(path, address) for address in in_styles.findall(text)]
    return [
        f"{path.relative_to(site)}: loads {address}"
        for path, address in loaded
        if urlsplit(address).netloc
    ]


class _Page(HTMLParser):
    """The links, anchors and loaded resources of an HTML page."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.loaded: list[str] = []

    @classmethod
    def read(cls, path: Path) -> _Page:
        page = cls()
        page.feed(path.read_text(encoding="utf-8"))
        return page

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value for name, value in attrs if value}
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        for address in _loaded(tag, values):
            self.loaded.append(address)
            self.links.append(address)


def _loaded(tag: str, values: dict[str, str]) -> Iterator[str]:
    if "src" in values:
        yield values["src"]
    if tag == "link" and values.get("rel") not in ("canonical", "prev", "next", "alternate"):
        yield values["href"]


def _with_included_code(text: str) -> str:
    """Replaces comments such as `<!-- include: examples/store_plugin.py -->` by the file's code."""

    def code(match: re.Match[str]) -> str:
        return f"```python\n{(PROJECT / match[1]).read_text(encoding='utf-8')}```"

    return re.sub(r"^<!-- include: (\S+\.py) -->$", code, text, flags=re.MULTILINE)


def _relinked(text: str, folder: Path) -> str:
    """Turns links between documents of the repository into links between pages of the site.

    Links to files that are no page of the site become plain text.

    Args:
        text: a document.
        folder: where it is in the repository; links are relative to it.
    """

    def relink(match: re.Match[str]) -> str:
        label, path, anchor = match.groups(default="")
        full = (PROJECT / folder / path).resolve()
        if not full.is_relative_to(PROJECT):
            return match[0]
        relative = full.relative_to(PROJECT)
        if target := _INCLUDED.get(relative.as_posix()):
            return f"[{label}]({target}{anchor})"
        if relative.parts[0] == "docs":
            return f"[{label}]({relative.relative_to('docs').as_posix()}{anchor})"
        return label if full.exists() else match[0]

    return re.sub(r"\[([^\]]*)\]\(([\w./-]+)(#[\w.-]+)?\)", relink, text)


if __name__ == "__main__":
    build()
