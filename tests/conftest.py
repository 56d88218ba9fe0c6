"""Fixtures for all tests: small images, tiny random models, and stores."""

from __future__ import annotations

import gc
import json
import math
import os
import shutil
import sys
from collections.abc import Generator, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from PIL import Image

import rsicd_embed
from rsicd_embed.cli import progress
from rsicd_embed.embedder.clip.backends import engine_choice
from rsicd_embed.testing.embedders import picture as picture

from .helpers import IDS, PATIENCE_S, SCHEMES, Counting, built_once, cached, run

# By default beside the project.
DATA = Path(os.environ.get("RSICD_EMBED_DATA", Path(__file__).parents[2] / "shared" / "data"))

COLOURS = {"desert": (230, 190, 100), "forest": (20, 90, 20), "sea": (20, 60, 160)}

# XLA's options that compile a program as a whole, and without MLIR: a quarter of the CPU time. XLA
# ends the process if it does not know one, and jaxlib 0.12 does not know the second.
QUICK_COMPILATION = "--xla_cpu_parallel_codegen_split_count=1"
if version("jaxlib").startswith("0.10."):
    QUICK_COMPILATION += " --xla_cpu_use_fusion_emitters=false"

CAPTIONS = [
    "many planes are parked near a large building in an airport .",
    "a desert with yellow dunes .",
    "several boats are in a port near green water .",
    "it is a piece of green farmland .",
] * 4


def pytest_configure(config: pytest.Config) -> None:
    """Makes tests cheap, and independent of other work on the machine.

    XLA programs are cached for all test processes and later runs, and optimised little. Several
    test processes compute with one thread each: OpenMP's threads wait actively, and on busy cores
    PyTorch takes a multiple of the CPU time with two. Examples of hypothesis have no time limit.
    """
    if getattr(config.option, "numprocesses", None):
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            os.environ.setdefault(name, "1")
    settings.register_profile(
        "untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
    settings.load_profile("untimed")
    os.environ.setdefault("JAX_PLATFORMS", "cpu")  # also where libtpu is installed
    # Tests compile more than they compute.
    os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    os.environ.setdefault("XLA_FLAGS", QUICK_COMPILATION)
    cache = getattr(config, "cache", None)  # absent with -p no:cacheprovider
    if cache is not None:
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache.mkdir("xla")))
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "0")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Imports all modules without garbage collection, which would visit a million objects."""
    gc.disable()
    result = yield
    gc.enable()
    return result


@pytest.fixture(autouse=True, scope="session")
def float32_on_every_cpu() -> Iterator[None]:
    """Makes results independent of the CPU: `auto` may compute in bfloat16."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine_choice, "cpu_has_bfloat16", lambda: False)
        yield


@pytest.fixture(autouse=True, scope="module")
def _threads_of_torch() -> Iterator[None]:
    """Restores the number of PyTorch's threads, which benchmarks increase for their process."""
    yield
    if "torch" in sys.modules and "OMP_NUM_THREADS" in os.environ:
        sys.modules["torch"].set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


@pytest.fixture(autouse=True)
def _no_progress_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents progress lines on stderr, which slow machines would print after ten seconds."""
    monkeypatch.setattr(progress, "_LINE_EVERY_S", math.inf)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Debian's Chromium, if it is installed."""
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    with api.sync_playwright() as playwright:
        # Without --disable-gpu, Debian's Chromium imitates a graphics card, which takes longer.
        arguments = ["--no-sandbox", "--disable-gpu"]
        browser = playwright.chromium.launch(
            executable_path=path, args=arguments, timeout=1000 * PATIENCE_S
        )
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def captioned_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset in the RSICD layout with three classes that differ in colour."""
    folder = tmp_path_factory.mktemp("captioned")
    (folder / "images").mkdir()
    rng = np.random.default_rng(0)
    entries = []
    for label, colour in COLOURS.items():
        for i in range(12):
            noisy = np.clip(rng.normal(colour, 25, (24, 24, 3)), 0, 255).astype(np.uint8)
            name = f"{label}_{i}.png"
            Image.fromarray(noisy).save(folder / "images" / name)
            sentences = [{"raw": f"there is a {label} ."}, {"raw": f"a {label} number {i} ."}]
            split = "val" if i < 4 else "train"
            entries.append({"filename": name, "split": split, "sentences": sentences})
    (folder / "dataset_toy.json").write_text(json.dumps({"images": entries}))
    return folder


@pytest.fixture(scope="session")
def rsicd() -> Path:
    """The real RSICD, if it is in the data folder."""
    folder = DATA / "rsicd"
    if not folder.is_dir():
        pytest.skip(f"needs the RSICD dataset in {folder}")
    return folder


@pytest.fixture(scope="session")
def ucm() -> Path:
    """The real UCM, if it is in the data folder."""
    folder = DATA / "ucm"
    if not folder.is_dir():
        pytest.skip(f"needs the UCM dataset in {folder}")
    return folder


def write_model(directory: Path, seed: int) -> Path:
    """Writes a tiny random CLIP in the Hugging Face layout."""
    from flax import nnx

    from rsicd_embed.embedder import export_model as hf
    from rsicd_embed.embedder.clip.model import Clip
    from rsicd_embed.embedder.preprocess import Preprocessor
    from rsicd_embed.train.config import SHAPES
    from rsicd_embed.train.initialization import learn_vocabulary

    shape = SHAPES["tiny"]
    _, params = nnx.split(Clip(shape, rngs=nnx.Rngs(seed)))
    size = shape.image_size
    pixels = Preprocessor(resize=size, crop=(size, size))
    hf.save(directory, shape, params, learn_vocabulary(CAPTIONS, shape.vocab_size), pixels)
    return directory


@pytest.fixture(scope="module")
def load_each_model_once() -> Iterator[None]:
    """Loads each model once, for tests that run many commands in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rsicd_embed, "load_embedder", cached(rsicd_embed.load_embedder))
        yield


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a tiny random CLIP."""
    return built_once(tmp_path_factory, "tiny", lambda folder: write_model(folder, seed=0))


@pytest.fixture(scope="session")
def other_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another tiny random CLIP."""
    return built_once(tmp_path_factory, "other", lambda folder: write_model(folder, seed=1))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder with five images, one of them in a subfolder."""
    folder = tmp_path / "pictures"
    (folder / "sub").mkdir(parents=True)
    for i, name in enumerate(IDS):
        picture(i).save(folder / name)
    return folder


@pytest.fixture(scope="session")
def _loaded(tiny_model: Path) -> Any:
    return rsicd_embed.load_embedder(tiny_model)


@pytest.fixture
def embedder(_loaded: Any) -> Counting:
    """The tiny model, counting the images it embeds."""
    return Counting(_loaded)


@pytest.fixture
def uri(tmp_path: Path) -> str:
    """URI of a store that does not exist yet."""
    return f"exact:{tmp_path / 'store'}"


@pytest.fixture(params=SCHEMES)
def each_uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URI of a store of each kind that does not exist yet."""
    return f"{request.param}:{tmp_path / 'store'}"


@pytest.fixture
def stored(uri: str, pictures: Path, tiny_model: Path) -> str:
    """A store with the five images."""
    assert run("ingest", pictures, "--store", uri, "--model", tiny_model).status == 0
    return uri


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Path of a row file that does not exist yet."""
    return tmp_path / "rows.parquet"
