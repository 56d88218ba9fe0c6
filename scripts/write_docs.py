"""Writes the parts of README.md, docs/ and benchmarks/ that come from recorded runs.

    python -m scripts.write_docs

A test fails if they differ from what this writes. Printed outputs of commands are written by
`scripts.doc_examples`, and the site by `scripts.build_docs`.
"""

from __future__ import annotations

from pathlib import Path

from scripts import bench_tables, capacity_tables, readme_tables, training_tables

PROJECT = Path(__file__).parents[1]
BEGIN, END = "<!-- begin: python -m scripts.write_docs -->\n", "<!-- end -->"


def documents() -> dict[Path, str]:
    """The documents with their current content."""
    docs = PROJECT / "docs"
    parts: dict[Path, tuple[str, ...]] = {
        PROJECT / "README.md": (readme_tables.summary(),),
        docs / "growth.md": (readme_tables.growth(),),
        docs / "capacity.md": (
            capacity_tables.measured(),
            capacity_tables.requests(),
            capacity_tables.projected(),
        ),
        docs / "stores.md": (readme_tables.sizes(),),
        docs / "models.md": (readme_tables.accuracy_section(),),
        docs / "benchmarks.md": (readme_tables.section(),),
        docs / "training.md": (training_tables.arms(), training_tables.teacher()),
    }
    return {
        **{path: between_marks(path.read_text("utf-8"), *bodies) for path, bodies in parts.items()},
        bench_tables.FOLDER / "README.md": bench_tables.page(),
    }


def between_marks(text: str, *bodies: str) -> str:
    """Replaces the generated parts of a document, in order.

    Raises:
        ValueError: the number of parts differs.

    Example:
        >>> between_marks(f"a {BEGIN}old{END} z", "new ") == f"a {BEGIN}new {END} z"
        True
    """
    before, *parts = text.split(BEGIN)
    if len(parts) != len(bodies) or END in before or any(part.count(END) != 1 for part in parts):
        raise ValueError(f"expected {len(bodies)} parts between {BEGIN.strip()} and {END}")
    return before + "".join(
        f"{BEGIN}{body}{END}{part.partition(END)[2]}"
        for body, part in zip(bodies, parts, strict=True)
    )


def main() -> None:
    """Writes the documents that differ."""
    for path, text in documents().items():
        if path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            print(path.relative_to(PROJECT))


if __name__ == "__main__":
    main()
