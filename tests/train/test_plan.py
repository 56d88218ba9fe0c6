"""Plans of the training step: settings, memory, and, with libtpu, real compilations."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from click.testing import CliRunner, Result

from rsicd_embed.cli import main
from rsicd_embed.cli.train.train_plan import lines
from rsicd_embed.errors import TrainError
from rsicd_embed.train.config import SHAPES, ModelConfig, StepConfig, TrainConfig
from rsicd_embed.train.step import jitted_step
from rsicd_embed.train.tpu_plan import compile_for_tpu, topology
from rsicd_embed.train.tpu_plan import plan as planning
from rsicd_embed.train.tpu_plan.compile_for_tpu import Compiled, StepWorkload
from rsicd_embed.train.tpu_plan.plan import MemoryModel, TpuPlan, memory_model
from rsicd_embed.train.tpu_plan.step_costs import abstract_arguments, step_flops
from rsicd_embed.train.tpu_plan.topology import parse

TINY = StepWorkload(TrainConfig(ModelConfig(shape="tiny")))
GIB = 1 << 30
CONTRACT = {
    "topology", "global_batch", "hbm_bytes_per_device", "hbm_capacity_bytes", "flops_per_step",
    "fits",
}  # fmt: skip


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment set by the command, reset after the test."""
    for name, value in topology.ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["train", "plan", *arguments])


def test_without_libtpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    result = run("--topology", "v3-8", "--shape", "tiny")
    assert (result.exit_code, result.stdout) == (1, "")
    (line,) = result.stderr.splitlines()
    assert line == (
        "error: compiling for TPUs needs libtpu, which is not installed: "
        "pip install 'rsicd-embed[train,tpu]'"
    )


def test_the_suggested_extra_installs_libtpu() -> None:
    import tomllib

    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))
    extras = project["project"]["optional-dependencies"]
    # In the version that JAX requires.
    assert any(requirement.startswith("jax[tpu]") for requirement in extras["tpu"])


def test_wrong_usage(tmp_path: Path) -> None:
    assert run().exit_code == 2
    assert run("--topology", "v3-8", "--shape", "vit-g").exit_code == 2
    before = CliRunner().invoke(main, ["train", "--epochs", "3", "plan", "--topology", "v3-8"])
    assert before.exit_code == 2
    assert "options of train cannot be used with `plan`" in before.stderr
    for arguments in ([], ["--dataset", str(tmp_path)]):
        alone = CliRunner().invoke(main, ["train", *arguments])
        assert alone.exit_code == 2
        assert "Missing option '--" in alone.stderr


def test_the_command_offers_every_shape() -> None:
    help_text = CliRunner().invoke(main, ["train", "plan", "--help"]).stdout
    assert all(name in help_text for name in SHAPES)


# Memory.


def compiled(batch: int, temporary: int = 0, state: int = 100) -> Compiled:
    return Compiled(batch, state + batch, 0, state, temporary, 7.0 * batch, {"all-reduce": 5})


def test_the_memory_model_reproduces_its_input() -> None:
    compiled_step = compiled(64, temporary=100_000)
    model = memory_model(compiled_step, devices=8)
    assert model.at(64) == compiled_step.hbm_bytes
    assert model.at(0) == 100
    assert model.largest(compiled_step.hbm_bytes + 1, 8) == 64
    assert model.largest(99, 8) == 0


def test_in_parts_only_the_batch_grows() -> None:
    compiled_step = compiled(64, temporary=100_000)
    model = memory_model(compiled_step, devices=8, in_parts=True)
    assert model.at(64) == compiled_step.hbm_bytes
    logits = 3 * 4 * (128**2 - 64**2) / 8
    assert model.at(128) == compiled_step.hbm_bytes + 2 * 64 + logits


def test_memory_and_batch_grow_together() -> None:
    model = MemoryModel(fixed=1e9, each=5e6, squared=1.5)
    sizes = [model.at(n) for n in range(0, 4096, 64)]
    assert sizes == sorted(sizes)
    for limit in (2 * GIB, 16 * GIB, 95 * GIB):
        largest = model.largest(limit, 8)
        assert largest % 8 == 0
        assert model.at(largest) <= limit < model.at(largest + 8)


