"""`rsicd-embed eval`: output, records and errors, with an embedder of known results."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import rsicd_embed
from tests.evaldata import COLOURS, Colours, captioned, class_folder, colour, shade
from tests.helpers import manifest, run

TOP = {"top1": 1, "top3": 1, "top5": 1, "top10": 1}
RETRIEVAL = {f"{way}_r{k}" for way in ("i2t", "t2i") for k in (1, 5, 10)} | {"mr"}
COMMANDS = ("zeroshot", "retrieval", "probe", "forgetting", "queries", "suite")


@pytest.fixture
def colours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replaces the embedder; `--model blind` does not recognise the sea."""

    def load(model: str | None = None, **_: Any) -> Colours:
        return Colours(("sea",) if model == "blind" else ())

    monkeypatch.setattr(rsicd_embed, "load_embedder", load)


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    return captioned(tmp_path / "toy", splits=("train", "val", "test"))


def evaluated(*arguments: str | Path) -> Any:
    outcome = run("eval", *arguments, "--json")
    assert outcome.status == 0, outcome.stderr
    return outcome.document


@pytest.mark.usefixtures("colours")
def test_zeroshot(toy: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    out = tmp_path / "out"
    document = evaluated("zeroshot", "--dataset", toy, "--split", "test", "-o", out)
    assert (document["task"], document["dataset"], document["split"], document["n"]) == (
        "zeroshot",
        "toy",
        "test",
        12,
    )
    assert document["metrics"] == TOP
    assert document["command"].startswith("rsicd-embed eval zeroshot --dataset")
    assert document["names"] == sorted(COLOURS)
    saved = json.loads((out / "eval-zeroshot.json").read_text())
    assert saved == document
    with Image.open(out / "confusion.png") as picture:
        picture.load()
        assert min(picture.size) > 300
    blind = evaluated("zeroshot", "--dataset", toy, "--model", "blind")
    assert blind["metrics"]["top1"] == pytest.approx(2 / 3)
    (sea,) = (row for row in blind["per_class"] if row["class"] == "sea")
    assert (sea["top1"], sea["mistaken"]) == (0, 4)


@pytest.mark.usefixtures("colours")
def test_text_output(toy: Path) -> None:
    outcome = run("eval", "zeroshot", "--dataset", toy)
    lines = outcome.stdout.splitlines()
    assert lines[0] == "colours on toy test: 12 images of 3 classes"
    assert "prompt: An aerial photograph of {category}; class names readable" in lines
    assert any(line.split() == ["top1", "1.000", "1.000–1.000"] for line in lines)
    assert any(line.split()[:2] == ["desert", "4"] for line in lines)
    assert "note: top10 of 3 classes is 1 for any model" in outcome.stderr
    table = run("eval", "retrieval", "--dataset", toy).stdout
    assert "12 images × 24 captions, 15 of them distinct, 3 shared by several images" in table
    assert "ceiling" in table
    assert "ties: a wrong candidate as similar" in table


@pytest.mark.usefixtures("colours")
def test_class_folders_and_prompts(tmp_path: Path) -> None:
    folder = class_folder(tmp_path / "folders")
    prompts = ("--prompt", "a {category}", "--prompt", "{category} from above")
    document = evaluated("zeroshot", "--dataset", folder, *prompts, "--raw-names")
    assert (document["split"], document["n"], document["metrics"]) == ("all", 12, TOP)
    assert document["settings"]["prompts"] == ["a {category}", "{category} from above"]
    assert document["settings"]["raw_names"]
    error = run("eval", "zeroshot", "--dataset", folder, "--prompt", "a {class}").error
    assert "expected {category} in the prompt" in error


@pytest.mark.usefixtures("colours")
def test_retrieval(toy: Path) -> None:
    document = evaluated("retrieval", "--dataset", toy)
    assert set(document["metrics"]) > RETRIEVAL
    assert set(document["metrics"]) == set(document["intervals"])
    assert document["ceiling"]["t2i_r1"] < 1
    # Colours identify the class, not the image: four images share each caption.
    assert document["metrics"]["i2t_r10"] == 1
    assert document["metrics"]["t2i_r1"] <= document["ceiling"]["t2i_r1"]
    assert document["argsort"]["mr"] > document["metrics"]["mr"]  # four images tie
    credited = evaluated("retrieval", "--dataset", toy, "--credit-duplicates")
    assert set(credited["ceiling"].values()) == {1}
    assert credited["metrics"]["mr"] > document["metrics"]["mr"]
    assert credited["duplicates"] != document["duplicates"]


@pytest.mark.usefixtures("colours")
def test_suite(toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two models on two datasets have the metrics of the single commands, in one table and page."""
    pytest.importorskip("sklearn")
    listed = tmp_path / "models.toml"
    listed.write_text('[colours]\nsource = "a/b"\nseen = ["TOY"]\n')
    monkeypatch.setenv("RSICD_EMBED_MODELS", str(listed))
    folders, out = class_folder(tmp_path / "folders"), tmp_path / "out"
    both = ("--dataset", toy, "--dataset", folders, "--model", "colours", "--model", "blind")
    document = evaluated("suite", *both, "-o", out)
    results = {(each["model"], each["dataset"]): each for each in document["results"]}
    assert len(document["models"]) == 2 and set(results) == {
        ("colours", "toy"),
        ("colours", "folders"),
    }
    whole, blind = (
        next(each for each in document["results"][i:] if each["dataset"] == "toy") for i in (0, 2)
    )
    retrieval = evaluated("retrieval", "--dataset", toy)
    assert whole["metrics"].items() > retrieval["metrics"].items()
    assert whole["intervals"].items() > retrieval["intervals"].items()
    assert whole["metrics"]["mr_argsort"] == retrieval["argsort"]["mr"]
    assert whole["metrics"]["zeroshot_top1"] == 1
    assert blind["metrics"]["zeroshot_top1"] == pytest.approx(2 / 3)
    probe = evaluated("probe", "--dataset", toy)["metrics"]
    assert whole["metrics"].items() > probe.items()
    assert whole["seen"] and results["colours", "folders"]["seen"] is False
    assert "mr" not in results["colours", "folders"]["metrics"]
    page = (out / "eval-suite.html").read_text()
    assert "zero-shot top-1" in page and "folders all" in page
    text = run("eval", "suite", *both, "--task", "zeroshot").stdout
    assert "toy test (12 images)" in text and "linear probe" not in text and "seen: *" in text
    error = run("eval", "suite", "--dataset", folders, "--task", "retrieval").error
    assert "expected captions" in error


@pytest.mark.usefixtures("colours")
def test_probe(toy: Path) -> None:
    pytest.importorskip("sklearn")
    document = evaluated("probe", "--dataset", toy)
    assert (document["split"], document["train_split"], document["chosen_on"]) == (
        "test",
        "train",
        "val",
    )
    assert document["metrics"] == {"linear_top1": 1, "linear_top5": 1, "knn_top1": 1}
    assert "fitted on train, 12 images" in run("eval", "probe", "--dataset", toy).stdout
    error = run("eval", "probe", "--dataset", toy, "--train-split", "test").error
    assert "give --train-split and --split" in error


@pytest.mark.usefixtures("colours")
def test_forgetting(toy: Path, tmp_path: Path) -> None:
    folders = class_folder(tmp_path / "folders")
    two = ("--dataset", toy, "--dataset", folders)
    document = evaluated("forgetting", *two, "--model", "blind", "--baseline", "whole")
    first, second = document["datasets"]
    assert (first["dataset"], first["split"], second["split"]) == ("toy", "test", "all")
    assert first["metrics"]["zeroshot_top1"]["difference"] == pytest.approx(-1 / 3)
    assert "mr" in first["metrics"]
    assert "mr" not in second["metrics"]
    shown = run("eval", "forgetting", *two, "--model", "blind", "--baseline", "whole").stdout
    assert any("zeroshot_top1" in line and "lost" in line for line in shown.splitlines())
    each = ("--split", "val", "--split", "all", "--baseline", "whole")
    document = evaluated("forgetting", *two, *each)
    assert [changes["split"] for changes in document["datasets"]] == ["val", "all"]
    refused = run("eval", "forgetting", *two, *each, "--split", "test")
    assert (refused.status, refused.stdout) == (2, "")
    assert "one for each of 2 datasets, found 3" in refused.stderr
    same = run("eval", "forgetting", "--dataset", toy, "--baseline", "whole")
    assert "note: both models are the same" in same.stderr


@pytest.mark.usefixtures("colours")
def test_predictions(toy: Path, tmp_path: Path) -> None:
    names = [f"{label}_{24 + 4 * i + j}.png" for i, label in enumerate(COLOURS) for j in range(4)]
    file = tmp_path / "p.tsv"
    file.write_text("".join(f"{n}\t{n.split('_')[0]}\tsea\t.6\tdesert\t.4\n" for n in names))
    given = ("zeroshot", "--dataset", toy, "--predictions", file)
    document = evaluated(*given)
    assert document["metrics"] == {"top1": pytest.approx(1 / 3)}
    assert document["predictions"] == "p.tsv"
    assert "top3, top5, top10 cannot be scored" in run("eval", *given).stderr
    refused = run("eval", *given, "--raw-names")
    assert refused.status == 2
    assert "expected --predictions or --raw-names, found both" in refused.stderr


@pytest.mark.usefixtures("colours")
def test_unreadable_images(toy: Path) -> None:
    broken = toy / "images" / "sea_35.png"
    broken.write_text("rubbish")
    for command in ("zeroshot", "retrieval"):
        assert f"{broken}: not an image" in run("eval", command, "--dataset", toy).error
        outcome = run("eval", command, "--dataset", toy, "--skip-unreadable", "--json")
        assert outcome.document["n"] == 11
        assert [image["uri"] for image in outcome.document["skipped"]] == [str(broken)]
        assert f"skipped {broken}: not an image" in outcome.stderr


@pytest.mark.usefixtures("colours")
@pytest.mark.parametrize("command", COMMANDS)
def test_missing_and_empty_datasets(command: str, tmp_path: Path) -> None:
    more = ("--baseline", "x") if command == "forgetting" else ()
    gone = run("eval", command, "--dataset", tmp_path / "gone", *more).error
    assert "found nothing at" in gone
    assert "found nothing" in run("eval", command, "--dataset", tmp_path, *more).error
    colour(tmp_path / "a.png", (1, 2, 3))
    assert "no class folders" in run("eval", command, "--dataset", tmp_path, *more).error
    toy = captioned(tmp_path / "toy", splits=("train", "test"))
    error = run("eval", command, "--dataset", toy, "--split", "val", *more).error
    assert "expected a split 'val', found test, train (and all)" in error


@pytest.mark.usefixtures("colours")
def test_folders_have_no_captions(tmp_path: Path) -> None:
    error = run("eval", "retrieval", "--dataset", class_folder(tmp_path)).error
    assert "expected captions, found none for 12 images" in error


@pytest.fixture
def tiles(tmp_path: Path) -> Path:
    """A manifest with one row per caption, whose images are in subfolders."""
    rows = []
    for i in range(4):
        for label, rgb in COLOURS.items():
            colour(tmp_path / "tiles" / f"part{i % 2}" / f"{label}{i}.png", shade(rgb, i))
            row = {"path": f"part{i % 2}/{label}{i}.png", "label": label, "split": "Testing"}
            rows += [{**row, "caption": text} for text in (f"a {label}", f"{label} {i}")]
    rows.append({"path": "gone.png", "label": " ", "split": "extra", "caption": "x"})
    return manifest(tmp_path / "tiles" / "m.jsonl", *rows)


@pytest.mark.usefixtures("colours")
def test_a_manifest_with_one_row_per_caption(tiles: Path) -> None:
    for dataset in (tiles, tiles.parent):
        outcome = run("eval", "retrieval", "--dataset", dataset, "--json")
        document = outcome.document
        assert (document["split"], document["n"], document["captions"]) == ("test", 12, 24)
        assert (document["dataset"], outcome.stderr.count("skipped")) == (dataset.name, 0)
        document = evaluated("zeroshot", "--dataset", dataset, "--split", "testing")
        assert (document["split"], document["n"], document["metrics"]) == ("test", 12, TOP)
    error = run("eval", "zeroshot", "--dataset", tiles, "--split", "trian").error
    assert "expected a split 'trian', found extra, test (and all)" in error


@pytest.mark.usefixtures("colours")
def test_many_skipped_rows_are_listed_briefly(tmp_path: Path) -> None:
    rows = [
        {"path": str(colour(tmp_path / f"{label}.png", rgb)), "label": label}
        for label, rgb in COLOURS.items()
        for _ in range(9)
    ]
    outcome = run("eval", "zeroshot", "--dataset", manifest(tmp_path / "m.jsonl", *rows), "--json")
    assert (outcome.document["split"], outcome.document["n"]) == ("all", 3)
    lines = [line for line in outcome.stderr.splitlines() if line.startswith("skipped")]
    assert "has the same id" in lines[0]
    assert lines[3:] == ["skipped 21 more"]


@pytest.mark.usefixtures("colours")
def test_a_table_next_to_class_folders(tmp_path: Path) -> None:
    folder = class_folder(tmp_path / "folders")
    table = folder / "classes.csv"
    for text in (b"path,area\nsea/0.png,5\n", b"id,name\n1,sea\n", b"path,caption\na,caf\xe9\n"):
        table.write_bytes(text)
        outcome = run("eval", "zeroshot", "--dataset", folder, "--json")
        assert outcome.document["n"] == 12
        assert (f"skipped {table}: " in outcome.stderr) == (b"area" not in text)
    colour(tmp_path / "a.png", (1, 2, 3))
    (tmp_path / "only").mkdir()
    table.rename(tmp_path / "only" / "m.csv")
    error = run("eval", "retrieval", "--dataset", tmp_path / "only").error
    assert "m.csv cannot be read as csv: expected UTF-8" in error


def test_a_missing_library_is_reported_first(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, command in (("matplotlib", "zeroshot"), ("sklearn", "probe")):
        monkeypatch.setitem(sys.modules, name, None)
        error = run("eval", command, "--dataset", toy, "-o", tmp_path / "out").error
        assert "pip install 'rsicd-embed[eval]'" in error


@pytest.mark.usefixtures("load_each_model_once")
def test_a_real_model(toy: Path, tiny_model: Path) -> None:
    document = evaluated("zeroshot", "--dataset", toy, "--model", tiny_model)
    assert document["model"] == str(tiny_model)
    assert 0 <= document["metrics"]["top1"] <= document["metrics"]["top3"] == 1
    metrics = evaluated("retrieval", "--dataset", toy, "--model", tiny_model)["metrics"]
    assert 0 <= metrics["mr"] <= 1


@pytest.mark.usefixtures("colours")
def test_queries(toy: Path, tmp_path: Path) -> None:
    other = class_folder(tmp_path / "folders")
    file = tmp_path / "queries.csv"
    file.write_text("query,classes\na blue sea,sea\nsand in the desert,desert;sea\npalms,oasis\n")
    out = tmp_path / "out"
    arguments = ("queries", file, "--dataset", toy, "--dataset", other, "-k", "4")
    document = evaluated(*arguments, "-o", out)
    assert (document["task"], document["dataset"], document["split"]) == (
        "queries",
        "toy, folders",
        "test, all",
    )
    assert (document["n"], document["queries"], document["metrics"]) == (24, 2, {"p4": 1.0})
    assert document["notes"] == ["classes without images: oasis; queries left out: 1"]
    assert "a blue sea" in (out / "eval-queries.html").read_text()
    blind = evaluated(*arguments, "--model", "blind")
    assert [row["precision"] for row in blind["per_query"]] == [0.0, 1.0]
    assert blind["without_hits"] == 1
    lines = run("eval", *arguments, "--model", "blind").stdout.splitlines()
    assert lines[0] == "colours on toy, folders test, all: 2 queries, 24 images"
    assert lines[3].split() == ["a", "blue", "sea", "0.00", "sea"]
    twice = run("eval", "queries", file, "--dataset", toy, "--dataset", toy)
    assert twice.status == 1 and "is in two of the datasets; give each" in twice.error
    everyday = evaluated("queries", "--dataset", toy)  # of RSICD's classes, toy has two
    assert {c for q in everyday["per_query"] for c in q["classes"]} >= {"desert", "forest"}
