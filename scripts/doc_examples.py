"""Runs the commands and the code of README.md and docs/, and keeps their printed output current.

    python -m scripts.doc_examples            # rewrites the outputs that differ
    python -m scripts.doc_examples README.md  # of these documents only

The blocks of a document run in order, in one folder that holds the scene of the demo, a store of
its tiles and small datasets (`Workspace`). What a block's language means:

    console   commands after `$ `, and what they print
    sh        commands whose output is not shown
    python    code; the blocks of a document share their names
    toml      training settings, or part of a pyproject.toml; other files need `file`
    csv, json, jsonl, yaml
              a file's content; it must parse
    text      not checked: formats and drawings

A comment on the line above a block changes what happens:

    <!-- example: add --epochs 1 -->   appends words to its rsicd-embed commands
    <!-- example: parse -->            checks options only: too long, or needs other hardware
    <!-- example: fails -->            the last command ends with status 1 or 2
    <!-- example: head 5 -->           shows the first five lines of an output
    <!-- example: file tiles.csv -->   writes the block to a file of the workspace
    <!-- example: server URI -->       runs the code while a server of that store runs
"""

from __future__ import annotations

import contextlib
import csv
import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from click.testing import CliRunner
from PIL import Image

from rsicd_embed.cli import main as program
from rsicd_embed.images import SceneWindow
from scripts import doc_scene
from scripts.doc_blocks import (
    PROJECT,
    Block,
    ExampleError,
    blocks,
    check_options,
    check_other_command,
    check_toml,
    documents,
    require,
    shell_lines,
)

# How the workspace is called in printed paths.
HOME = "/home/ada"
TILES_STORE = "lancedb:./earth"
INGEST_TILES = ["ingest", "demo/earth.tif", "--tile", "108", "--store", TILES_STORE]

_PROGRESS = re.compile(r"^\w+: \d+/\d+.*\n", flags=re.MULTILINE)
# Numbers that differ from run to run.
_VARYING = (
    (re.compile(r"\d+(\.\d+)? s\b"), "… s"),
    (re.compile(r"[\d.,]+ (images|rows)/s"), r"… \1/s"),
    (re.compile(r"^bytes +\d+", flags=re.MULTILINE), "bytes …"),
    (re.compile(r"\b[0-9a-f]{16}\b"), "…"),  # of a model trained here
)
_FRACTION = re.compile(r"-?\d+\.\d+")
_TOLERANCE = 0.002


