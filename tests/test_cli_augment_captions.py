"""`augment-captions` from a dataset to the file that training reads, with tiny models."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rsicd_embed.cli import progress
from rsicd_embed.datasets import captioned
from rsicd_embed.datasets.captions import load_augmented, with_augmented
from rsicd_embed.train.backtranslation import marian
from rsicd_embed.train.backtranslation.marian import Translations

from .conftest import picture
from .helpers import Outcome, manifest, overridden, run
from .train.tiny_marian import BOATS, DESERT, PLANES, write_untrained
from .train.tiny_marian import marians as marians

CAPTIONS = {
    "port_1.jpg": ("train", [BOATS] * 5),
    "desert_1.jpg": ("train", [DESERT, "A desert with yellow dunes."]),
    "airport_1.jpg": ("train", [PLANES, "planes", "an airport"]),
    "none_1.jpg": ("train", []),
    "port_2.jpg": ("val", [BOATS]),
}
FILLED = {
    # Both languages return the same paraphrase.
    "port_1.jpg": (BOATS, "Boats by the green water."),
    # French returns the caption itself.
    "desert_1.jpg": (DESERT, "A desert of yellow dunes."),
    "airport_1.jpg": (PLANES, "planes", "an airport"),
}


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    (folder / "images").mkdir(parents=True)
    entries = []
    for i, (name, (split, captions)) in enumerate(CAPTIONS.items()):
        picture(i).save(folder / "images" / name)
        sentences = [{"raw": text} for text in captions]
        entries.append({"filename": name, "split": split, "sentences": sentences})
    (folder / "dataset_x.json").write_text(json.dumps({"images": entries}))
    return folder


@pytest.fixture
def augment(dataset: Path, marians: Path, tmp_path: Path) -> Callable[..., Outcome]:
    """Runs the command; replaces its output file `out.jsonl`."""

    def call(*options: str | Path, source: Path = dataset) -> Outcome:
        (tmp_path / "out.jsonl").unlink(missing_ok=True)
        usual = command(source, tmp_path, marians)
        repeatable = ("--via", "--from-english", "--to-english")
        return run(*overridden(usual, *options, repeatable=repeatable))

    return call


def command(dataset: Path, folder: Path, models: Path) -> list[str | Path]:
    return [
        *("augment-captions", dataset, "-o", folder / "out.jsonl", "--captions", "3"),
        *("--via", "fr", "--via", "es", "--cache", folder / "cache.sqlite"),
        *("--from-english", models / "into", "--to-english", models / "back"),
        *("--device", "cpu", "--batch-size", "2"),
    ]


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Batches that models translate."""
    seen: list[list[str]] = []
    translate = marian.Translator.translate

    def watched(self: marian.Translator, texts: list[str], num_beams: int) -> list[str]:
        seen.append(list(texts))
        return translate(self, texts, num_beams)

    monkeypatch.setattr(marian.Translator, "translate", watched)
    return seen


