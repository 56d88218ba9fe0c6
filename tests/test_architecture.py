"""Allowed imports between the parts of the package, and its public names."""

from __future__ import annotations

import ast
import inspect
import json
import re
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

import rsicd_embed

ROOT = Path(rsicd_embed.__file__).parent

# A part is a module or a whole package; the longest matching name counts.
MAY_IMPORT = {
    "errors": set(),
    "arguments": {"errors"},
    "parallel": set(),
    "files": {"errors"},
    "_lazy_torchvision": set(),
    "embedder.clip.backends._lazy_openvino": set(),
    "plugins": {"errors"},
    "json_output": set(),
    "geography": {"errors"},
    "records": {"errors"},
    "remote": {"errors"},
    "images": {"errors", "remote"},
    "datasets": {
        "errors", "arguments", "files", "records", "parallel", "remote", "images", "geography",
    },
    "embedder.base": {"errors", "arguments", "records", "parallel", "images"},
    "stores.uri": {"errors", "arguments", "plugins"},
    "stores.base": {"errors", "arguments", "records", "parallel", "plugins", "stores.uri"},
    "embedder": {
        "errors", "arguments", "files", "plugins", "records", "parallel", "images",
        "embedder.base",
        "embedder.clip.backends._lazy_openvino",
    },
    "stores": {
        "errors", "arguments", "files", "records", "parallel", "plugins", "remote",
        "stores.base", "stores.uri", "geography",
    },
    # LanceDB's embedding functions join stores and embedders.
    "lancedb": {"errors", "records", "embedder", "images", "embedder.base"},
    "rowfile": {"errors", "files", "records", "geography"},
    "indexing": {
        "errors", "arguments", "files", "records", "parallel", "remote", "datasets", "images",
        "embedder.base", "stores.base", "stores.uri", "stores", "rowfile", "geography",
    },
    # SQL with similarities needs the store's scores and its embedder, which it loads by default.
    "query": {
        "errors", "arguments", "files", "json_output", "records", "parallel", "images", "embedder",
        "datasets",
        "embedder.base", "stores.base", "stores", "geography",
    },
    # Sentences from vectors; words are split as the metrics of captions split them.
    "captioning": {
        "errors", "files", "records", "parallel", "embedder", "embedder.base", "evaluation",
    },
    "curation": {
        "errors", "records", "parallel", "datasets", "embedder.base", "stores.base", "stores",
        "evaluation", "captioning",
    },
    "train": {
        "errors", "files", "records", "parallel", "_lazy_torchvision", "datasets",
        "embedder", "images", "embedder.base", "captioning",
    },
    "find": {"errors", "files", "parallel", "embedder.base", "images"},
    "pictures": {"errors", "plugins", "arguments", "files", "records", "images"},
    # Shared by evaluation and benchmarks: records, timing, statistics, pages.
    "reports": {"errors", "files", "parallel"},
    "evaluation": {
        "errors", "plugins", "arguments", "files", "records", "parallel", "datasets", "images",
        "embedder.base", "reports",
    },
    "bench": {
        "errors", "arguments", "files", "records", "parallel", "plugins",
        "_lazy_torchvision", "embedder.clip.backends._lazy_openvino", "datasets", "images",
        "embedder.base", "stores.base", "stores.uri", "stores", "indexing", "reports",
        "evaluation",
    },
}  # fmt: skip
ANYTHING = {
    "cli",
    "server",
    "testing",
    "",
}  # "" is the package's own __init__

# The parts that may import a library.
LIBRARIES = {
    "jax": {"embedder", "train", "captioning"},
    "flax": {"embedder", "train", "captioning"},
    "optax": {"train"},
    "orbax": {"train"},
    # `bench ann` also times LanceDB without a store.
    "lancedb": {"stores", "lancedb", "bench"},
    "nmslib": {"stores"},
    "datafusion": {"stores", "query"},
    # Optional references for benchmarks.
    "transformers": {"train", "bench"},
    "torch": {"train", "bench"},
    "matplotlib": {"evaluation", "train"},
    "grain": {"train"},
    "sklearn": {"evaluation"},
    "psutil": {"reports"},
    "threadpoolctl": {"bench", "evaluation"},
    "onnxruntime": {"bench"},
    # Baselines of `bench ann`, and its reader of ann-benchmarks files.
    "hnswlib": {"bench"},
    "faiss": {"bench"},
    "usearch": {"bench"},
    "h5py": {"bench"},
    "openvino": {"embedder"},
    "fastapi": {"server"},
    "starlette": {"server"},
    "uvicorn": {"server"},
    "prometheus_client": {"server"},
    "mcp": {"server"},
    "obstore": {"remote"},
    "ray": {"indexing"},
    "boto3": {"remote"},
    "httpx": {"remote"},
    "click": {"cli"},
    "rasterio": {"images", "datasets", "find"},
    "pyproj": {"geography"},
    "shapely": {"geography", "indexing"},
    "pyogrio": {"geography"},
    "rich": {"cli"},
}