class Workspace:
    """A folder in which the blocks of one document run.

    It holds:
        demo           the scene of `make demo`, earth.tif
        earth          a LanceDB store of its 1,250 tiles
        images         five of them, with plain names
        classes        two folders of tiles, one for each class
        broken         an image and two files that are none
        PATH/TO/rsicd  a captioned dataset of 36 tiles, in the layout of RSICD
        scene.tif      a georeferenced scene of four 16-bit bands
    """

    def __init__(self, folder: Path) -> None:
        self.folder = self._original = folder.resolve()
        self._names: dict[str, Any] = {"__name__": "__main__"}
        # What the command printed that made the store of the tiles; it takes too long to repeat.
        self.ingested: str | None = None

    def copied(self, folder: Path) -> Workspace:
        """A copy in another folder; its store's rows name the files of this one."""
        shutil.copytree(self.folder, folder)
        copy = Workspace(folder)
        copy._original, copy.ingested = self.folder, self.ingested
        return copy

    @classmethod
    def filled(cls, folder: Path) -> Workspace:
        """Makes the workspace in a new folder; takes as long as embedding 1,250 images."""
        sys.path.insert(0, str(PROJECT / "examples"))
        import demo

        scene = demo.write_scene(demo.blue_marble(), folder / "demo" / "earth.tif")
        tiles = EarthTiles(scene, demo.TILE)
        tiles.save(_NAMED, folder / "images")
        for label, places in _CLASSES.items():
            names = {f"{i}.jpg": place for i, place in enumerate(places)}
            tiles.save(names, folder / "classes" / label)
        _captioned(folder / "PATH" / "TO" / "rsicd", tiles)
        tiles.save({"sea.jpg": _NAMED["sea.jpg"]}, folder / "broken")
        (folder / "broken" / "notes.jpg").write_text("not an image")
        cut = (folder / "images" / "coast.jpg").read_bytes()[:500]
        (folder / "broken" / "truncated.jpg").write_bytes(cut)
        doc_scene.write(folder / "scene.tif")
        workspace = cls(folder)
        workspace.ingested = workspace.command(INGEST_TILES)
        return workspace

    def run(self, block: Block) -> str | None:
        """Runs a block.

        Returns:
            What a `console` block should contain; None for others.

        Raises:
            ExampleError: a command or the code fails.
        """
        with contextlib.chdir(self.folder):
            if name := block.after("file"):
                Path(name[0]).parent.mkdir(parents=True, exist_ok=True)
                Path(name[0]).write_text(block.code, encoding="utf-8")
            match block.language:
                case "console":
                    return self._console(block)
                case "sh":
                    for words in shell_lines(block.code):
                        self._shell(words, block)
                case "python":
                    self._python(block)
                case "toml":
                    check_toml(block)
                case "csv":
                    rows = list(csv.reader(block.code.splitlines()))
                    require(len({len(row) for row in rows}) == 1, f"uneven rows: {rows}")
                case "json":
                    json.loads(block.code)
                case "jsonl":
                    for line in block.code.splitlines():
                        json.loads(line)
                case "yaml":
                    yaml.safe_load(block.code)
                case "text":
                    pass
                case other:
                    raise ExampleError(f"expected a language that is checked, found {other!r}")
        return None

    def command(self, words: list[str], *, fails: bool = False) -> str:
        """Runs rsicd-embed in this process; returns what it prints on both streams.

        Raises:
            ExampleError: it does not end with the status that is expected.
        """
        with contextlib.chdir(self.folder):
            environment = {"COLUMNS": "100"}
            result = CliRunner().invoke(program, words, prog_name="rsicd-embed", env=environment)
        if result.exception and not isinstance(result.exception, SystemExit):
            raise ExampleError(f"rsicd-embed {shlex.join(words)}") from result.exception
        if (result.exit_code in (1, 2)) != fails:
            status = f"status {result.exit_code}"
            raise ExampleError(f"rsicd-embed {shlex.join(words)}: {status}\n{result.output}")
        return str(result.output)

    def _console(self, block: Block) -> str:
        if block.directive == ("parse",):
            for words in shell_lines(re.sub(r"^(?!\$ ).*\n", "", block.code, flags=re.MULTILINE)):
                self._shell(words[1:], block)
            return block.code
        shown = []
        lines = [line for line in block.code.splitlines() if line.startswith("$ ")]
        for n, line in enumerate(lines, 1):
            words = shlex.split(line)[1:]
            fails = block.directive == ("fails",) and n == len(lines)
            require(words[0] == "rsicd-embed", f"expected rsicd-embed, found {line!r}")
            if words[1:] == INGEST_TILES and self.ingested is not None:
                output = self.ingested
            elif words[1] == "serve":
                with self.server(words[2:]) as (output, _):
                    pass
            else:
                output = self.command(words[1:] + block.after("add"), fails=fails)
            output = re.sub(r"(127\.0\.0\.1):\d+", r"\1:8000", _PROGRESS.sub("", output))
            for folder in (self.folder, self._original):
                output = output.replace(str(folder), HOME)
            if head := block.after("head"):
                output = "".join([*output.splitlines(keepends=True)[: int(head[0])], "…\n"])
            shown.append(f"{line}\n{output}")
        return "".join(shown)

    def _shell(self, words: list[str], block: Block) -> None:
        if words[0] == "rsicd-embed":
            words = words[1:] + block.after("add")
            if block.directive == ("parse",):
                check_options(words)
            elif words[0] == "serve":
                with self.server(words[1:]):
                    pass
            else:
                self.command(words)
        else:
            check_other_command(words)

    def _python(self, block: Block) -> None:
        if uri := block.after("server"):
            with self.server(["--store", uri[0]]) as (_, address):
                self._execute(block.code.replace("http://127.0.0.1:8000", address.rstrip("/")))
        else:
            self._execute(block.code)

    def _execute(self, code: str) -> None:
        exec(compile(code, "<document>", "exec", dont_inherit=True), self._names)

    @contextlib.contextmanager
    def server(self, words: list[str]) -> Iterator[tuple[str, str]]:
        """Runs `rsicd-embed serve` on a free port; gives what it printed, and its address."""
        code = "from rsicd_embed.cli import main; main()"
        port = [] if "--port" in words else ["--port", "0"]
        process = subprocess.Popen(
            [sys.executable, "-c", code, "serve", *words, *port],
            cwd=self.folder,
            env=os.environ | {"PYTHONPATH": str(PROJECT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert process.stdout is not None
        try:
            printed = ""
            for line in process.stdout:
                printed += line
                if address := re.search(r"http://\S+", line):
                    yield printed, address[0]
                    break
            else:
                raise ExampleError(f"rsicd-embed serve {shlex.join(words)}:\n{printed}")
        finally:
            process.terminate()
            process.wait()
            process.stdout.close()


def same(shown: str, real: str) -> bool:
    """Whether an output is what a document shows: fractions within 0.002, times aside.

    Example:
        >>> same("1  +0.6909  a.png\\ndone in 4.1 s", "1  +0.6911  a.png\\ndone in 30 s")
        True
    """
    for pattern, replacement in _VARYING:
        shown, real = pattern.sub(replacement, shown), pattern.sub(replacement, real)
    if _FRACTION.sub("#", shown) != _FRACTION.sub("#", real):
        return False
    pairs = zip(_FRACTION.findall(shown), _FRACTION.findall(real), strict=True)
    return all(abs(float(a) - float(b)) <= _TOLERANCE for a, b in pairs)


def rewritten(text: str, workspace: Workspace) -> str:
    """A document with the real output in each of its blocks; runs all of them."""
    parts, end = [], 0
    for block in blocks(text):
        real = workspace.run(block)
        parts.append(text[end : block.span[0]])
        parts.append(block.code if real is None or same(block.code, real) else real)
        end = block.span[1]
    return "".join([*parts, text[end:]])


# Places of tiles, as longitude and latitude, by plain names, and by class.
_NAMED = {
    "coast.jpg": (131.2, 33.7),
    "desert.jpg": (11.2, 18.8),
    "ice.jpg": (-3.7, -78.8),
    "mountains.jpg": (78.8, 33.7),
    "sea.jpg": (-131.2, -3.7),
}
_CLASSES = {
    "desert": ((3.7, 18.8), (11.2, 18.8), (18.8, 26.3), (26.3, 26.3)),
    "sea": ((-131.2, -3.7), (-123.7, -3.7), (-131.2, -11.2), (-123.7, -11.2)),
}


class EarthTiles:
    """The tiles of the demo's scene, as pictures."""

    def __init__(self, scene: Path, side: int) -> None:
        self._scene, self._side = scene, side

    def save(self, places: dict[str, tuple[float, float]], folder: Path) -> None:
        """Writes the tiles that contain places, by file name."""
        folder.mkdir(parents=True)
        for name, (lon, lat) in places.items():
            self.at(lon, lat).save(folder / name, quality=98)

    def at(self, lon: float, lat: float) -> Image.Image:
        """The tile that contains a place."""
        degrees = 360 * self._side / 5400
        column, row = int((lon + 180) // degrees), int((90 - lat) // degrees)
        box = (column * self._side, row * self._side, self._side, self._side)
        return SceneWindow(str(self._scene), box, (1, 2, 3)).read()[0]


def _captioned(folder: Path, tiles: EarthTiles) -> None:
    folder.mkdir(parents=True)
    entries = []
    places = [(lon, lat) for lat in range(-75, 90, 30) for lon in range(-150, 180, 60)]
    for i, (place, label) in enumerate(zip(places, itertools.cycle(("desert", "sea", "forest")))):
        name = f"{label}_{i}.png"
        tiles.at(*place).resize((32, 32)).save(folder / name)
        sentences = [{"raw": f"tile number {i} shows a {label} ."}, {"raw": f"a {label} ."}]
        split = ("train", "train", "train", "val", "test", "test")[i // 6]
        entries.append({"filename": name, "split": split, "sentences": sentences})
    document = {"images": entries}
    (folder / "dataset_rsicd.json").write_text(json.dumps(document), encoding="utf-8")


def main(names: list[str]) -> None:
    """Rewrites the documents that differ."""
    paths = [Path(name).resolve() for name in names] or documents()
    with tempfile.TemporaryDirectory() as temporary:
        original = Workspace.filled(Path(temporary, "original"))
        for path in paths:
            text = path.read_text(encoding="utf-8")
            try:
                new = rewritten(text, original.copied(Path(temporary, path.stem)))
            except ExampleError as error:
                sys.exit(f"{path}: {error}")
            if new != text:
                path.write_text(new, encoding="utf-8")
                print(path.relative_to(PROJECT))


if __name__ == "__main__":
    main(sys.argv[1:])
