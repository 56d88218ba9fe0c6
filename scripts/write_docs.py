"""Writes everything in the documents that comes from records and code.

    python -m scripts.write_docs

A test fails where they differ from what this would write.
"""

from __future__ import annotations

from pathlib import Path

from scripts import bench_tables, readme_tables, training_tables

PROJECT = Path(__file__).parents[1]
BEGIN, END = "<!-- begin: python -m scripts.write_docs -->\n", "<!-- end -->"


def documents() -> dict[Path, str]:
    """The documents as they should be."""
    parts = {
        PROJECT / "README.md": (readme_tables.section(),),
        PROJECT / "docs" / "training.md": (training_tables.arms(), training_tables.teacher()),
    }
    return {
        **{path: between_marks(path.read_text("utf-8"), *bodies) for path, bodies in parts.items()},
        bench_tables.FOLDER / "README.md": bench_tables.page(),
    }


def between_marks(text: str, *bodies: str) -> str:
    """A document whose generated parts are exchanged, in their order.

    Raises:
        ValueError: there are not as many parts.

    Example:
        >>> between_marks(f"a {BEGIN}old{END} z", "new ") == f"a {BEGIN}new {END} z"
        True
    """
    before, *parts = text.split(BEGIN)
    if len(parts) != len(bodies) or END in before or any(one.count(END) != 1 for one in parts):
        raise ValueError(f"expected {len(bodies)} parts between {BEGIN.strip()} and {END}")
    return before + "".join(
        f"{BEGIN}{body}{END}{part.partition(END)[2]}"
        for body, part in zip(bodies, parts, strict=True)
    )


def main() -> None:
    """Writes those that differ."""
    for path, text in documents().items():
        if path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            print(path.relative_to(PROJECT))


if __name__ == "__main__":
    main()
