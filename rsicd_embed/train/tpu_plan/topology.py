"""Names of TPU topologies and the memory of their devices. Does not load JAX."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from rsicd_embed.errors import TrainError

# Lets libtpu compile on a machine without a TPU; must be set before JAX is imported.
ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",  # do not look for a metadata server
    "TPU_ACCELERATOR_TYPE": "v3-8",  # otherwise it queries the metadata server
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # no lock file, which protects a shared TPU
    "TPU_LOG_DIR": "disabled",
}

# Shapes of slices by their number of chips, as Cloud TPU counts them.
_FLAT = {
    1: (1, 1), 4: (2, 2), 8: (2, 4), 16: (4, 4), 32: (4, 8), 64: (8, 8), 128: (8, 16),
    256: (16, 16),
}  # fmt: skip
_CUBIC = {4: (2, 2, 1), 8: (2, 2, 2), 16: (2, 2, 4), 32: (2, 4, 4), 64: (4, 4, 4)}


@dataclass(frozen=True)
class Chip:
    """A generation of TPUs.

    Attributes:
        hbm_gib: high-bandwidth memory, in GiB.
        devices: number of JAX devices; two devices have half of the memory each.
        cores: cores per chip that names such as v3-8 count; 1 if they count chips.
        shapes: shapes of slices by their number of chips.
        cores_joined: whether libtpu needs the megacore option, which joins two cores into a device.
    """

    hbm_gib: int
    devices: int
    cores: int
    shapes: Mapping[int, tuple[int, ...]]
    cores_joined: bool = False


# Specifications and configurations of each generation from the Google Cloud TPU documentation,
# cloud.google.com/tpu/docs/v2, …/v3, …/v4, …/v5e, …/v5p and …/v6e.
CHIPS = {
    "v2": Chip(16, devices=2, cores=2, shapes=_FLAT),
    "v3": Chip(32, devices=2, cores=2, shapes=_FLAT),
    "v4": Chip(32, devices=1, cores=2, shapes=_CUBIC, cores_joined=True),
    "v5e": Chip(16, devices=1, cores=1, shapes=_FLAT),
    "v5p": Chip(95, devices=1, cores=2, shapes=_CUBIC),
    "v6e": Chip(32, devices=1, cores=1, shapes=_FLAT),
}
_ALIASES = {"v5litepod": "v5e"}
KNOWN = "v2-8, v3-8, v4-8, v5e-8 (or v5litepod-8), v5p-8, v6e-8 and larger, or a shape: v5e:2x4"


@dataclass(frozen=True)
class Topology:
    """A slice of TPUs: its generation (a key of CHIPS) and its number of chips along each axis."""

    generation: str
    shape: tuple[int, ...]

    @property
    def chip(self) -> Chip:
        """Its kind of chip."""
        return CHIPS[self.generation]

    @property
    def name(self) -> str:
        """Its name for libtpu, such as v3:2x2."""
        return f"{self.generation}:{'x'.join(map(str, self.shape))}"

    @property
    def devices(self) -> int:
        """Number of JAX devices."""
        return prod(self.shape) * self.chip.devices

    @property
    def hbm_bytes(self) -> int:
        """Memory of each device, in bytes."""
        return (self.chip.hbm_gib << 30) // self.chip.devices

    @property
    def chips_per_host(self) -> tuple[int, ...]:
        """Chips of one machine along each of three axes: a square of four, or all."""
        return (*(min(2, side) for side in self.shape[:2]), 1)


def parse(text: str) -> Topology:
    """Parses a topology as named by Cloud TPU (v3-8, v5litepod-8) or libtpu (v4:2x2x1).

    Example:
        >>> parse("v3-8").name, parse("v3-8").devices
        ('v3:2x2', 8)
        >>> parse("v5p-8").devices
        4
    """
    match = re.fullmatch(r"(v\w+?)(?:-(\d+)|:(\d+x\d+(?:x\d+)?))", text.strip().lower())
    if match:
        generation = _ALIASES.get(match[1], match[1])
        if chip := CHIPS.get(generation):
            if match[3]:
                shape = tuple(map(int, match[3].split("x")))
                if prod(shape):
                    return Topology(generation, shape)
            elif int(match[2]) % chip.cores == 0 and (
                known := chip.shapes.get(int(match[2]) // chip.cores)
            ):
                return Topology(generation, known)
    raise TrainError(f"expected a TPU topology, found {text!r}; give one of {KNOWN}")
