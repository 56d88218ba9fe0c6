"""One device or eight, replicated or sharded parameters: the same results."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from rsicd_embed.errors import TrainError

from .on_eight_devices import CASES
from .steps import config, recipe

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def eight() -> dict[str, Any]:
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "8", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.train.on_eight_devices"],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    output: dict[str, Any] = json.loads(done.stdout)
    return output


@pytest.mark.parametrize("case", CASES)
def test_eight_devices_compute_the_same_as_one(eight: dict[str, Any], case: str) -> None:
    distances = eight["distances"][case]
    assert distances["loss"] <= 1e-5
    assert distances["gradient"] <= 1e-5


def test_losses_do_not_depend_on_devices(eight: dict[str, Any]) -> None:
    single = eight["runs"]["one"]["losses"]
    assert len(set(single)) == 3
    for shard in ("data", "fsdp"):
        np.testing.assert_allclose(eight["runs"][shard]["losses"], single, atol=1e-5)


def test_sharded_states_need_less_memory(eight: dict[str, Any]) -> None:
    data, fsdp = eight["runs"]["data"], eight["runs"]["fsdp"]
    assert fsdp["state"] < 0.5 * data["state"]
    for kind in (data, fsdp):  # the next state reuses the memory of the old one
        assert kind["alias"] > 0.99 * kind["output"] - 64
    # Gradients are a third of the state.
    assert data["collectives"]["all-reduce"] > 0.3 * data["state"]
    assert fsdp["collectives"]["all-gather"] > data["collectives"]["all-gather"]


def test_parameters_are_split_along_their_longest_axis(eight: dict[str, Any]) -> None:
    assert eight["specs"] == {
        "(64, 128)": "[None, 'data']",
        "(128, 64)": "['data']",
        "(63, 72)": "[None, 'data']",
        "(63, 65)": "[]",  # 8 divides neither
        "(8, 8)": "[]",  # small
        "()": "[]",
    }


def test_indivisible_batches() -> None:
    with pytest.raises(TrainError, match=r"expected step\.chunk to divide the 16 images"):
        recipe(config(step__chunk=3))
    assert recipe(config(step__chunk=100)).parts == 1
