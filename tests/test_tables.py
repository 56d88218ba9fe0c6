"""Tables in the documents match the benchmark records."""

from __future__ import annotations

import re
import shlex
from typing import Any

import click
import pytest

from rsicd_embed.cli import main
from rsicd_embed.evaluation.evaluator import PROMPT
from scripts import bench_tables, readme_tables, write_docs


def record(name: str) -> Any:
    (path,) = (bench_tables.FOLDER / name).glob("*.json")
    return bench_tables.read(path)


def test_documents_are_up_to_date() -> None:
    for path, wanted in write_docs.documents().items():
        assert path.read_text(encoding="utf-8") == wanted, "run: python -m scripts.write_docs"


def test_every_record_has_its_table() -> None:
    page = bench_tables.page()
    folders = {path.parent.name for path in bench_tables.FOLDER.glob("*/*.json")}
    assert {line[3:] for line in page.splitlines() if line.startswith("## ")} == folders


def test_tables_state_command_and_machine() -> None:
    section = readme_tables.section() + readme_tables.accuracy_section()
    for name in readme_tables.SHOWN:
        run = record(name)
        assert run["complete"], f"{name} was interrupted"
        assert run["machine"]["cpu"] in bench_tables.head(run)
        assert bench_tables.head(run) in section + "\n"
    assert PROMPT in section


def test_commands_under_the_tables_are_valid() -> None:
    section = readme_tables.section() + readme_tables.accuracy_section()
    commands = re.findall(r"`rsicd-embed ([^`]+)`", section)
    accepted = [line for line in commands if " " in line]
    assert len(accepted) > len(readme_tables.SHOWN)
    for line in accepted:
        command: click.Command = main
        words = shlex.split(line)
        while isinstance(command, click.Group):
            command = command.commands[words.pop(0)]
        command.make_context("", words)  # fails where an option is unknown or missing


def test_generated_parts_are_replaced() -> None:
    begin, end = write_docs.BEGIN, write_docs.END
    text = write_docs.between_marks(f"before\n{begin}old\n{end}\nafter\n", "new\n")
    assert text == f"before\n{begin}new\n{end}\nafter\n"
    both = write_docs.between_marks(f"{begin}a{end}b{begin}c{end}", "1", "2")
    assert both == f"{begin}1{end}b{begin}2{end}"
    for wrong in ("nothing", begin, end, f"{begin}{end}{begin}{end}", f"{end}{begin}{end}"):
        with pytest.raises(ValueError, match="expected 1 parts between"):
            write_docs.between_marks(wrong, "new")


@pytest.mark.parametrize("name", ["ann-rsicd", "embed-vit-b-32"])
def test_timing_overhead_is_small(name: str) -> None:
    """Compared with the fastest recorded search and model call."""
    run = record(name)
    timed = run["images"] if "images" in run else run["states"]["optimized"]
    assert 0 < timed["overhead"]["fraction"] < 0.02
