"""Makes the pictures of README.md and docs/: search page, Earth sheet, terminal recording.

    python -m scripts.make_pictures

Everything shows tiles of NASA's Blue Marble, which is in the public domain. Needs the test and demo
dependency groups, and Chromium.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from html import escape
from io import BytesIO
from pathlib import Path

from PIL import Image

from scripts.doc_blocks import PROJECT, blocks
from scripts.doc_examples import TILES_STORE, Workspace

PICTURES = PROJECT / "docs" / "images"
_MOST_BYTES = 300_000
_EARTH_ROWS = (
    ("desert", None),
    ("snow mountains", None),
    ("blue sea", None),
    ("desert", "lat BETWEEN -60 AND 0"),
)


def earth_sheet(workspace: Workspace) -> None:
    """Draws a row of tiles for each of four queries, as `make demo` does."""
    import demo

    import rsicd_embed
    from rsicd_embed.pictures import GridCell, GridRow, draw_grid

    embedder = rsicd_embed.load_embedder(backend="numpy")
    uri = TILES_STORE.replace("./", f"{workspace.folder}/")
    rows = []
    with rsicd_embed.open_store(uri, embedder=embedder) as store:
        for query, where in _EARTH_ROWS:
            hits = store.search(embedder.embed_texts([query]), 6, where).to_pylist()
            cells = [GridCell(h["uri"], f"{h['score']:+.3f}", note=demo.place(h)) for h in hits]
            rows.append(GridRow(cells, title=f"{query}   where {where}" if where else query))
    _save(draw_grid(rows, side=160), "earth.jpg")


def search_page(workspace: Workspace) -> None:
    """Takes a picture of the search page with results."""
    from playwright.sync_api import sync_playwright

    with (
        workspace.server(["--store", TILES_STORE, "--hide-paths"]) as (_, address),
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox"]
        )
        page = browser.new_page(viewport={"width": 1200, "height": 1320})
        page.goto(f"{address}?text=sea")  # so that the times shown are those of a warm server
        page.wait_for_load_state("networkidle")
        page.goto(f"{address}?text=snow+mountains&k=12&more=earth.tif%234104%2C864%2C108%2C108")
        page.wait_for_load_state("networkidle")
        screenshot = page.screenshot()
        browser.close()
    _save(Image.open(BytesIO(screenshot)).convert("RGB"), "search-page.jpg")


def _save(image: Image.Image, name: str) -> None:
    """Writes a JPEG with the best quality that stays below 300 kB."""
    for quality in (92, 88, 84, 80, 76, 72, 68, 64):
        content = BytesIO()
        image.save(content, "JPEG", quality=quality, optimize=True, progressive=True)
        if content.tell() < _MOST_BYTES:
            (PICTURES / name).write_bytes(content.getvalue())
            return
    raise ValueError(f"expected {name} to fit {_MOST_BYTES:,} bytes, found a larger picture")


@dataclass(frozen=True)
class Step:
    """A command of the recording and what it prints."""

    command: str
    output: tuple[str, ...]


def recording(steps: list[Step], width: int = 100) -> str:
    """An animated SVG of a terminal: commands are typed, then their output appears.

    Args:
        steps: the commands, in order.
        width: characters per line; longer lines are cut.
    """
    character, line_height, margin = 8.4, 19, 18
    lines, seconds = [], 0.6
    for step in steps:
        typing = 0.035 * len(step.command)
        lines.append((f"$ {step.command}"[:width], seconds, typing))
        seconds += typing + 0.5
        for text in step.output:
            lines.append((text if len(text) <= width else f"{text[: width - 1]}…", seconds, 0.0))
            seconds += 0.12
        lines.append(("", seconds, 0.0))
        seconds += 1.6
    total = seconds + 3
    size = (
        f"{width * character + 2 * margin:.0f}",
        f"{len(lines) * line_height + 2 * margin + 14:.0f}",
    )
    body = [
        _line(text, start / total, typing / total, total, margin, 46 + n * line_height, n)
        for n, (text, start, typing) in enumerate(lines)
        if text
    ]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size[0]} {size[1]}" '
            f'width="{size[0]}" font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, '
            'DejaVu Sans Mono, monospace" font-size="14">',
            "<title>A terminal in which rsicd-embed ingests tiles and searches them</title>",
            f'<rect width="{size[0]}" height="{size[1]}" rx="8" fill="#15202b"/>',
            *(
                f'<circle cx="{18 + 16 * n}" cy="16" r="5" fill="{colour}"/>'
                for n, colour in enumerate(("#ff5f57", "#febc2e", "#28c840"))
            ),
            *body,
            "</svg>\n",
        ]
    )


def _line(text: str, start: float, typing: float, total: float, x: int, y: int, n: int) -> str:
    """A line that appears at a share of the animation, typed if it is a command."""
    first = f"{100 * start:.2f}%"
    is_command = text.startswith("$ ")
    if is_command:
        end = f"{100 * (start + typing):.2f}%"
        frames = f"0%,{first}{{clip-path:inset(0 100% 0 0)}}{end},100%{{clip-path:inset(0 0 0 0)}}"
        timing = f"steps({len(text)})"
    else:
        frames = f"0%,{first}{{opacity:0}}{100 * start + 0.01:.2f}%,100%{{opacity:1}}"
        timing = "linear"
    colour = "#e6edf3" if is_command else "#9fb3c8"
    # The text without animation is what programs show that do not animate.
    return (
        f"<style>@keyframes l{n}{{{frames}}}#l{n}{{animation:l{n} {total:.1f}s {timing} infinite}}"
        f'</style><text id="l{n}" x="{x}" y="{y}" fill="{colour}" xml:space="preserve">'
        f"{escape(text)}</text>"
    )


def terminal(workspace: Workspace) -> None:
    """Records the commands of the README's quickstart."""
    readme = (PROJECT / "README.md").read_text(encoding="utf-8")
    (block,) = (block for block in blocks(readme) if block.language == "console")
    printed = workspace.run(block) or ""
    steps = [
        Step(command, tuple(output.rstrip("\n").split("\n")))
        for command, _, output in (part.partition("\n") for part in printed.split("$ ")[1:])
    ]
    (PICTURES / "terminal.svg").write_text(recording(steps), encoding="utf-8")


def main() -> None:
    """Makes all pictures; takes as long as embedding 1,250 images twice."""
    sys.path.insert(0, str(PROJECT / "examples"))
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        workspace = Workspace.filled(Path(temporary, "ada"))
        earth_sheet(workspace)
        search_page(workspace)
        terminal(workspace)


if __name__ == "__main__":
    main()
