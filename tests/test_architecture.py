"""Which part of the package may import which; docstrings say why, this says whether."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import rsicd_embed

ROOT = Path(rsicd_embed.__file__).parent

# A part is a module, or a package with all that is in it; the longest name that fits counts.
# `images` reads pictures for everyone: it imports errors only.
MAY_IMPORT = {
    "errors": set(),
    "arguments": {"errors"},
    "closing": set(),
    "parallel": set(),
    "files": {"errors"},
    "_lazy_torchvision": set(),
    "embedder.clip.backends._lazy_openvino": set(),
    "plugins": {"errors"},
    "json_output": set(),
    "records": {"errors"},
    "images": {"errors"},
    "datasets": {"errors", "files", "records", "parallel", "images"},
    "embedder.base": {"errors", "arguments", "records", "parallel", "images"},
    "stores.base": {"errors", "arguments", "records", "parallel", "plugins"},
    "embedder": {
        "errors", "arguments", "files", "plugins", "records", "parallel", "images", "embedder.base",
        "embedder.clip.backends._lazy_openvino",
    },
    "stores": {
        "errors", "arguments", "closing", "files", "records", "parallel", "plugins",
        "stores.base",
    },
    # LanceDB's embedding functions: what joins the two.
    "lancedb": {"errors", "records", "embedder", "images", "embedder.base"},
    "rowfile": {"errors", "files", "records"},
    "indexing": {
        "errors", "arguments", "files", "records", "parallel", "datasets", "images",
        "embedder.base", "stores.base", "rowfile",
    },
    # SQL with similarities: through the protocols, and the kernel that gives scores.
    "query": {
        "errors", "records", "parallel", "images", "embedder.base", "stores.base", "stores",
    },
    "train": {
        "errors", "closing", "files", "records", "parallel", "_lazy_torchvision", "datasets",
        "embedder", "images", "embedder.base",
    },
    "find": {"errors", "files", "parallel", "embedder.base"},
    "pictures": {"errors", "files", "images"},
    # What evaluation and benchmarks share: records, timing, statistics, pages.
    "reports": {"errors", "files", "parallel"},
    "evaluation": {
        "errors", "arguments", "files", "records", "parallel", "datasets", "images",
        "embedder.base", "reports",
    },
    "bench": {
        "errors", "arguments", "closing", "files", "records", "parallel", "plugins",
        "_lazy_torchvision", "embedder.clip.backends._lazy_openvino", "datasets", "images",
        "embedder.base", "stores.base", "stores", "indexing", "reports",
        "evaluation",
    },
}  # fmt: skip
ANYTHING = {
    "cli",
    "server",
    "testing",
    "",
}  # "" is the package's own __init__, which imports inside functions

# Which parts may import a library.
LIBRARIES = {
    "jax": {"embedder", "train"},
    "flax": {"embedder", "train"},
    "optax": {"train"},
    "orbax": {"train"},
    # `bench ann` times them without a store.
    "lancedb": {"stores", "lancedb", "bench"},
    "nmslib": {"stores"},
    "datafusion": {"stores", "query"},
    # Its references are optional.
    "transformers": {"train", "bench"},
    "torch": {"train", "bench"},
    "matplotlib": {"evaluation", "train"},
    "grain": {"train"},
    "sklearn": {"evaluation"},
    "psutil": {"reports"},
    "threadpoolctl": {"bench", "evaluation"},
    "onnxruntime": {"bench"},
    # `bench ann` has them as lines to compare with, and reads files of ann-benchmarks.
    "hnswlib": {"bench"},
    "faiss": {"bench"},
    "usearch": {"bench"},
    "h5py": {"bench"},
    "openvino": {"embedder"},
    "fastapi": {"server"},
    "starlette": {"server"},
    "uvicorn": {"server"},
    "prometheus_client": {"server"},
    "click": {"cli"},
    "rich": {"cli"},
}


def part(module: str) -> str:
    """The part that a module of the package, named without the package, belongs to."""
    while module and module not in MAY_IMPORT and module not in ANYTHING:
        module = module.rpartition(".")[0]
    return module


def imported(tree: ast.AST, module: str, is_package: bool) -> set[str]:
    """Full names of all that is imported, at the top and in functions."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = module.split(".")[: None if is_package and node.level == 1 else -1]
                parents = parents[: len(parents) - node.level + 1]
                base = ".".join([*parents, base]).strip(".")
            # `from package import module` imports a module too.
            for alias in node.names:
                full = f"{base}.{alias.name}"
                path = Path(*full.split(".")[1:])
                is_module = full.startswith("rsicd_embed.") and (
                    (ROOT / path).is_dir() or (ROOT / path).with_suffix(".py").is_file()
                )
                found.add(full if is_module else base)
    return found


def modules() -> list[tuple[str, set[str]]]:
    """Every module, named without the package, and what it imports."""
    found = []
    for path in sorted(ROOT.rglob("*.py")):
        names = path.relative_to(ROOT).with_suffix("").parts
        is_package = names[-1] == "__init__"
        name = ".".join(names[:-1] if is_package else names)
        tree = ast.parse(path.read_text(encoding="utf-8"))
        full = f"rsicd_embed.{name}".rstrip(".")
        found.append((name, imported(tree, full, is_package)))
    return found


IMPORTS = dict(modules())


@pytest.mark.parametrize("name", IMPORTS)
def test_imports_run_one_way(name: str) -> None:
    imports = IMPORTS[name]
    own = part(name)
    for one in sorted(imports):
        package, _, rest = one.partition(".")
        if package == "rsicd_embed" and own not in ANYTHING:
            other = part(rest)
            assert other == own or other in MAY_IMPORT[own], f"{name} imports {one}"
        elif package in LIBRARIES:
            assert own.partition(".")[0] in LIBRARIES[package], f"{name} imports {one}"


def test_every_part_has_its_arrows() -> None:
    """A new module or package must be given a place above."""
    unplaced = [name for name in IMPORTS if part(name) == "" and name != ""]
    assert unplaced == []


def test_arrows_make_no_circle() -> None:
    order: list[str] = []

    def visit(one: str, above: tuple[str, ...]) -> None:
        assert one not in above, f"{' → '.join([*above, one])}"
        for other in sorted(MAY_IMPORT[one]):
            if other not in order:
                visit(other, (*above, one))
        order.append(one)

    for one in MAY_IMPORT:
        visit(one, ())
    assert order.index("errors") < order.index("records") < order.index("datasets")


def test_the_parser_sees_all_forms() -> None:
    tree = ast.parse(
        "import jax.numpy as jnp\n"
        "from rsicd_embed import plugins, errors as e\n"
        "def f():\n    from rsicd_embed.stores.base import StoreURI\n    from . import folder\n"
        "    from .. import records\n    from ..stores import exact\n"
    )
    assert imported(tree, "rsicd_embed.datasets.sources", is_package=False) == {
        "jax.numpy", "rsicd_embed.plugins", "rsicd_embed.errors", "rsicd_embed.stores.base",
        "rsicd_embed.datasets.folder", "rsicd_embed.records", "rsicd_embed.stores.exact",
    }  # fmt: skip
