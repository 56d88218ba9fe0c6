"""How the suite saves its figures, and fixtures that its benchmarks share."""

from __future__ import annotations

from typing import Any

import pytest

import rsicd_embed
from rsicd_embed.bench.ann import vectors, workload
from rsicd_embed.embedder.clip.embedder import ClipEmbedder
from rsicd_embed.reports import machine

ROWS, DIM, QUERIES, K = 10_000, 256, 90, 10
_CHANGES = ("load_1min", "git")  # from run to run on the same machine


def pytest_configure(config: pytest.Config) -> None:
    """Refuses to run without the plugin, as in `make test`."""
    if not config.pluginmanager.has_plugin("benchmark"):
        raise pytest.UsageError("expected the plugin pytest-benchmark, found none; run: make bench")


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_generate_machine_info() -> dict[str, Any]:
    """Describes the machine as `rsicd-embed bench` does: without names of hosts and users."""
    description = machine.describe(machine.nvidia_gpus())
    return {name: value for name, value in description.items() if name not in _CHANGES}


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_json(output_json: dict[str, Any]) -> None:
    """Adds the version of the source, and the load of the machine."""
    description = machine.describe()
    output_json |= {name: description[name] for name in _CHANGES}


@pytest.fixture(scope="session")
def embedder() -> ClipEmbedder:
    """The bundled model, on its default backend."""
    bundled = rsicd_embed.load_embedder()
    assert isinstance(bundled, ClipEmbedder)
    return bundled


@pytest.fixture(scope="session")
def rows(tmp_path_factory: pytest.TempPathFactory) -> workload.Workload:
    """Rows and queries, the same in every run."""
    source = vectors.generated(ROWS, DIM)
    return workload.prepare(source, tmp_path_factory.mktemp("rows"), QUERIES, K)
