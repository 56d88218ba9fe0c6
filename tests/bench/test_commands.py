"""`bench embed` and `bench ingest` from end to end, on a tiny model."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import pytest

from rsicd_embed.bench import embed_rates as bench_embed
from rsicd_embed.bench import references
from rsicd_embed.reports import timing
from tests.helpers import run


@pytest.fixture
def short_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    short = functools.partial(timing.TimingPlan, least_s=0.005)
    monkeypatch.setattr(timing, "TimingPlan", short)


def embed(*options: str | Path) -> Any:
    return run("bench", "embed", "--rounds", "2", "--batch-size", "4", *options)


def test_embed_prints_one_document_and_writes_it(tiny_model: Path, tmp_path: Path) -> None:
    """In one process, which takes less time; the slow test below has one for each candidate."""
    out = tmp_path / "runs"
    done = embed(
        *("--model", tiny_model, "--backend", "jax", "--backend", "numpy:float32", "--one-process"),
        *("--against", "none", "--matmul-side", "0", "--seed", "7", "-o", out, "--json"),
    )
    assert done.status == 0, done.stderr
    found = done.document
    assert found == json.loads((out / "bench-embed.json").read_text())
    assert (found["format"], found["task"], found["complete"]) == (1, "embed", True)
    assert found["settings"]["seed"] == 7
    assert 0 <= (found["machine"]["others_share"] or 0) <= 1
    assert str(out) not in json.dumps(found)
    assert found["command"].startswith("rsicd-embed bench embed --rounds 2 ")
    one, other = "rsicd-embed jax", "rsicd-embed numpy float32"
    images = found["images"]
    assert list(images["candidates"]) == [one, other]
    for timed in images["candidates"].values():
        assert len(timed["samples_ns"]) == 2
        assert timed["per_s_interval"][0] <= timed["per_s"] <= timed["per_s_interval"][1]
        assert timed["agreement_with_first"]["least_cosine"] > 0.9999
    pairs = {(ratio["of"], ratio["to"]): ratio["ratio"] for ratio in images["ratios"]}
    assert set(pairs) == {(one, other), (other, one)}
    assert images["overhead"]["fraction"] < 0.02
    assert found["peak"] is None


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
    found = json.loads((tmp_path / "bench-embed.json").read_text())
    assert found["complete"]
    assert found["settings"]["batch_size"] == [4, 2]
    each = [f"{model}, {n} a call" for model in (tiny_model, other_model) for n in (4, 2)]
    assert list(found["runs"]) == each
    candidates = found["images"]["candidates"]
    assert list(candidates) == [f"{one}: rsicd-embed numpy" for one in each]
    assert [one["units_per_call"] for one in candidates.values()] == [4, 2, 4, 2]
    assert f"{each[3]}: rsicd-embed numpy" in done.stdout


@pytest.mark.usefixtures("short_samples")
def test_an_interrupted_embed_keeps_the_models_that_are_done(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_of, asked = bench_embed.run, []

    def once(*given: Any, **named: Any) -> Any:
        asked.append(given)
        if len(asked) > 1:
            raise KeyboardInterrupt
        return run_of(*given, **named)

    monkeypatch.setattr(bench_embed, "run", once)
    sizes = ("--batch-size", "1", "--one-process", "--backend", "numpy", "--matmul-side", "0")
    done = embed("--model", tiny_model, *sizes, "--against", "none", "-o", tmp_path)
    assert done.status == 130
    assert "what was measured until then is in" in done.stderr
    found = json.loads((tmp_path / "bench-embed.json").read_text())
    assert not found["complete"]
    assert len(found["images"]["candidates"]) == 1


@pytest.mark.slow
def test_embed_against_all_references(tiny_model: Path, tmp_path: Path) -> None:
    for name in references.NEEDS:
        if name not in references.choose(None).chosen:
            pytest.skip(f"{name} is not installed")
    done = embed("--model", tiny_model, "--texts", "--matmul-side", "512", "-o", tmp_path)
    assert done.status == 0, done.stderr
    found = json.loads((tmp_path / "bench-embed.json").read_text())
    assert list(found["images"]["candidates"]) == list(found["texts"]["candidates"])
    assert list(found["images"]["candidates"]) == [
        "rsicd-embed default",
        "torch float32",
        "onnxruntime float32",
        "openvino float32 (direct)",
        "openvino bfloat16 (direct)",
    ]
    assert found["peak"]["gflop_per_s"] > 0
    for timed in found["images"]["candidates"].values():
        assert timed["of_float32_peak"]["ratio"] > 0
    assert "images/s" in done.stdout
    assert "float32 peak" in done.stdout


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--against", "tensorrt"], "expected references of torch, onnxruntime, openvino, or none"),
        (["--against", "none", "--model", "no/such dir"], "expected a model directory"),
        (["--against", "none", "--backend", "abacus"], "found 'abacus'"),
    ],
)
def test_embed_refuses_in_one_line(tmp_path: Path, options: list[str], told: str) -> None:
    assert told in embed("-o", tmp_path, *options).error
    assert list(tmp_path.iterdir()) == []


def test_embed_names_a_library_that_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(references.NEEDS, "torch", ("no_such_module",))
    error = embed("-o", tmp_path, "--against", "torch").error
    assert "reference torch needs no_such_module: pip install 'rsicd-embed[bench]'" in error


def test_a_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
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


def test_ingest_of_generated_images_and_its_memory(tiny_model: Path, tmp_path: Path) -> None:
    done = ingest(
        *("--model", tiny_model, "--images", "6", "--sides", "20-40", "--memory-at", "5,9"),
        *("--store", "exact", "--store", f"nmslib:{tmp_path}", "-o", tmp_path / "out", "--json"),
    )
    assert done.status == 0, done.stderr
    found = done.document
    assert (found["task"], found["complete"], found["images"]) == ("ingest", True, 6)
    alone = {"model alone", "decoding alone"}
    assert set(found["candidates"]) == alone | {"ingest exact", "ingest nmslib"}
    for one in found["ingests"].values():
        assert {"read", "decode", "resize", "embed", "write"} <= set(one["stages_s"])
        assert one["of_model_alone"]["ratio"] > 0
        assert one["of_sum"]["ratio"] > one["of_slower_alone"]["ratio"]
        assert one["limited_by"]
    assert [one["images"] for one in found["memory"]] == [5, 9]
    for one in found["memory"]:
        assert one["peak_bytes"] >= one["ingest_peak_bytes"] > 0
    assert "--memory-at 5,9" in found["command"]
    assert sorted(one.name for one in tmp_path.iterdir()) == ["out"]


def test_ingest_of_images_that_are_there(tiny_model: Path, pictures: Path, tmp_path: Path) -> None:
    done = ingest(pictures, "--model", tiny_model, "--store", "exact", "-o", tmp_path / "out")
    assert done.status == 0, done.stderr
    assert "of slower alone" in done.stdout
    found = json.loads((tmp_path / "out" / "bench-ingest.json").read_text())
    assert (found["images"], found["memory"]) == (5, [])


def test_ingest_names_an_image_that_cannot_be_read(
    tiny_model: Path, pictures: Path, tmp_path: Path
) -> None:
    (pictures / "z.jpg").write_text("no picture")
    error = ingest(pictures, "--model", tiny_model, "-o", tmp_path / "out").error
    assert "z.jpg: not a picture" in error
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
