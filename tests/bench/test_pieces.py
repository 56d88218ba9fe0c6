"""Parts of benchmarks: FLOPs, inputs, agreement, workers, records."""

from __future__ import annotations

import json
import os
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from rsicd_embed.bench import synthetic_inputs
from rsicd_embed.bench.embed_rates import agreement
from rsicd_embed.bench.flops import ConvolutionalTower, ImageTower, MatmulShape, Products
from rsicd_embed.bench.workers import InlineWorker, ProcessWorker, once
from rsicd_embed.errors import BenchError, StoreError
from rsicd_embed.images import read_rgb
from rsicd_embed.reports import machine, record

B32 = ImageTower(224, 32, 768, 12, 3072, 512)


def test_flops_of_published_shapes() -> None:
    assert B32.tokens == 50
    assert B32.flops == pytest.approx(8.8e9, rel=0.01)
    assert ImageTower(224, 16, 768, 12, 3072, 512).flops == pytest.approx(35.1e9, rel=0.01)
    assert ImageTower(224, 14, 1024, 24, 4096, 768).flops == pytest.approx(162e9, rel=0.01)


def test_flops_of_a_tower_counted_by_hand() -> None:
    """Two tokens of width 3, one layer, one patch of 2 × 2 pixels, hidden 5, embedding 7."""
    patches, linear = 2 * 12 * 3, 4 * 2 * 2 * 3 * 3
    attention, mlp, projection = 2 * 2 * 2 * 2 * 3, 2 * 2 * 2 * 3 * 5, 2 * 3 * 7
    by_hand = patches + linear + attention + mlp + projection
    assert ImageTower(2, 2, 3, 1, 5, 7).flops == by_hand


def test_flops_of_convolutions_counted_by_hand() -> None:
    """A 3×3 kernel from 2 to 5 channels over 4 × 4 positions, a 1×1 to 6, embedding 7."""
    tower = ConvolutionalTower(4, ((16, 2 * 9, 5), (16, 5, 6)), 7)
    assert tower.flops == 2 * (16 * 18 * 5 + 16 * 5 * 6 + 6 * 7)
    assert tower.product == (16, 18, 5)


def test_inputs_depend_on_the_seed_only_and_are_all_different() -> None:
    first = synthetic_inputs.pixels(4, (20, 30, 3))
    assert (first.shape, first.dtype) == ((4, 20, 30, 3), np.uint8)
    np.testing.assert_array_equal(first, synthetic_inputs.pixels(4, (20, 30, 3)))
    assert len({image.tobytes() for image in first}) == 4
    assert synthetic_inputs.texts(9) == synthetic_inputs.texts(9)
    assert len(set(synthetic_inputs.texts(9))) > 1


def test_agreement_is_the_least_cosine_and_has_a_reference() -> None:
    vectors = np.eye(3, dtype=np.float32)
    others = vectors.copy()
    others[2] = (0, 0.6, 0.8)
    assert agreement(vectors, vectors)["least_cosine"] == 1.0
    assert agreement(vectors, others)["least_cosine"] == pytest.approx(0.8)
    assert agreement(vectors, others)["largest_difference"] == pytest.approx(0.6)
    assert agreement(vectors, vectors)["between_inputs"] == 0.0


@pytest.mark.parametrize("start", [InlineWorker, ProcessWorker])
def test_workers_call_functions_on_their_object(start: type) -> None:
    worker = start("a list", list)
    assert worker.call(list.append, 5) is None
    assert worker.call(len) == 1
    worker.close()


def test_failures_in_another_process_are_reported_in_one_line() -> None:
    with pytest.raises(BenchError, match=r"^mine: ValueError: invalid literal") as caught:
        once("mine", partial(int, "x"))
    assert "Traceback" in caught.value.__notes__[0]
    with pytest.raises(BenchError, match=r"^theirs: its process ended with status 3"):
        once("theirs", partial(os._exit, 3))
    with pytest.raises(BenchError, match=r"^other: ValueError"):
        ProcessWorker("other", partial(int, "x"))


def test_environment_variables_are_removed_while_the_peak_is_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    shape = MatmulShape(4, 3, 2)
    make = partial(Products, "numpy", [shape])
    with ProcessWorker("sgemm", make, without=["OPENBLAS_CORETYPE", "NOT_SET"]) as worker:
        assert worker.call(Products.sample, shape, 1) > 0
        assert worker.call(_variable) is None
    assert machine.describe()["environment"]["OPENBLAS_CORETYPE"] == "Haswell"


def _variable(_: object) -> str | None:
    return os.environ.get("OPENBLAS_CORETYPE")


def test_the_machine_info_has_no_paths() -> None:
    info = machine.describe(["a GPU"])
    assert info["accelerators"] == ["a GPU"]
    assert info["cores"] >= 1
    assert info["packages"]["numpy"] == np.__version__
    assert str(Path.home()) not in json.dumps(info)
    assert machine.versions(["no-such-package"]) == {}


def test_no_git_state_outside_a_checkout(tmp_path: Path) -> None:
    (tmp_path / "a.py").touch()
    assert machine.git_state(tmp_path / "a.py") is None


def test_generated_jpegs(tmp_path: Path) -> None:
    synthetic_inputs.write_jpegs(tmp_path, 7, (16, 40), distinct=3)
    files = sorted(tmp_path.rglob("*.jpg"))
    assert len(files) == 7
    sizes = [read_rgb(file).size for file in files]
    assert {side for size in sizes for side in size} == {16, 28, 40}
    assert len({file.read_bytes() for file in files}) == 3


def test_saving_a_record_replaces_an_older_one(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "runs"
    record.claim(folder)
    record.save(folder, "one", {"a": 1})
    path = record.save(folder, "one", {"a": 2})
    assert json.loads(path.read_text()) == {"a": 2}
    assert [path.name for path in folder.iterdir()] == ["one.json"]


def test_a_read_only_folder_is_an_error_before_the_run(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"cannot write to .*file"):
        record.claim(tmp_path / "file" / "runs")