# Plans with a fake compiler.


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Fakes a compiler that fits 1,000 images at 1 MB per image and device; lists its batches."""
    batches: list[int] = []

    def compile_step(workload: StepWorkload, devices: Any, batch: int) -> Compiled | None:
        batches.append(batch)
        return compiled(batch, temporary=batch << 20) if batch <= 1000 else None

    monkeypatch.setattr(planning, "tpu_devices", lambda target: range(target.devices))
    monkeypatch.setattr(planning, "compiler_limit", lambda devices: 15 * GIB)
    monkeypatch.setattr(planning, "compile_step", compile_step)
    return batches


def test_a_batch_that_fits(compiler: list[int]) -> None:
    result = run("--topology", "v3-8", "--shape", "tiny", "--global-batch", "512", "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    plan = json.loads(result.stdout)
    assert plan.keys() >= CONTRACT
    assert plan["topology"] == "v3-8"
    assert plan["global_batch"] == plan["compiled_global_batch"] == 512
    assert plan["fits"] is True
    assert plan["hbm_bytes_per_device"] == 100 + 512 + (512 << 20)
    assert plan["hbm_capacity_bytes"] == 16 * GIB
    assert plan["hbm_limit_bytes"] == 15 * GIB
    assert plan["flops_per_step"] == 8 * plan["flops_per_device"] == 8 * 7 * 512
    assert plan["largest_is_estimate"] is True
    assert 14_000 < plan["largest_global_batch"] < 15 * 1024
    assert compiler == [512]


def test_a_batch_that_does_not_compile(compiler: list[int]) -> None:
    plan = planning.plan("v3-8", TINY, 2400)
    assert compiler == [2400, 1200, 600]
    assert (plan.fits, plan.global_batch, plan.compiled_global_batch) == (False, 2400, 600)
    assert plan.largest_global_batch < 2400
    assert plan.flops_per_step == 8 * 7 * 2400
    text = "\n".join(lines(plan))
    assert "does not fit" in text
    assert "estimated from a batch of 600" in text


def test_too_little_memory(compiler: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    little = topology.Chip(1, devices=2, cores=2, shapes={4: (2, 2)})
    monkeypatch.setitem(topology.CHIPS, "v3", little)
    fits = {n: planning.plan("v3-8", TINY, n) for n in (64, 256, 504, 512, 800)}
    assert [plan.fits for plan in fits.values()] == [True, True, True, False, False]
    assert all(plan.largest_global_batch in (504, 512) for plan in fits.values())
    assert fits[512].largest_global_batch == 504
    assert fits[64].hbm_capacity_bytes == GIB // 2


def test_verify_compiles_the_largest_batch(compiler: list[int]) -> None:
    plan = planning.plan("v3-8", TINY, 800, verify=True)
    assert plan.largest_is_estimate is False
    assert plan.largest_global_batch in (800, compiler[-1])
    assert compiler[0] == 800 <= plan.largest_global_batch
    assert compiler[1:] == sorted(compiler[1:], reverse=True)
    assert "compiled" in list(lines(plan))[-2]


def test_a_model_that_never_fits(monkeypatch: pytest.MonkeyPatch, compiler: list[int]) -> None:
    monkeypatch.setattr(planning, "compile_step", lambda *_: None)
    with pytest.raises(
        TrainError, match="expected a model that fits v3-8 with one image per device"
    ):
        planning.plan("v3-8", TINY, 64)


def test_an_indivisible_batch() -> None:
    with pytest.raises(TrainError, match="divisible by the 8 devices of v3-8, found 12"):
        planning.plan("v3-8", TINY, 12)


# Plans with XLA.


def parameters(model: str) -> int:
    """Number of a model's parameters."""
    from flax import nnx

    from rsicd_embed.embedder.clip.model import Clip

    state = nnx.state(nnx.eval_shape(lambda: Clip(SHAPES[model], rngs=nnx.Rngs(0))))
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(state))


