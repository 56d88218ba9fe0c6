"""Writes everything in the documents that comes from records and code.

    python -m scripts.write_docs

A test fails where they differ from what this would write.
"""

from __future__ import annotations

from pathlib import Path

from scripts import arms_table, bench_tables, readme_tables

PROJECT = Path(__file__).parents[1]
BEGIN, END = "<!-- begin: python -m scripts.write_docs -->\n", "<!-- end -->"


def documents() -> dict[Path, str]:
    """The documents as they should be."""
    parts = {
        PROJECT / "README.md": readme_tables.section(),
        PROJECT / "docs" / "training.md": arms_table.section(),
    }
    return {
        **{path: between_marks(path.read_text(encoding="utf-8"), parts[path]) for path in parts},
        bench_tables.FOLDER / "README.md": bench_tables.page(),
    }


def between_marks(text: str, body: str) -> str:
    """A document whose one generated part is exchanged.

    Raises:
        ValueError: there is not one such part.

    Example:
        >>> between_marks(f"a {BEGIN}old{END} z", "new ") == f"a {BEGIN}new {END} z"
        True
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ValueError(f"expected one part between {BEGIN.strip()} and {END}")
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}{body}{END}{rest.partition(END)[2]}"


def main() -> None:
    """Writes those that differ."""
    for path, text in documents().items():
        if path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            print(path.relative_to(PROJECT))


if __name__ == "__main__":
    main()