def part(module: str) -> str:
    """The part of a module, both named without the package."""
    while module and module not in MAY_IMPORT and module not in ANYTHING:
        module = module.rpartition(".")[0]
    return module


def imported(tree: ast.AST, module: str, is_package: bool) -> set[str]:
    """Full names of all imported modules, including imports inside functions."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = module.split(".")[: None if is_package and node.level == 1 else -1]
                parents = parents[: len(parents) - node.level + 1]
                base = ".".join([*parents, base]).strip(".")
            # `from package import module` also imports a module.
            for alias in node.names:
                full = f"{base}.{alias.name}"
                path = Path(*full.split(".")[1:])
                is_module = full.startswith("rsicd_embed.") and (
                    (ROOT / path).is_dir() or (ROOT / path).with_suffix(".py").is_file()
                )
                names.add(full if is_module else base)
    return names


@cache
def modules() -> dict[str, set[str]]:
    """The imports of every module, named without the package."""
    imports = {}
    for path in sorted(ROOT.rglob("*.py")):
        names = path.relative_to(ROOT).with_suffix("").parts
        is_package = names[-1] == "__init__"
        name = ".".join(names[:-1] if is_package else names)
        tree = ast.parse(path.read_text(encoding="utf-8"))
        full = f"rsicd_embed.{name}".rstrip(".")
        imports[name] = imported(tree, full, is_package)
    return imports


def is_allowed(own: str, target: str) -> bool:
    """Whether a module of the part `own` may import `target`."""
    package, _, rest = target.partition(".")
    if package == "rsicd_embed" and own not in ANYTHING:
        other = part(rest)
        return other == own or other in MAY_IMPORT[own]
    return package not in LIBRARIES or own.partition(".")[0] in LIBRARIES[package]


def test_imports_follow_the_arrows() -> None:
    forbidden = [
        f"{name} imports {target}"
        for name, targets in modules().items()
        for target in sorted(targets)
        if not is_allowed(part(name), target)
    ]
    assert forbidden == []


def test_forbidden_imports_are_seen() -> None:
    assert not is_allowed("stores", "rsicd_embed.cli.main")
    assert not is_allowed("query", "torch")
    assert is_allowed("stores", "lancedb.index")


def test_every_module_belongs_to_a_part() -> None:
    """New modules must be added to the tables above."""
    unplaced = [name for name in modules() if part(name) == "" and name != ""]
    assert unplaced == []


def test_arrows_have_no_cycle() -> None:
    order: list[str] = []

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, f"{' → '.join([*above, name])}"
        for other in sorted(MAY_IMPORT[name]):
            if other not in order:
                visit(other, (*above, name))
        order.append(name)

    for name in MAY_IMPORT:
        visit(name, ())
    assert order.index("errors") < order.index("records") < order.index("datasets")


def test_modules_have_no_cycle() -> None:
    imports = {f"rsicd_embed.{name}".rstrip("."): targets for name, targets in modules().items()}
    done: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, " → ".join([*above[above.index(name) :], name])
        for other in sorted(imports[name] & imports.keys() - done):
            visit(other, (*above, name))
        done.add(name)

    for name in imports:
        visit(name, ())


# Public modules, with their folder if their exports are lazy.
PUBLIC = {
    "rsicd_embed": "",
    "rsicd_embed.embedder": "embedder/",
    "rsicd_embed.errors": None,
    "rsicd_embed.evaluation": "evaluation/",
    "rsicd_embed.lancedb": None,
    "rsicd_embed.pictures": "pictures/",
    "rsicd_embed.stores": "stores/",
    "rsicd_embed.testing": "testing/",
}
LAZY = sorted(name for name, folder in PUBLIC.items() if folder is not None)
PROJECT = ROOT.parent


def python_documents() -> dict[str, str]:
    """Python code of the examples, and of blocks and cells in the documents, by place."""
    code = {path.name: path.read_text("utf-8") for path in PROJECT.glob("examples/*.py")}
    for path in (PROJECT / "README.md", *PROJECT.glob("docs/*.md")):
        blocks = re.findall(r"```(?:python|py)\n(.*?)```", path.read_text("utf-8"), re.DOTALL)
        code |= {f"{path.name}, block {n}": block for n, block in enumerate(blocks, 1)}
    for path in PROJECT.glob("docs/*.ipynb"):
        cells = json.loads(path.read_text("utf-8"))["cells"]
        code |= {
            f"{path.name}, cell {n}": re.sub(r"^[!%].*$", "", "".join(cell["source"]), flags=re.M)
            for n, cell in enumerate(cells, 1)
            if cell["cell_type"] == "code"
        }
    return code


DOCUMENTS = python_documents()


def names_used(code: str) -> list[tuple[str, str | None]]:
    """(module, name or None) of each name of the package that the code imports or looks up."""
    used: list[tuple[str, str | None]] = []
    modules: dict[str, str] = {}
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            used += [(alias.name, None) for alias in node.names]
            modules |= {alias.asname or "rsicd_embed": alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            used += [(str(node.module), alias.name) for alias in node.names]
            modules |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            module = modules.get(node.value.id)
            used += [(module, node.attr)] if module in PUBLIC else []
    return [(module, name) for module, name in used if module.split(".")[0] == "rsicd_embed"]


def unlisted(code: str) -> list[tuple[str, str | None]]:
    """Names of the package that the code uses and that are not public."""
    return [
        (module, name)
        for module, name in names_used(code)
        if module not in PUBLIC
        or not (
            name is None or name in import_module(module).__all__ or f"{module}.{name}" in PUBLIC
        )
    ]


@pytest.mark.parametrize("place", DOCUMENTS)
def test_examples_and_documents_use_public_names(place: str) -> None:
    assert unlisted(DOCUMENTS[place]) == []


def test_public_name_check_has_teeth() -> None:
    places = [place for place, code in DOCUMENTS.items() if names_used(code)]
    assert {place.partition(",")[0] for place in places} >= {
        "README.md", "search.md", "finetune.ipynb", "demo.py", "store_plugin.py",
        "embedder_plugin.py",
    }  # fmt: skip
    private = "import rsicd_embed.records\nfrom rsicd_embed.stores import opening, RowStore"
    assert unlisted(private) == [
        ("rsicd_embed.records", None), ("rsicd_embed.stores", "opening"),
    ]  # fmt: skip
    private = (
        "import rsicd_embed as r\nfrom rsicd_embed import stores\nr.records, stores.rows.conform"
    )
    assert unlisted(private) == [("rsicd_embed", "records"), ("rsicd_embed.stores", "rows")]
    public = "from rsicd_embed import errors, sql\nimport rsicd_embed.lancedb\nerrors.SQLError"
    assert unlisted(public) == []


@pytest.mark.parametrize("name", LAZY)
def test_lazy_exports_match_type_checking_blocks(name: str) -> None:
    """`__all__` and the exports agree with the `TYPE_CHECKING` block; no module is shadowed."""
    package = import_module(name)
    path = ROOT / str(PUBLIC[name]) / "__init__.py"
    block = next(node for node in ast.parse(path.read_text("utf-8")).body if is_for_types(node))
    seen = {
        alias.name: node.module
        for node in ast.walk(ast.Module(block.body, []))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    eager = {"RsicdEmbedError", "__version__"} if name == "rsicd_embed" else set()
    assert set(package.__all__) == {*seen, *eager}
    assert set(package.__all__) <= set(dir(package))
    for exported, module in seen.items():
        assert getattr(package, exported) is getattr(import_module(str(module)), exported)
        assert not (path.parent / exported).exists()
        assert not (path.parent / f"{exported}.py").exists()


def is_for_types(node: ast.stmt) -> bool:
    return (
        isinstance(node, ast.If)
        and isinstance(node.test, ast.Name)
        and node.test.id == "TYPE_CHECKING"
    )


def test_help_shows_the_real_functions() -> None:
    names = [name for name in rsicd_embed.__all__ if name.islower() and "__" not in name]
    assert len(names) == 9
    for name in names:
        function = getattr(rsicd_embed, name)
        assert function.__name__ == name
        assert "Args:" in inspect.getdoc(function)
        documented = inspect.getdoc(function).partition("Args:")[2]
        for parameter in inspect.signature(function).parameters:
            assert f" {parameter}:" in documented, f"{name}({parameter})"


def test_import_parser() -> None:
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