def test_a_plan_for_the_local_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planned step is the real one: it also compiles for the local device."""
    monkeypatch.setattr(planning, "tpu_devices", lambda target: jax.devices()[:1])
    plan = planning.plan("v5e-1", TINY, 8)
    assert plan.fits
    state = 3 * 4 * parameters("tiny")  # parameters and two moments
    assert plan.output_bytes < 0.01 * state  # the next state reuses the memory of the old one
    assert state < plan.argument_bytes < state * 1.01 + 8 * (36 * 36 * 3 + 32 * 4 + 8)
    assert plan.temporary_bytes > 0
    assert plan.collective_bytes_per_device == {}


@pytest.fixture(scope="module")
def devices() -> Any:
    pytest.importorskip("libtpu", reason="compiling for TPUs needs libtpu")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in topology.ENVIRONMENT.items():
            patch.setenv(name, value)
        return compile_for_tpu.tpu_devices(parse("v3-8"))


def test_memory_available_to_programs(devices: Any) -> None:
    assert len(devices) == 8
    limit = compile_for_tpu.compiler_limit(devices)
    assert limit is not None
    assert 15 * GIB < limit < 16 * GIB


def test_a_topology_unknown_to_libtpu(devices: Any) -> None:
    with pytest.raises(TrainError, match="a topology that libtpu knows, found v5e:3x5"):
        compile_for_tpu.tpu_devices(parse("v5e:3x5"))


@pytest.mark.parametrize("name", ["v2-8", "v4-8", "v5e-1", "v5e-8", "v5p-8", "v6e-8"])
def test_topologies_have_as_many_devices_as_in_libtpu(devices: Any, name: str) -> None:
    assert len(compile_for_tpu.tpu_devices(parse(name))) == parse(name).devices


@pytest.mark.slow
# A second plan of the same step finds a program in XLA's cache that only a TPU could load.
@pytest.mark.filterwarnings("ignore:Error reading persistent compilation cache")
def test_a_real_plan_agrees_with_the_compiler(
    devices: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = TINY.recipe(devices, 16)
    program = jitted_step(recipe).lower(*abstract_arguments(recipe)).compile()
    memory, costs = program.memory_analysis(), program.cost_analysis()
    result = run("--topology", "v3-8", "--shape", "tiny", "--global-batch", "16", "--json")
    plan = TpuPlan(**json.loads(result.stdout))
    assert plan.fits
    assert plan.hbm_bytes_per_device == (
        memory.argument_size_in_bytes
        + memory.temp_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes
    )
    assert plan.flops_per_step == 8 * costs["flops"]
    gradients = 4 * parameters("tiny")
    assert gradients < plan.collective_bytes_per_device["all-reduce"] < 1.1 * gradients

    larger = planning.plan("v3-8", TINY, 256)
    assert larger.hbm_bytes_per_device > plan.hbm_bytes_per_device
    assert larger.flops_per_step > plan.flops_per_step
    limit = larger.hbm_bytes_per_device - 1
    monkeypatch.setattr(planning, "compiler_limit", lambda devices: limit)
    refused = planning.plan("v3-8", TINY, 256)
    assert not refused.fits
    assert refused.largest_global_batch < 256


def test_plan_uses_the_settings_of_train(compiler: list[int], tmp_path: Path) -> None:
    seen: list[StepWorkload] = []
    original = planning.compile_step
    path = tmp_path / "run.toml"
    path.write_text(
        'batch_size = 64\n[model]\ninit = "some/model"\n[step]\nunmasked = 0.0\n'
        'keep_patches = 0.25\n[optimizer]\nname = "lion"\n'
    )

    def note(workload: StepWorkload, devices: Any, batch: int) -> Compiled | None:
        seen.append(workload)
        return original(workload, devices, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planning, "compile_step", note)
        common = ("--topology", "v3-8", "--config", str(path), "--set", "step.chunk=4", "--json")
        result = run(*common, "--precision", "bfloat16", "--set", "teacher.model=bundled")
        assert result.exit_code == 0, result.stderr
        assert "the plan leaves out the teacher's part" in result.stderr
        assert run(*common, "--shape", "tiny", "--global-batch", "12").exit_code == 1
        assert run("--topology", "v3-8", "--set", "step.lernrate=4").exit_code == 2
    config = seen[0].config
    assert (config.optimizer.name, config.step.chunk, config.batch_size) == ("lion", 4, 64)
    assert (seen[0].keep_patches, seen[0].model) == (0.25, "some/model")
    plan = json.loads(result.stdout)
    assert (plan["precision"], plan["global_batch"], plan["keep_patches"]) == ("bfloat16", 64, 0.25)
    assert plan["largest_global_batch"] % (8 * 4) == 0


@pytest.mark.slow
def test_step_flops_exclude_recomputation() -> None:
    def needed(**settings: Any) -> float:
        work = StepWorkload(TrainConfig(ModelConfig(shape="tiny"), step=StepConfig(**settings)))
        return step_flops(work.recipe(jax.devices()[:1], 32))

    whole = needed()
    assert needed(chunk=8) == needed(remat="blocks") == whole
    work = StepWorkload(TrainConfig(ModelConfig(shape="tiny")))
    compiled_step = compile_for_tpu.compile_step(work, jax.devices()[:1], 32)
    assert compiled_step is not None
    assert 0.8 * whole < compiled_step.flops < 1.2 * whole


@pytest.mark.slow
def test_compiled_flops_count_every_iteration() -> None:
    """XLA counts a loop's body once; a plan counts all parts of a batch."""

    def flops(**settings: Any) -> float:
        work = StepWorkload(TrainConfig(ModelConfig(shape="tiny"), step=StepConfig(**settings)))
        compiled_step = compile_for_tpu.compile_step(work, jax.devices()[:1], 32)
        assert compiled_step is not None
        return compiled_step.flops

    whole, parts = flops(), flops(chunk=8)
    assert 1.2 * whole < parts < 1.6 * whole  # two forward passes and one backward
