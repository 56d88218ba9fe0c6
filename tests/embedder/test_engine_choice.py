"""The engine of `--backend auto`, and start-up with libtpu but without a TPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rsicd_embed
from rsicd_embed.embedder.clip.backends import EmbedderEngine, engine_choice
from rsicd_embed.embedder.clip.backends import towers as towers_module
from rsicd_embed.embedder.loading import engine_for
from rsicd_embed.embedder.locate import BUNDLED

from ..helpers import run

OPENVINO, JAX = EmbedderEngine("openvino", "float32"), EmbedderEngine("jax", "float32")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets the processor, accelerator and packages of the machine."""

    def of(
        *,
        processor: str = "x86_64",
        accelerator: bool = False,
        openvino: bool = True,
        bfloat16: bool = False,
    ) -> None:
        monkeypatch.setattr(engine_choice, "cpu_has_bfloat16", lambda: bfloat16)
        monkeypatch.setattr(engine_choice, "has_accelerator", lambda: accelerator)
        monkeypatch.setattr(engine_choice.platform, "machine", lambda: processor)
        spec = object() if openvino else None
        monkeypatch.setattr(engine_choice.importlib.util, "find_spec", lambda name: spec)

    return of


def test_engines_of_machines(machine: Any) -> None:
    machine()
    assert list(engine_choice.engines()) == [OPENVINO, JAX]
    bfloat16 = [EmbedderEngine("openvino", "bfloat16"), EmbedderEngine("jax", "bfloat16")]
    assert list(engine_choice.engines("bfloat16")) == bfloat16
    machine(openvino=False)
    assert list(engine_choice.engines()) == [JAX]
    machine(processor="arm64")
    assert list(engine_choice.engines()) == [JAX]
    machine(accelerator=True)
    assert list(engine_choice.engines()) == [EmbedderEngine("jax", "bfloat16")]
    assert list(engine_choice.engines("float32")) == [JAX]


def test_bfloat16_for_resnets_on_cpus_that_have_it(machine: Any) -> None:
    machine(bfloat16=True)
    assert list(engine_choice.engines()) == [OPENVINO, JAX]
    fast = EmbedderEngine("openvino", "bfloat16")
    assert list(engine_choice.engines(resnet=True)) == [fast, JAX]
    assert list(engine_choice.engines("float32", resnet=True)) == [OPENVINO, JAX]
    machine(openvino=False, bfloat16=True)
    assert list(engine_choice.engines(resnet=True)) == [JAX]


def test_engine_of_a_model_before_it_is_loaded(
    machine: Any, tiny_model: Path, tmp_path: Path
) -> None:
    machine()
    assert engine_for("bundled") == engine_for("someone/model") == "openvino float32"
    machine(bfloat16=True)
    assert engine_for("bundled") == "openvino bfloat16"
    assert engine_for(f"{BUNDLED}?activation=gelu") == "openvino bfloat16"
    assert engine_for(str(tiny_model)) == "openvino float32"
    # Its architecture is not known here.
    assert engine_for("someone/model") == engine_for(str(tmp_path)) == "openvino"
    (tmp_path / "config.json").write_text("{")
    assert engine_for(str(tmp_path)) == "openvino"


def test_default_engine_of_the_bundled_model(machine: Any) -> None:
    """The vectors of bfloat16 stay within 0.0002 of those of float32, in cosine."""
    machine(bfloat16=True)
    fast = rsicd_embed.load_embedder()
    assert fast.engine == "openvino bfloat16"
    pixels = np.random.default_rng(0).integers(0, 256, (3, 160, 160, 3), np.uint8)
    slow = rsicd_embed.load_embedder(backend="numpy")
    assert (fast.embed_pixels(pixels) * slow.embed_pixels(pixels)).sum(1).min() > 1 - 2e-4


def test_without_an_engine_that_agrees(
    tiny_model: Path, machine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine()
    monkeypatch.setattr(towers_module, "agreement_of", lambda *_: 0.5)
    with pytest.warns(UserWarning, match=r"openvino float32 is not used: .*wrong vectors"):
        assert rsicd_embed.load_embedder(tiny_model).engine == "jax float32"


def test_engines_are_reported(tiny_model: Path, pictures: Path, uri: str) -> None:
    expected = str(next(engine_choice.engines()))
    done = run("ingest", pictures, "--store", uri, "--model", tiny_model, "--json")
    assert done.document["engine"] == expected
    other = ("--store", f"{uri}-other", "--model", tiny_model, "--backend", "jax")
    assert " images/s, jax float32); 5 rows in " in run("ingest", pictures, *other).stdout
    assert run("info", "--store", uri, "--json").document["engine"] == expected
    texts = ["a port", "a desert"]
    vectors = [
        rsicd_embed.load_embedder(tiny_model, backend=backend).embed_texts(texts)
        for backend in ("auto", "numpy")
    ]
    np.testing.assert_allclose(*vectors, atol=1e-5)


def test_accelerators_need_a_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    monkeypatch.setattr(engine_choice, "_has_plugin", lambda: False)
    monkeypatch.setattr(engine_choice, "tpu_attached", lambda: False)
    monkeypatch.setitem(sys.modules, "jax", None)  # importing it would fail
    assert not engine_choice.has_accelerator()


# Those that commands begin with before they compute.
MODULES = ("embedder.clip.model", "captioning.loading_captioner", "train.loop")


def start_up(module: str, *path: Path) -> subprocess.CompletedProcess[str]:
    """Starts JAX's devices in a new process that does not select platforms."""
    if module.startswith("train."):
        pytest.importorskip("grain", reason="needs the extra train")
    code = f"import rsicd_embed.{module}, jax; print(jax.devices()[0].platform)"
    environment = {name: text for name, text in os.environ.items() if name != "JAX_PLATFORMS"}
    places = os.pathsep.join([*map(str, path), str(Path(rsicd_embed.__file__).parents[1])])
    return subprocess.run(
        [sys.executable, "-c", code],
        env=environment | {"PYTHONPATH": places},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("module", MODULES)
def test_libtpu_is_left_alone_without_a_tpu(module: str, tmp_path: Path) -> None:
    """A stand-in for libtpu, whose library JAX would load when it looks for devices."""
    package = tmp_path / "libtpu"
    package.mkdir()
    library = "def get_library_path():\n    return '/absent/libtpu.so'\n"
    (package / "__init__.py").write_text(library)
    done = start_up(module, tmp_path)
    assert (done.stdout, done.stderr) == ("cpu\n", "")


@pytest.mark.slow
@pytest.mark.parametrize("module", MODULES)
def test_libtpu_is_quiet_without_a_tpu(module: str) -> None:
    pytest.importorskip("libtpu", reason="needs libtpu")
    if engine_choice.tpu_attached():
        pytest.skip("this machine has a TPU")
    done = start_up(module)
    assert (done.stdout, done.stderr) == ("cpu\n", "")
