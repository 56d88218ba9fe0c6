"""Names of TPU topologies."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from rsicd_embed.cli import main
from rsicd_embed.train.tpu_plan.topology import parse

GIB = 1 << 30


@pytest.mark.parametrize(
    ("name", "libtpu_name", "devices", "gib"),
    [
        ("v2-8", "v2:2x2", 8, 8),
        ("v3-8", "v3:2x2", 8, 16),
        ("V3-32", "v3:4x4", 32, 16),
        ("v4-8", "v4:2x2x1", 4, 32),
        ("v4:2x2x1", "v4:2x2x1", 4, 32),
        ("v5e-8", "v5e:2x4", 8, 16),
        ("v5litepod-8", "v5e:2x4", 8, 16),
        ("v5e:2x4", "v5e:2x4", 8, 16),
        ("v5p-8", "v5p:2x2x1", 4, 95),
        ("v5p:2x2x1", "v5p:2x2x1", 4, 95),
        (" v6e-8 ", "v6e:2x4", 8, 32),
        ("v6e:2x4", "v6e:2x4", 8, 32),
    ],
)
def test_topologies(name: str, libtpu_name: str, devices: int, gib: int) -> None:
    topology = parse(name)
    assert (topology.name, topology.devices, topology.hbm_bytes) == (
        libtpu_name,
        devices,
        gib * GIB,
    )


@pytest.mark.parametrize(
    "name", ["", "v3", "v3-7", "v9-8", "v5e-2", "v5e:0x2", "v3:2", "tpu", "3-8"]
)
def test_an_unknown_topology_is_reported_in_one_line(name: str) -> None:
    result = CliRunner().invoke(main, ["train", "plan", "--topology", name])
    assert (result.exit_code, result.stdout) == (1, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith(
        f"error: expected a TPU topology, found {name!r}; give one of v2-8, v3-8"
    )
