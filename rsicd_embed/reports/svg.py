"""Plots as SVG: scatter plots, bars, and strips of points. Colours come from the page's style.

Every mark has a title, which browsers show on hover; there are no scripts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _HEIGHT, _ROW = 760, 380, 30
_LEFT, _RIGHT, _TOP, _BOTTOM = 84, 16, 16, 46
_NAME, _VALUE = 250, 130  # width of the columns of names and of values
_NAME_LENGTH = 36
SERIES = 10  # number of colours in the page's style


@dataclass(frozen=True)
class Mark:
    """A point and its hover text; in strips, `y` is its radius."""

    x: float
    y: float
    title: str


@dataclass(frozen=True)
class Series:
    """Points of one kind.

    Attributes:
        name: in the legend.
        marks: the points.
        colour: a number below `SERIES`.
        line: whether the points are joined from left to right.
        hollow: whether the points are drawn as rings.
    """

    name: str
    marks: Sequence[Mark]
    colour: int
    line: bool = False
    hollow: bool = False


@dataclass(frozen=True)
class Axis:
    """An axis: its label, its ticks, and the position of a value from 0 to 1."""

    label: str
    ticks: Sequence[tuple[float, str]]
    place: Callable[[float], float]


@dataclass(frozen=True)
class Bar:
    """A bar with its value as text, and an interval if there is one."""

    name: str
    value: float
    text: str
    low: float | None = None
    high: float | None = None
    colour: int = 0


def log_axis(label: str, values: Sequence[float]) -> Axis:
    """A logarithmic axis around positive values, with as many ticks as fit."""
    low, high = math.log10(min(values) / 1.15), math.log10(max(values) * 1.15)
    span = high - low
    bases: tuple[float, ...] = (1,)
    if span < 3:
        bases = (1, 2, 5) if span > 0.8 else (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9)
    powers = range(math.floor(low), math.ceil(high) + 1)
    values = [base * 10.0**power for power in powers for base in bases]
    ticks = [
        (value, f"{value:,.0f}" if value >= 1 else f"{value:g}")
        for value in values
        if low <= math.log10(value) <= high
    ]
    return Axis(label, ticks, lambda value: (math.log10(value) - low) / span)


def share_axis(label: str, values: Sequence[float]) -> Axis:
    """An axis up to 1, logarithmic in the difference from 1: .9, .99 and .999 are equally spaced.

    Values above 0.9999 are drawn at 1.
    """
    floor = 1e-4
    top = max(0.02, 1.3 * (1 - min(values)))

    def depth(value: float) -> float:
        return math.log10(max(1 - value, floor))

    low, high = math.log10(min(1.0, top)), math.log10(floor)
    shown = (0.0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995)
    ticks = [(value, f"{value:g}") for value in shown if depth(value) <= low]
    return Axis(label, [*ticks, (1.0, "1")], lambda value: (depth(value) - low) / (high - low))


def scatter(series: Sequence[Series], x: Axis, y: Axis, label: str) -> str:
    """Points of several series on two axes, with a legend."""
    inner_w, inner_h = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
    bottom, middle = _TOP + inner_h, _TOP + inner_h / 2
    parts = []
    for value, text in x.ticks:
        left = _LEFT + inner_w * x.place(value)
        parts += [_line(left, _TOP, left, bottom, "grid"), _text(left, bottom + 18, text, "middle")]
    for value, text in y.ticks:
        top = _TOP + inner_h * (1 - y.place(value))
        parts.append(_line(_LEFT, top, _LEFT + inner_w, top, "grid"))
        parts.append(_text(_LEFT - 8, top + 4, text, "end"))
    parts.append(_text(_LEFT + inner_w / 2, _HEIGHT - 6, x.label, "middle", "label"))
    rotated = f' transform="rotate(-90 14 {middle:.1f})"'
    parts.append(_text(14, middle, y.label, "middle", "label", rotated))
    for each in series:
        placed = sorted(
            (
                _LEFT + inner_w * x.place(mark.x),
                _TOP + inner_h * (1 - y.place(mark.y)),
                mark.title,
            )
            for mark in each.marks
        )
        if each.line and len(placed) > 1:
            path = " ".join(f"{left:.1f},{top:.1f}" for left, top, _ in placed)
            parts.append(f'<polyline class="curve c{each.colour}" points="{path}"/>')
        kind = f"c{each.colour}{' ring' if each.hollow else ''}"
        parts += [_point(left, top, 5, kind, title) for left, top, title in placed]
    return _svg(parts, _HEIGHT, label) + legend(series)


def legend(series: Sequence[Series]) -> str:
    """Names beside their colours, each once."""
    named = {each.name: each for each in reversed(series)}
    items = "".join(
        f'<li><svg viewBox="0 0 12 12" class="key"><circle class="c{each.colour}'
        f'{" ring" if each.hollow else ""}" cx="6" cy="6" r="4.5"/></svg>{escape(name)}</li>'
        for name, each in reversed(named.items())
    )
    return f'<ul class="legend">{items}</ul>'


def bars(rows: Sequence[Bar], label: str) -> str:
    """Horizontal bars from 0, each with its name, value and interval."""
    most = max((bar.high or bar.value for bar in rows), default=0.0) or 1.0
    scale = (_WIDTH - _NAME - _VALUE) / most
    parts = []
    for row, bar in enumerate(rows):
        top, end = 4 + row * _ROW, bar.value
        parts.append(_text(_NAME - 10, top + 20, _cut(bar.name), "end"))
        parts.append(
            f'<rect class="bar c{bar.colour}" x="{_NAME}" y="{top + 5}" rx="3" '
            f'width="{max(scale * bar.value, 1):.1f}" height="{_ROW - 10}">'
            f"<title>{escape(f'{bar.name}: {bar.text}')}</title></rect>"
        )
        if bar.low is not None and bar.high is not None:
            end, middle = max(bar.value, bar.high), top + _ROW / 2
            low, high = _NAME + scale * bar.low, _NAME + scale * bar.high
            parts.append(_line(low, middle, high, middle, "whisker"))
        parts.append(_text(_NAME + scale * end + 8, top + 20, bar.text, "start", "value"))
    return _svg(parts, _ROW * len(rows) + 8, label)


def strips(rows: Sequence[tuple[str, int, Sequence[Mark]]], x: Axis, label: str) -> str:
    """A row of points per name and colour, on one axis: the distribution of samples."""
    inner, height = _WIDTH - _NAME - _RIGHT, _ROW * len(rows) + 44
    parts = []
    for value, text in x.ticks:
        left = _NAME + inner * x.place(value)
        parts.append(_line(left, 4, left, height - 40, "grid"))
        parts.append(_text(left, height - 22, text, "middle"))
    for row, (name, colour, marks) in enumerate(rows):
        middle = 4 + _ROW * (row + 0.5)
        parts.append(_text(_NAME - 10, middle + 5, _cut(name), "end"))
        placed = [_NAME + inner * x.place(mark.x) for mark in marks]
        parts.append(_line(min(placed), middle, max(placed), middle, f"span c{colour}"))
        parts += [
            _point(left, middle, mark.y, f"c{colour}", mark.title)
            for left, mark in zip(placed, marks, strict=True)
        ]
    parts.append(_text(_NAME + inner / 2, height - 4, x.label, "middle", "label"))
    return _svg(parts, height, label)


def _svg(parts: Sequence[str], height: int, label: str) -> str:
    head = f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(label)}">'
    return "".join([head, *parts, "</svg>"])


def _point(x: float, y: float, radius: float, kind: str, title: str) -> str:
    return (
        f'<circle class="point {kind}" cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}">'
        f"<title>{escape(title)}</title></circle>"
    )


def _line(x: float, y: float, x2: float, y2: float, kind: str) -> str:
    ends = f'x1="{x:.1f}" y1="{y:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line class="{kind}" {ends}/>'


def _text(x: float, y: float, text: str, anchor: str, kind: str = "", more: str = "") -> str:
    named = f' class="{kind}"' if kind else ""
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f"<text{named} {place}{more}>{escape(text)}</text>"


def _cut(name: str) -> str:
    return name if len(name) <= _NAME_LENGTH else f"{name[: _NAME_LENGTH - 1]}…"
