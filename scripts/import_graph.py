"""Draws which parts of the package import which, as an SVG.

    python -m scripts.import_graph arrows.svg

Each box is a module or folder of `rsicd_embed`. It only imports from boxes below it. An arrow that
a chain of other arrows implies is left out.
"""

from __future__ import annotations

import ast
import functools
import sys
from collections.abc import Mapping
from html import escape
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "rsicd_embed"
# Small modules that everything may use: drawn as one box.
_SHARED = "shared modules"
_INTERFACES = {"stores.base", "stores.uri", "embedder.base"}
_WIDTH, _BOX_HEIGHT, _LAYER_HEIGHT = 860, 34, 84


@functools.cache
def import_graph() -> dict[str, set[str]]:
    """The parts of the package, and for each the parts that it imports."""
    graph: dict[str, set[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        if module == "__init__":
            continue
        imports = graph.setdefault(_part(module), set())
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            imports |= {_part(name) for name in _imported(node)}
    return {part: imports - {part} for part, imports in graph.items()}


def layers(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """The parts by their height: a part is one layer above the highest part that it imports.

    Raises:
        ValueError: parts import each other in a cycle.

    Example:
        >>> layers({"cli": {"query"}, "query": {"errors"}, "errors": set()})
        [['errors'], ['query'], ['cli']]
    """
    heights: dict[str, int] = {}
    while len(heights) < len(graph):
        ready = [
            part
            for part, imports in graph.items()
            if part not in heights and imports <= heights.keys()
        ]
        if not ready:
            raise ValueError(f"expected no cycle among {sorted(graph.keys() - heights.keys())}")
        new = {part: 1 + max((heights[i] for i in graph[part]), default=-1) for part in ready}
        heights |= new
    return [
        sorted(part for part, height in heights.items() if height == level)
        for level in range(max(heights.values()) + 1)
    ]


def reduced(graph: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """The graph without the arrows that a chain of others implies.

    Example:
        >>> reduced({"a": {"b", "c"}, "b": {"c"}, "c": set()})
        {'a': {'b'}, 'b': {'c'}, 'c': set()}
    """

    def below(part: str) -> set[str]:
        return graph[part].union(*(below(other) for other in graph[part]))

    return {
        part: imports - set().union(*(below(other) for other in imports))
        for part, imports in graph.items()
    }


def svg(graph: Mapping[str, set[str]]) -> str:
    """Draws the parts in layers, the ones that import most at the top."""
    rows = layers(graph)
    boxes: dict[str, tuple[float, float, float]] = {}  # centre x, top y, width
    for level, parts in enumerate(reversed(rows)):
        ordered = _by_neighbours(parts, graph, boxes)
        widths = [9.2 * len(part) + 24 for part in ordered]
        gap = (_WIDTH - sum(widths)) / (len(ordered) + 1)
        x = gap
        for part, width in zip(ordered, widths, strict=True):
            boxes[part] = (x + width / 2, 12 + level * _LAYER_HEIGHT, width)
            x += width + gap
    height = 24 + (len(rows) - 1) * _LAYER_HEIGHT + _BOX_HEIGHT
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
            'font-family="ui-monospace, Menlo, Consolas, monospace" font-size="15" role="img">',
            "<title>Which parts of rsicd_embed import which</title>",
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
            'markerHeight="7" orient="auto"><path d="M0 0 8 4 0 8z" fill="#7684a0"/></marker>'
            "</defs>",
            f'<rect width="{_WIDTH}" height="{height}" fill="#fff"/>',
            *_arrows(graph, boxes),
            *(_box(part, *place) for part, place in boxes.items()),
            "</svg>\n",
        ]
    )


def _by_neighbours(
    parts: list[str],
    graph: Mapping[str, set[str]],
    above: Mapping[str, tuple[float, float, float]],
) -> list[str]:
    """Orders a layer so that parts are near those above that import them."""

    def mean_x(part: str) -> float:
        xs = [above[other][0] for other in above if part in graph[other]]
        return sum(xs) / len(xs) if xs else _WIDTH / 2

    return sorted(parts, key=mean_x)


def _arrows(
    graph: Mapping[str, set[str]], boxes: Mapping[str, tuple[float, float, float]]
) -> list[str]:
    lines = []
    for part, imports in sorted(reduced(graph).items()):
        for other in sorted(imports):
            x, y = boxes[part][0], boxes[part][1] + _BOX_HEIGHT
            to_x, to_y = boxes[other][0], boxes[other][1] - 2
            bend = (to_y - y) / 2
            lines.append(
                f'<path d="M{x:.0f} {y}C{x:.0f} {y + bend:.0f} {to_x:.0f} {to_y - bend:.0f} '
                f'{to_x:.0f} {to_y}" fill="none" stroke="#7684a0" marker-end="url(#tip)">'
                f"<title>{escape(part)} imports {escape(other)}</title></path>"
            )
    return lines


def _box(part: str, x: float, y: float, width: float) -> str:
    fill = "#fff4d6" if part in _INTERFACES else "#e8edf8"
    return (
        f'<rect x="{x - width / 2:.0f}" y="{y}" width="{width:.0f}" height="{_BOX_HEIGHT}" rx="6" '
        f'fill="{fill}" stroke="#46557a"/><text x="{x:.0f}" y="{y + 22}" text-anchor="middle" '
        f'fill="#1c2538">{escape(part)}</text>'
    )


def _imported(node: ast.AST) -> list[str]:
    """Modules of the package that an import statement names, without the package's name."""
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
        # `from rsicd_embed import files` imports a module.
        folder = PACKAGE.parent / node.module.replace(".", "/")
        modules = {path.stem for path in folder.glob("*") if path.suffix in ("", ".py")}
        names = [
            f"{node.module}.{alias.name}" if alias.name in modules else node.module
            for alias in node.names
        ]
    else:
        return []
    prefix = f"{PACKAGE.name}."
    return [name.removeprefix(prefix) for name in names if name.startswith(prefix)]


def _part(module: str) -> str:
    interface = next((name for name in _INTERFACES if module == name), None)
    folder = module.partition(".")[0]
    if interface or (PACKAGE / folder).is_dir():
        return interface or folder
    # The one module of the top level that is no kernel: it joins embedders and LanceDB.
    return "lancedb.py" if folder == "lancedb" else _SHARED


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(svg(import_graph()), encoding="utf-8")
