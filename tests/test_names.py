"""Modules and public classes have unique names."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

import rsicd_embed

ROOT = Path(rsicd_embed.__file__).parent
SHARED = ("__init__.py", "base.py")


def repeated(places: dict[str, list[str]]) -> dict[str, list[str]]:
    return {name: paths for name, paths in places.items() if len(paths) > 1}


def test_module_names_are_unique() -> None:
    places = defaultdict(list)
    for path in ROOT.rglob("*.py"):
        if path.name not in SHARED:
            places[path.name].append(path.relative_to(ROOT).as_posix())
    assert repeated(places) == {}


def test_class_names_are_unique() -> None:
    places = defaultdict(list)
    for path in ROOT.rglob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(path.relative_to(ROOT).as_posix())
    assert repeated(places) == {}