def test_images_are_filled_and_training_reads_the_file(
    augment: Callable[..., Outcome],
    dataset: Path,
    marians: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(progress, "_LINE_EVERY_S", float("inf"))  # else slow machines print lines
    outcome = augment("--json")
    document = outcome.document
    assert document.pop("seconds") > document.pop("model_seconds") > 0
    both = [str(marians / "into"), str(marians / "back")]
    assert document == {
        "output": str(tmp_path / "out.jsonl"),
        "split": "train",
        "images": 3,
        "short_before": 2,
        "short": 2,
        "without_captions": 1,
        "added": {"fr": 1, "es": 1},
        "dropped": 2,
        "translated": 8,
        "remembered": 0,
        "models": {"fr": both, "es": both},
    }
    # No progress bars or advice from the libraries.
    assert outcome.stderr == "left out 1 image without captions, such as none_1.jpg\n"
    captions = load_augmented(tmp_path / "out.jsonl")
    assert captions == FILLED
    images = captioned.load(dataset).split("train")
    assert with_augmented(images, [captions])[0].captions == FILLED["port_1.jpg"]


def test_text_output(augment: Callable[..., Outcome]) -> None:
    outcome = augment()
    assert outcome.status == 0
    first, second, third = outcome.stdout.splitlines()
    assert first.startswith("3 images in ")
    assert first.endswith("; 2 had fewer than 3 distinct captions, 2 still have")
    assert second == "paraphrases: 1 through fr, 1 through es; 2 dropped as duplicates"
    assert third.startswith("8 captions translated, 0 cached, in ")


def test_no_caption_is_translated_twice_by_the_same_model(
    augment: Callable[..., Outcome],
    marians: Path,
    tmp_path: Path,
    batches: list[list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    augment("--json")
    assert [len(batch) for batch in batches] == [2, 2, 2, 2]
    assert batches[0] == [f">>fr<< {BOATS}", f">>fr<< {DESERT}"]
    batches.clear()
    first = (tmp_path / "out.jsonl").read_bytes()
    again = augment("--json").document
    assert (again["translated"], again["remembered"], batches) == (0, 8, [])
    assert (tmp_path / "out.jsonl").read_bytes() == first
    # The cache also serves other images with the same captions, but not another beam width.
    other = augment("--json", "--split", "all").document
    assert (other["images"], other["translated"]) == (4, 0)
    assert augment("--json", "--num-beams", "1").document["translated"] == 8
    write_untrained(tmp_path / "untrained", {PLANES: BOATS}, positions=64)
    changed = augment("--json", "--to-english", tmp_path / "untrained").document
    assert (changed["translated"], changed["remembered"]) == (4, 4)


def test_an_interrupted_run_resumes(
    augment: Callable[..., Outcome],
    tmp_path: Path,
    batches: list[list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    add, stored = Translations.add, []

    def interrupted(self: Translations, model: str, translations: dict[str, str]) -> None:
        if len(stored) == 2:
            raise KeyboardInterrupt
        stored.append(translations)
        add(self, model, translations)

    with monkeypatch.context() as patch:
        patch.setattr(Translations, "add", interrupted)
        outcome = augment("--batch-size", "1")
    assert (outcome.status, outcome.stdout) == (130, "")
    assert "run the same command again to continue" in outcome.stderr
    assert not (tmp_path / "out.jsonl").exists()
    batches.clear()
    document = augment("--json", "--batch-size", "1").document
    assert (document["translated"], document["remembered"]) == (6, 2)
    assert len(batches) == 6
    assert load_augmented(tmp_path / "out.jsonl") == FILLED


KILLED = """
import os, signal, sys
from rsicd_embed.cli import main
from rsicd_embed.train.backtranslation import marian

translate, done = marian.Translator.translate, []

def dying(self, texts, num_beams):
    made = translate(self, texts, num_beams)
    done.append(made)
    if len(done) == 4:  # translated, but not yet stored
        os.kill(os.getpid(), signal.SIGKILL)
    return made

marian.Translator.translate = dying
main(sys.argv[1:])
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_killed_run_resumes(
    augment: Callable[..., Outcome], dataset: Path, marians: Path, tmp_path: Path
) -> None:
    arguments = overridden(command(dataset, tmp_path, marians), "--batch-size", "1")
    child = subprocess.run(
        [sys.executable, "-c", KILLED, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (child.returncode, child.stdout) == (-signal.SIGKILL, ""), child.stderr
    assert not (tmp_path / "out.jsonl").exists()
    document = augment("--json").document
    assert (document["translated"], document["remembered"]) == (5, 3)
    assert load_augmented(tmp_path / "out.jsonl") == FILLED


@pytest.mark.filterwarnings("default:.*are longer than the 64 tokens")
def test_long_captions_are_reported_once(augment: Callable[..., Outcome], tmp_path: Path) -> None:
    long = "many planes " * 60
    source = manifest(
        tmp_path / "rows.jsonl", {"path": "a.jpg", "captions": [long, long + "here", DESERT]}
    )
    outcome = augment("--split", "all", "--json", "--captions", "4", source=source)
    assert outcome.document["images"] == 1
    (warning,) = (line for line in outcome.stderr.splitlines() if "into accepts" in line)
    assert warning.startswith("warning: 2 captions are longer than the 64 tokens that ")
    assert warning.endswith("into accepts; their ends are left out")


def test_images_with_enough_captions_need_no_model(
    augment: Callable[..., Outcome], tmp_path: Path
) -> None:
    document = augment("--json", "--captions", "1", "--from-english", "./absent").document
    assert (document["short_before"], document["translated"]) == (0, 0)
    assert load_augmented(tmp_path / "out.jsonl")["port_1.jpg"] == (BOATS,)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--split", "nope"], "expected images in the split 'nope', found train, val"),
        (["--from-english", "./absent"], "found no such directory: ./absent"),
        (["--to-english", "es=./absent"], "found no such directory: ./absent"),
        (["--to-english", "./absent-{language}"], "no such directory: ./absent-fr"),
        (["--via", "pt"], "expected a model into 'pt', found a model into es, fr"),
        (["--device", "abacus"], "expected a torch device such as cpu or cuda"),
    ],
)
def test_errors_are_reported_before_anything_is_translated(
    augment: Callable[..., Outcome], batches: list[list[str]], options: list[str], message: str
) -> None:
    assert message in augment(*options).error
    assert batches == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--from-english", "de=x"], "--from-english de=x: --via has no language 'de'."),
        (["--to-english", "fr="], "--to-english: expected a model for 'fr', found none."),
        (["-o", "absent/out.jsonl"], "absent/out.jsonl: absent is not a writable folder."),
        (["-o", __file__], "already exists; delete it, or give another file with -o."),
    ],
)
def test_wrong_usage(augment: Callable[..., Outcome], options: list[str], message: str) -> None:
    outcome = augment(*options)
    assert (outcome.status, outcome.stdout) == (2, "")
    assert message in outcome.stderr


def test_model_that_returns_nothing(
    augment: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(marian.Translator, "translate", lambda _, texts, beams: [""] * len(texts))
    error = augment().error
    assert "into: expected translations of 2 captions, found only empty ones" in error


@pytest.mark.parametrize(
    ("captions", "message"),
    [
        ([], "expected images with captions, found none among 1"),
        (["half \ud83d"], "a.jpg: expected captions in Unicode, found surrogates not allowed"),
    ],
)
def test_captions_that_cannot_be_translated(
    augment: Callable[..., Outcome], tmp_path: Path, captions: list[str], message: str
) -> None:
    (tmp_path / "data" / "dataset_x.json").unlink()
    picture(0).save(tmp_path / "data" / "a.jpg")
    entry: dict[str, Any] = {
        "filename": "a.jpg",
        "split": "train",
        "sentences": [{"raw": text} for text in captions],
    }
    (tmp_path / "data" / "dataset_y.json").write_text(json.dumps({"images": [entry]}))
    assert message in augment().error


def test_full_disk(
    augment: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        assert "cannot be written: No space left on device; free some" in augment().error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache.sqlite", "data"]
    assert augment("--json").document["translated"] == 0


def test_without_the_libraries(
    augment: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    absent = ("torch", "sentencepiece")
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name in absent else find(name)
    )
    assert augment().error == (
        "error: back-translation needs torch, sentencepiece, which is not installed: "
        "pip install 'rsicd-embed[augment]'"
    )
