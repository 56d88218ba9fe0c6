"""Plots as SVG, drawn by hand: points on two axes, and bars. Colours come from the page's style.

Every mark has a title, which browsers show where the pointer rests; there are no scripts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _ROW = 760, 30
_LEFT, _RIGHT, _TOP, _BOTTOM = 84, 16, 16, 46
_HEIGHT = 380
SERIES = 10  # colours that the page's style has


@dataclass(frozen=True)
class Mark:
    """A point: where, and what is said of it."""

    x: float
    y: float
    title: str


@dataclass(frozen=True)
class Series:
    """Points of one kind.

    Attributes:
        name: for the legend.
        marks: the points.
        colour: a number below `SERIES`.
        line: whether they are joined, from left to right.
        hollow: whether the points are drawn as rings.
    """

    name: str
    marks: Sequence[Mark]
    colour: int
    line: bool = False
    hollow: bool = False


@dataclass(frozen=True)
class Axis:
    """One axis: its ends, the numbers on it, and where a value lies between 0 and 1."""

    label: str
    ticks: Sequence[tuple[float, str]]
    place: Callable[[float], float]


@dataclass(frozen=True)
class Bar:
    """One bar, with an interval if there is one."""

    name: str
    value: float
    text: str
    low: float | None = None
    high: float | None = None
    colour: int = 0


def log_axis(label: str, values: Sequence[float]) -> Axis:
    """Powers of ten around positive values, with as many numbers between as there is room for."""
    low, high = math.log10(min(values) / 1.15), math.log10(max(values) * 1.15)
    span = high - low
    bases: tuple[float, ...] = (1,)
    if span < 3:
        bases = (1, 2, 5) if span > 0.8 else (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9)
    steps = [
        base * 10.0**power
        for power in range(math.floor(low), math.ceil(high) + 1)
        for base in bases
    ]
    ticks = [(one, _short(one)) for one in steps if low <= math.log10(one) <= high]
    return Axis(label, ticks, lambda value: (math.log10(value) - low) / span)


def share_axis(label: str, values: Sequence[float]) -> Axis:
    """From below the least share to 1, by what is missing: .9, .99 and .999 are equally far apart.

    What lies above the last of these lies at 1.
    """
    floor = 1e-4
    top = max(0.02, 1.3 * (1 - min(values)))

    def depth(value: float) -> float:
        return math.log10(max(1 - value, floor))

    low, high = math.log10(min(1.0, top)), math.log10(floor)
    shown = (0.0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995)
    ticks = [(one, f"{one:g}") for one in shown if depth(one) <= low]
    return Axis(label, [*ticks, (1.0, "1")], lambda value: (depth(value) - low) / (high - low))


def scatter(series: Sequence[Series], x: Axis, y: Axis, label: str) -> str:
    """Points of several kinds, with their legend."""
    parts = [f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(label)}">']
    inner_w, inner_h = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM

    def at(mark: Mark) -> tuple[float, float]:
        return _LEFT + inner_w * x.place(mark.x), _TOP + inner_h * (1 - y.place(mark.y))

    for value, text in x.ticks:
        place = _LEFT + inner_w * x.place(value)
        parts.append(_line(place, _TOP, place, _TOP + inner_h, "grid"))
        parts.append(_text(place, _TOP + inner_h + 18, text, "middle"))
    for value, text in y.ticks:
        place = _TOP + inner_h * (1 - y.place(value))
        parts.append(_line(_LEFT, place, _LEFT + inner_w, place, "grid"))
        parts.append(_text(_LEFT - 8, place + 4, text, "end"))
    parts.append(_text(_LEFT + inner_w / 2, _HEIGHT - 6, x.label, "middle", "label"))
    middle = _TOP + inner_h / 2
    turned = f' transform="rotate(-90 14 {middle:.1f})"'
    parts.append(_text(14, middle, y.label, "middle", "label", turned))
    for one in series:
        placed = sorted((*at(mark), mark.title) for mark in one.marks)
        if one.line and len(placed) > 1:
            path = " ".join(f"{left:.1f},{top:.1f}" for left, top, _ in placed)
            parts.append(f'<polyline class="curve c{one.colour}" points="{path}"/>')
        ring = " ring" if one.hollow else ""
        parts += [
            f'<circle class="point c{one.colour}{ring}" cx="{left:.1f}" cy="{top:.1f}" r="5">'
            f"<title>{escape(title)}</title></circle>"
            for left, top, title in placed
        ]
    return "".join([*parts, "</svg>", legend(series)])


def legend(series: Sequence[Series]) -> str:
    """Names beside their colours, each once."""
    named = {one.name: one for one in reversed(series)}
    items = "".join(
        f'<li><svg viewBox="0 0 12 12" class="key"><circle class="c{one.colour}'
        f'{" ring" if one.hollow else ""}" cx="6" cy="6" r="4.5"/></svg>{escape(name)}</li>'
        for name, one in reversed(named.items())
    )
    return f'<ul class="legend">{items}</ul>'


def bars(some: Sequence[Bar], label: str) -> str:
    """Horizontal bars from 0, each with its name and its value in words."""
    most = max((one.high or one.value for one in some), default=0.0) or 1.0
    name_w, text_w = 250, 130
    inner = _WIDTH - name_w - text_w
    height = _ROW * len(some) + 8
    parts = [f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(label)}">']
    for row, one in enumerate(some):
        top = 4 + row * _ROW
        long = inner * one.value / most
        parts.append(_text(name_w - 10, top + 20, _cut(one.name), "end"))
        parts.append(
            f'<rect class="bar c{one.colour}" x="{name_w}" y="{top + 5}" rx="3" '
            f'width="{max(long, 1):.1f}" height="{_ROW - 10}">'
            f"<title>{escape(f'{one.name}: {one.text}')}</title></rect>"
        )
        end = long
        if one.low is not None and one.high is not None:
            low, end = inner * one.low / most, max(long, inner * one.high / most)
            middle = top + _ROW / 2
            parts.append(
                _line(name_w + low, middle, name_w + inner * one.high / most, middle, "whisker")
            )
        parts.append(_text(name_w + end + 8, top + 20, one.text, "start", "value"))
    return "".join([*parts, "</svg>"])


def strips(some: Sequence[tuple[str, int, Sequence[Mark]]], x: Axis, label: str) -> str:
    """A row of points for each name, on one axis: how samples are distributed."""
    name_w = 250
    inner, height = _WIDTH - name_w - _RIGHT, _ROW * len(some) + 44
    parts = [f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(label)}">']
    for value, text in x.ticks:
        place = name_w + inner * x.place(value)
        parts.append(_line(place, 4, place, height - 40, "grid"))
        parts.append(_text(place, height - 22, text, "middle"))
    for row, (name, colour, marks) in enumerate(some):
        middle = 4 + _ROW * (row + 0.5)
        parts.append(_text(name_w - 10, middle + 5, _cut(name), "end"))
        placed = [name_w + inner * x.place(mark.x) for mark in marks]
        parts.append(_line(min(placed), middle, max(placed), middle, f"span c{colour}"))
        parts += [
            f'<circle class="point c{colour}" cx="{left:.1f}" cy="{middle:.1f}" '
            f'r="{mark.y:g}"><title>{escape(mark.title)}</title></circle>'
            for left, mark in zip(placed, marks, strict=True)
        ]
    parts.append(_text(name_w + inner / 2, height - 4, x.label, "middle", "label"))
    return "".join([*parts, "</svg>"])


def _line(x: float, y: float, x2: float, y2: float, kind: str) -> str:
    ends = f'x1="{x:.1f}" y1="{y:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line class="{kind}" {ends}/>'


def _text(x: float, y: float, text: str, anchor: str, kind: str = "", more: str = "") -> str:
    named = f' class="{kind}"' if kind else ""
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f"<text{named} {place}{more}>{escape(text)}</text>"


def _cut(name: str) -> str:
    return name if len(name) <= 36 else f"{name[:35]}…"


def _short(value: float) -> str:
    """1000 → 1,000; 0.05 → 0.05."""
    return f"{value:,.0f}" if value >= 1 else f"{value:g}"
