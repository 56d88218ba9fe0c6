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

from ..helpers import run

OPENVINO, JAX = EmbedderEngine("openvino", "float32"), EmbedderEngine("jax", "float32")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets the processor, accelerator and packages of the machine."""

    def of(*, processor: str = "x86_64", accelerator: bool = False, openvino: bool = True) -> None:
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
