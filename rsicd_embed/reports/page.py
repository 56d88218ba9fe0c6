"""HTML pages of reports: one self-contained file per page, in a light and a dark theme."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from rsicd_embed.reports.record_types import RunRecord
from rsicd_embed.reports.svg import SERIES

# Colours of the series, in the light and in the dark theme.
_LIGHT = "#1d4ed8 #c2410c #047857 #a21caf #a16207 #0e7490 #be123c #4d7c0f #6d28d9 #57606a"
_DARK = "#7aa2f7 #ff9e64 #5fd3a1 #e08ff0 #e0c46c #67d4e8 #ff8fa3 #a6d66a #b79cff #a0a8b4"

_STYLE = """
:root { color-scheme: light dark; --back: #fbfbfc; --card: #fff; --text: #1f2328; --soft: #59636e;
  --line: #d8dee4; --grid: #e6eaef; --warn: #9a3412; %(light)s }
@media (prefers-color-scheme: dark) { :root { --back: #0d1117; --card: #161b22; --text: #e6edf3;
  --soft: #9aa4b2; --line: #30363d; --grid: #262c36; --warn: #fdba74; %(dark)s } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--text);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 900px; margin: 0 auto; padding: 32px 20px 64px; }
h1 { font-size: 26px; line-height: 1.25; margin: 0 0 6px; }
h1.next { margin-top: 64px; border-top: 2px solid var(--line); padding-top: 40px; }
h2 { font-size: 18px; margin: 0 0 4px; }
p { margin: 0 0 12px; } .soft { color: var(--soft); }
section { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 20px 22px; margin: 18px 0; }
.warn { border-color: var(--warn); color: var(--warn); font-weight: 600; }
code, pre { font: 13px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
pre { overflow-x: auto; background: var(--back); border: 1px solid var(--line); border-radius: 6px;
  padding: 10px 12px; margin: 0 0 12px; white-space: pre-wrap; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px;
  margin: 18px 0; }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 12px 16px; } .tile b { display: block; font-size: 22px; line-height: 1.3; }
.tile span { color: var(--soft); font-size: 13px; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; width: 100%%; font-size: 13.5px;
  font-variant-numeric: tabular-nums; }
th { font-weight: 600; color: var(--soft); text-align: right; border-bottom: 1px solid var(--line);
  padding: 4px 8px; vertical-align: bottom; }
td { text-align: right; padding: 4px 8px; border-bottom: 1px solid var(--grid);
  white-space: nowrap; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
tr.best td { font-weight: 600; } details { margin-top: 8px; } summary { cursor: pointer; }
svg { display: block; width: 100%%; height: auto; margin: 8px 0; overflow: visible; }
svg text { fill: var(--soft); font: 12.5px system-ui, sans-serif; }
svg .label { fill: var(--text); } svg .value { fill: var(--text); font-weight: 600; }
.grid { stroke: var(--grid); } .whisker { stroke: var(--text); stroke-width: 1.5; }
.curve { fill: none; stroke-width: 1.75; opacity: .65; } .span { stroke-width: 2; opacity: .45; }
.point, .bar, .key circle { fill: var(--c); stroke: var(--c); } .bar { opacity: .85; }
.point.ring, .key .ring { fill: var(--card); stroke-width: 2; } .curve, .span { stroke: var(--c); }
.point:hover { stroke: var(--text); stroke-width: 2; }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: 4px 18px; padding: 0; margin: 0;
  font-size: 13px; } .legend li { display: flex; align-items: center; gap: 6px; }
.key { width: 12px; margin: 0; } %(classes)s
"""


@dataclass(frozen=True)
class Section:
    """A section of a page: a heading, a sentence that explains it, and HTML."""

    title: str
    caption: str
    html: str


@dataclass(frozen=True)
class Report:
    """The report of a run: a title, tiles (name and value) of key metrics, and sections."""

    title: str
    tiles: Sequence[tuple[str, str]]
    sections: Sequence[Section]


def page(runs: Sequence[RunRecord], reports: Sequence[Report]) -> str:
    """A page of one or more runs and their reports."""
    style = _STYLE % {
        "light": _colours(_LIGHT),
        "dark": _colours(_DARK),
        "classes": " ".join(f".c{i} {{ --c: var(--c{i}); }}" for i in range(SERIES)),
    }
    body = "".join(
        _run(run, report, first=position == 0)
        for position, (run, report) in enumerate(zip(runs, reports, strict=True))
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<link rel="icon" href="data:,">'
        f"<title>{escape(reports[0].title)}</title><style>{style}</style></head>"
        f"<body><main>{body}</main></body></html>\n"
    )


def table(rows: Sequence[Sequence[str]], best: Sequence[int] = ()) -> str:
    """A table whose first row is its header; rows whose numbers, from 1, are in `best` are bold."""
    head, *others = rows
    lines = ["<tr>" + "".join(f"<th>{escape(cell)}</th>" for cell in head) + "</tr>"]
    for number, row in enumerate(others, 1):
        cells = "".join(f"<td>{escape(cell)}</td>" for cell in row)
        lines.append(f"<tr{' class=best' if number in best else ''}>{cells}</tr>")
    return f'<div class="scroll"><table>{"".join(lines)}</table></div>'


def _colours(theme: str) -> str:
    return " ".join(f"--c{i}: {colour};" for i, colour in enumerate(theme.split()))


def _run(run: RunRecord, report: Report, *, first: bool) -> str:
    machine = run["machine"]
    where = f"{machine.get('cpu')}, {machine.get('cores')} cores · {run.get('started', '')[:10]}"
    tiles = "".join(
        f'<div class="tile"><b>{escape(value)}</b><span>{escape(name)}</span></div>'
        for name, value in report.tiles
    )
    partial = (
        '<section class="warn">This run was interrupted. The page shows what was measured before '
        "that.</section>"
        if not run.get("complete", True)
        else ""
    )
    sections = "".join(
        f"<section><h2>{escape(section.title)}</h2><p class=soft>{escape(section.caption)}</p>"
        f"{section.html}</section>"
        for section in (*report.sections, _reproduction(run))
    )
    return (
        f"<h1{'' if first else ' class=next'}>{escape(report.title)}</h1>"
        f'<p class="soft">{escape(where)}</p>{partial}<div class="tiles">{tiles}</div>{sections}'
    )


def _reproduction(run: RunRecord) -> Section:
    """The command, machine, settings and versions of a run."""
    machine, git = run["machine"], run["machine"].get("git")
    state = (
        f"{git['commit'][:12]}{' with changes' if git.get('dirty') else ''}"
        if git
        else "not a checkout"
    )
    rows = [("", "")]
    rows += [(name, _plain(value)) for name, value in machine.items() if _is_shown(name, value)]
    rows.append(("source", state))
    packages = [("package", "version"), *machine.get("packages", {}).items()]
    settings = [
        ("setting", "value"),
        *((name, _plain(value)) for name, value in run["settings"].items()),
    ]
    html = (
        f"<pre>{escape(run['command'])}</pre>{table(rows)}"
        f"<details><summary>Settings</summary>{table(settings)}</details>"
        f"<details><summary>Versions</summary>{table(packages)}</details>"
    )
    return Section("How to reproduce", "Command, machine and versions.", html)


def _is_shown(name: str, value: object) -> bool:
    return name not in ("packages", "git") and value not in (None, [], {})


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}={_plain(item)}" for name, item in value.items()) or "–"
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value)) or "–"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
