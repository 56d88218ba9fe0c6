"""`bench embed` and `bench ingest` end to end, with a tiny model."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import pytest

from rsicd_embed.bench import embed_rates as bench_embed
from rsicd_embed.bench import reference_models
from rsicd_embed.reports import timing
from tests.helpers import run


@pytest.fixture
def short_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    short = functools.partial(timing.TimingPlan, least_s=0.005)
    monkeypatch.setattr(timing, "TimingPlan", short)


def embed(*options: str | Path) -> Any:
    return run("bench", "embed", "--rounds", "2", "--batch-size", "4", *options)


@pytest.mark.slow
def test_embed_prints_and_saves_one_document(tiny_model: Path, tmp_path: Path) -> None:
    """Runs in one process, which is faster; the slow test below has one per candidate."""
    out = tmp_path / "runs"
    done = embed(
        *("--model", tiny_model, "--backend", "jax", "--backend", "numpy:float32", "--one-process"),
        *("--against", "none", "--matmul-side", "0", "--seed", "7", "-o", out, "--json"),
    )
    assert done.status == 0, done.stderr
    document = done.document
    assert document == json.loads((out / "bench-embed.json").read_text())
    assert (document["format"], document["task"], document["complete"]) == (1, "embed", True)
    assert document["settings"]["seed"] == 7
    assert 0 <= (document["machine"]["others_share"] or 0) <= 1
    assert str(out) not in json.dumps(document)
    assert document["command"].startswith("rsicd-embed bench embed --rounds 2 ")
    first, second = "rsicd-embed jax", "rsicd-embed numpy float32"
    images = document["images"]
    assert list(images["candidates"]) == [first, second]
    for timed in images["candidates"].values():
        assert len(timed["samples_ns"]) == 2
        assert timed["per_s_interval"][0] <= timed["per_s"] <= timed["per_s_interval"][1]
        assert timed["agreement_with_first"]["least_cosine"] > 0.9999
    pairs = {(ratio["of"], ratio["to"]): ratio["ratio"] for ratio in images["ratios"]}
    assert set(pairs) == {(first, second), (second, first)}
    assert images["overhead"]["fraction"] < 0.02
    assert document["peak"] is None


@pytest.mark.slow
@pytest.mark.usefixtures("short_samples")
def test_embed_of_several_models_and_batch_sizes(
    tiny_model: Path, other_model: Path, tmp_path: Path
) -> None:
    done = embed(
        *("--model", tiny_model, "--model", other_model, "--batch-size", "2"),
        *("--backend", "numpy", "--against", "none", "--matmul-side", "0", "--one-process"),
        *("-o", tmp_path),
    )
    assert done.status == 0, done.stderr
    document = json.loads((tmp_path / "bench-embed.json").read_text())
    assert document["complete"]
    assert document["settings"]["batch_size"] == [4, 2]
    labels = [f"{model}, {n} a call" for model in (tiny_model, other_model) for n in (4, 2)]
    assert list(document["runs"]) == labels
    candidates = document["images"]["candidates"]
    assert list(candidates) == [f"{label}: rsicd-embed numpy" for label in labels]
    assert [candidate["units_per_call"] for candidate in candidates.values()] == [4, 2, 4, 2]
    assert f"{labels[3]}: rsicd-embed numpy" in done.stdout


@pytest.mark.usefixtures("short_samples")
def test_an_interrupted_embed_keeps_the_finished_models(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_of, calls = bench_embed.run, []

    def once(*given: Any, **named: Any) -> Any:
        calls.append(given)
        if len(calls) > 1:
            raise KeyboardInterrupt
        return run_of(*given, **named)

    monkeypatch.setattr(bench_embed, "run", once)
    sizes = ("--batch-size", "1", "--one-process", "--backend", "numpy", "--matmul-side", "0")
    done = embed("--model", tiny_model, *sizes, "--against", "none", "-o", tmp_path)
    assert done.status == 130
    assert "results up to the interruption are in" in done.stderr
    document = json.loads((tmp_path / "bench-embed.json").read_text())
    assert not document["complete"]
    assert len(document["images"]["candidates"]) == 1


@pytest.mark.slow
def test_embed_against_all_references(tiny_model: Path, tmp_path: Path) -> None:
    for name in reference_models.CLIP_NEEDS:
        if name not in reference_models.choose(None, reference_models.CLIP_NEEDS).chosen:
            pytest.skip(f"{name} is not installed")
    done = embed("--model", tiny_model, "--texts", "--matmul-side", "512", "-o", tmp_path)
    assert done.status == 0, done.stderr
    document = json.loads((tmp_path / "bench-embed.json").read_text())
    assert list(document["images"]["candidates"]) == list(document["texts"]["candidates"])
    assert list(document["images"]["candidates"]) == [
        "rsicd-embed default",
        "torch float32",
        "onnxruntime float32",
        "openvino float32 (direct)",
        "openvino bfloat16 (direct)",
    ]
    assert document["peak"]["gflop_per_s"] > 0
    for timed in document["images"]["candidates"].values():
        assert timed["of_float32_peak"]["ratio"] > 0
    assert "images/s" in done.stdout
    assert "float32 peak" in done.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--against", "tensorrt"], "expected references of torch, onnxruntime, openvino, or none"),
        (["--against", "none", "--model", "no/such dir"], "expected a model directory"),
        (["--against", "none", "--backend", "abacus"], "found 'abacus'"),
    ],
)
def test_errors_of_embed_are_one_line(tmp_path: Path, options: list[str], message: str) -> None:
    assert message in embed("-o", tmp_path, *options).error
    assert list(tmp_path.iterdir()) == []


def test_embed_names_a_missing_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(reference_models.CLIP_NEEDS, "torch", ("no_such_module",))
    error = embed("-o", tmp_path, "--against", "torch").error
    assert "reference torch needs no_such_module: pip install 'rsicd-embed[bench]'" in error


def test_a_read_only_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for command in ("embed", "ingest"):
        assert "cannot write to" in run("bench", command, "-o", tmp_path / "file" / "runs").error


def test_model_and_shape_exclude_each_other(tiny_model: Path, tmp_path: Path) -> None:
    for command in ("embed", "ingest"):
        done = run("bench", command, "--model", tiny_model, "--shape", "vit-b-32", "-o", tmp_path)
        assert done.status == 2
        assert "found both" in done.stderr


def ingest(*options: str | Path) -> Any:
    return run("bench", "ingest", "--rounds", "2", "--batch-size", "4", *options)


@pytest.mark.slow
def test_ingest_of_generated_images_and_its_memory(tiny_model: Path, tmp_path: Path) -> None:
    done = ingest(
        *("--model", tiny_model, "--images", "6", "--sides", "20-40", "--memory-at", "5,9"),
        *("--store", "exact", "--store", f"nmslib:{tmp_path}", "-o", tmp_path / "out", "--json"),
    )
    assert done.status == 0, done.stderr
    document = done.document
    assert (document["task"], document["complete"], document["images"]) == ("ingest", True, 6)
    alone = {"model alone", "decoding alone"}
    assert set(document["candidates"]) == alone | {"ingest exact", "ingest nmslib"}
    for shares in document["ingests"].values():
        assert {"read", "decode", "resize", "embed", "write"} <= set(shares["stages_s"])
        assert shares["of_model_alone"]["ratio"] > 0
        assert shares["of_sum"]["ratio"] > shares["of_slower_alone"]["ratio"]
        assert shares["limited_by"]
    assert [usage["images"] for usage in document["memory"]] == [5, 9]
    for usage in document["memory"]:
        assert usage["peak_bytes"] >= usage["ingest_peak_bytes"] > 0
    assert "--memory-at 5,9" in document["command"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_ingest_of_existing_images(tiny_model: Path, pictures: Path, tmp_path: Path) -> None:
    done = ingest(pictures, "--model", tiny_model, "--store", "exact", "-o", tmp_path / "out")
    assert done.status == 0, done.stderr
    assert "of slower alone" in done.stdout
    document = json.loads((tmp_path / "out" / "bench-ingest.json").read_text())
    assert (document["images"], document["memory"]) == (5, [])


def test_ingest_names_an_unreadable_image(tiny_model: Path, pictures: Path, tmp_path: Path) -> None:
    (pictures / "z.jpg").write_text("no picture")
    error = ingest(pictures, "--model", tiny_model, "-o", tmp_path / "out").error
    assert "z.jpg: not an image" in error
    assert "leave it out" in error


@pytest.mark.parametrize(
    "options", [["--sides", "9"], ["--sides", "40-20"], ["--memory-at", "1,x"], ["--images", "0"]]
)
def test_ingest_refuses_wrong_usage(tmp_path: Path, options: list[str]) -> None:
    assert ingest("-o", tmp_path, *options).status == 2


def test_ingest_refuses_an_unknown_store(tmp_path: Path) -> None:
    assert "found 'faiss'" in ingest("-o", tmp_path, "--store", "faiss").error
    error = ingest("-o", tmp_path, "--store", f"exact:{tmp_path}/absent").error
    assert "expected a store of exact, lancedb, nmslib" in error
