"""`rsicd-embed caption`, `eval caption` and the bundled captioner."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from flax import nnx

import rsicd_embed
from rsicd_embed.captioning import captioner_files, loading_captioner
from rsicd_embed.captioning.caption_model import CaptionModel
from rsicd_embed.captioning.captioner_files import CaptionerParts
from rsicd_embed.embedder import locate
from rsicd_embed.embedder.base import provenance

from .captioning.tiny_captioner import CONFIG, WORDS
from .helpers import rows, run

pytestmark = pytest.mark.usefixtures("load_each_model_once")
METRICS = ["bleu1", "bleu2", "bleu3", "bleu4", "rouge_l", "cider_d"]


@pytest.fixture(scope="module")
def captioner(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a random captioner for the tiny model."""
    made_by = provenance(rsicd_embed.load_embedder(tiny_model))
    config = dataclasses.replace(CONFIG, vector_dim=made_by.dim)
    params = nnx.state(CaptionModel(config, rngs=nnx.Rngs(0)))
    folder = tmp_path_factory.mktemp("captioner")
    captioner_files.save(folder, CaptionerParts(config, params, WORDS, made_by, "tiny"))
    return folder


def test_images_are_captioned(pictures: Path, captioner: Path) -> None:
    options = ("--captioner", captioner, "--decoding", "greedy")
    done = run("caption", pictures / "a.png", pictures / "b.png", *options, "--json")
    captions = done.document["captions"]
    assert [Path(item["uri"]).name for item in captions] == ["a.png", "b.png"]
    assert all(item["caption"] and item["log_probability"] < 0 for item in captions)
    assert done.document["captioner"] == str(captioner)
    lines = run("caption", pictures / "a.png", *options).stdout.splitlines()
    assert captions[0]["caption"] in lines[0]


def test_rows_of_a_store_are_captioned(
    pictures: Path, captioner: Path, tiny_model: Path, other_model: Path, tmp_path: Path
) -> None:
    uri = f"exact:{tmp_path / 'store'}"
    assert run("ingest", pictures, "--store", uri, "--model", tiny_model).status == 0
    command = ("caption", "--store", uri, "--captioner", captioner, "--decoding", "greedy")
    first = run(*command, "--column", "sentence", "--json").document
    assert (first["captioned"], first["kept"], first["column"]) == (5, 0, "sentence")
    stored = rows(uri)
    assert all(row["sentence"] and row["sentence_log_probability"] < 0 for row in stored.values())
    again = run(*command, "--column", "sentence")
    assert again.stdout == "captioned 0 rows in column sentence; 5 rows kept theirs\n"
    found = run("search", "--like", "a.png", "--store", uri, "--json").document["hits"]
    assert found[0]["sentence"] == stored[found[0]["id"]]["sentence"]
    assert "'label' is not" not in run(*command, "--column", "width").error

    other = f"exact:{tmp_path / 'other'}"
    assert run("ingest", pictures, "--store", other, "--model", other_model).status == 0
    refused = run("caption", "--store", other, "--captioner", captioner).error
    assert "was trained on those of" in refused
    assert "rsicd-embed train caption --model" in refused


def test_mistakes_are_reported(pictures: Path, captioner: Path) -> None:
    image, options = pictures / "a.png", ("--captioner", captioner)
    for arguments, message in (
        ((), "expected either IMAGES or --store URI"),
        ((image, "--store", "exact:x"), "expected either IMAGES or --store URI"),
        ((image, "--overwrite"), "expected --store with --where and --overwrite, found IMAGES"),
        (
            ("--store", "exact:x", "--model", "bundled"),
            "expected IMAGES with --model, found --store",
        ),
    ):
        outcome = run("caption", *arguments, *options)
        assert outcome.status == 2
        assert message in outcome.stderr
    too_long = run("caption", image, *options, "--max-words", "99").error
    assert "captions of at most 12 words, the context of this captioner, found 99" in too_long
    assert "found no config.json" in run("caption", image, "--captioner", pictures).error


def test_captions_are_evaluated(captioned_folder: Path, captioner: Path, tmp_path: Path) -> None:
    command = ("eval", "caption", "--dataset", captioned_folder, "--split", "val")
    options = ("--captioner", captioner, "--decoding", "greedy", "--resamples", "100")
    record = run(*command, *options, "--json", "--vectors", tmp_path / "vectors").document
    assert record["task"] == "caption"
    assert (record["n"], record["references"], record["decoding"]) == (12, 24, "greedy")
    assert list(record["metrics"]) == METRICS
    assert set(record["baselines"]) == {"nearest", "most_frequent"}
    for baseline in record["baselines"].values():
        for name in METRICS:
            low, high = baseline["margin_intervals"][name]
            assert low <= baseline["margin"][name] <= high
            difference = record["metrics"][name] - baseline["metrics"][name]
            assert baseline["margin"][name] == pytest.approx(difference)
    # Nothing to learn is needed to find an image of the same class.
    assert record["baselines"]["nearest"]["metrics"]["bleu4"] > record["metrics"]["bleu4"]
    assert list(tmp_path.glob("vectors/*/view-0.npy"))
    text = run(*command, *options, "--vectors", tmp_path / "vectors").stdout
    assert "12 images with 24 captions" in text
    assert "nearest image's" in text


def test_without_train_captions_there_are_no_baselines(
    captioned_folder: Path, captioner: Path, tmp_path: Path
) -> None:
    (tmp_path / "images").symlink_to(captioned_folder / "images")
    content = json.loads((captioned_folder / "dataset_toy.json").read_text())
    val = [image for image in content["images"] if image["split"] == "val"]
    (tmp_path / "dataset_val.json").write_text(json.dumps({"images": val}))
    command = ("eval", "caption", "--dataset", tmp_path, "--split", "val")
    options = ("--captioner", captioner, "--decoding", "greedy", "--resamples", "100")
    record = run(*command, *options, "--json").document
    assert record["baselines"] == {}
    assert "no captions in the split train" in record["notes"][0]


def test_the_bundled_captioner_fits_the_bundled_model() -> None:
    bundled = Path(loading_captioner.__file__).parent / "bundled"
    parts = captioner_files.read(bundled, "bundled")
    metrics: dict[str, Any] = json.loads(
        (Path(locate.__file__).parent / "bundled" / "metrics.json").read_text()
    )
    assert parts.made_by.fingerprint == metrics["fingerprint"]
    assert sum(path.stat().st_size for path in bundled.iterdir()) < 12e6
    scores = json.loads((bundled / "metrics.json").read_text())["RSICD test"]["beam 5"]
    assert scores["metrics"]["bleu4"] >= 0.3
    assert scores["metrics"]["rouge_l"] >= 0.47
    assert min(scores["baselines"]["nearest"]["margin"].values()) > 0
