"""The machine that a benchmark ran on: hardware, versions, CPU contention, memory usage."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from rsicd_embed.parallel import cpu_count
from rsicd_embed.reports.record_types import GitState, MachineInfo

PACKAGES = (
    *("rsicd-embed", "numpy", "jax", "jaxlib", "flax", "pillow", "pyarrow", "lancedb", "pylance"),
    *("nmslib", "nmslib-metabrainz", "torch", "torchvision", "transformers", "onnx", "onnxscript"),
    *("onnxruntime", "openvino", "open-clip-torch", "scikit-learn"),
    *("hnswlib", "faiss-cpu", "usearch", "h5py"),
)
# Prefixes of environment variables that affect the speed of these libraries.
_ENVIRONMENT = (
    *("OMP_", "KMP_", "GOMP_", "MKL_", "OPENBLAS_", "ONEDNN_", "DNNL_", "XLA_", "JAX_", "ATEN_"),
    *("CUDA_VISIBLE_DEVICES", "NVIDIA_TF32_OVERRIDE", "MALLOC_", "LD_PRELOAD"),
)
# CPU features that bound the speed of matrix products.
_ISA = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "asimd", "bf16", "sve")


def describe(accelerators: Sequence[str] = ()) -> MachineInfo:
    """The machine, package versions and git state, without host names or paths.

    Example:
        >>> sorted(describe())[:5]
        ['accelerators', 'cores', 'cpu', 'environment', 'git']
    """
    cpu, isa = _cpu()
    return {
        "cpu": cpu,
        "isa": isa,
        "cores": cpu_count(),
        "memory_bytes": _memory_bytes(),
        "load_1min": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "accelerators": list(accelerators),
        "os": f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}",
        "python": platform.python_version(),
        "packages": versions(PACKAGES),
        "environment": {
            name: value for name, value in sorted(os.environ.items()) if _matters(name, value)
        },
        "git": git_state(Path(__file__)),
    }


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Versions of the packages that are installed."""
    installed = {}
    for name in packages:
        with suppress(PackageNotFoundError):
            installed[name] = version(name)
    return installed


def git_state(file: Path) -> GitState | None:
    """Commit of the checkout that tracks `file`, and whether tracked files differ from it.

    None if the file is not tracked (an installed package) or git is missing.
    """
    if _git(file.parent, "ls-files", "--error-unmatch", file.name) is None:
        return None
    commit = _git(file.parent, "rev-parse", "HEAD")
    changed = _git(file.parent, "status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "dirty": bool(changed)} if commit else None


def nvidia_gpus() -> list[str]:
    """Names of NVIDIA GPUs as reported by their driver; empty without one."""
    if shutil.which("nvidia-smi") is None:
        return []
    names = _output("nvidia-smi", "--query-gpu=name", "--format=csv,noheader") or ""
    return [line.strip() for line in names.splitlines() if line.strip()]


@dataclass(frozen=True)
class CpuTimes:
    """Cumulative CPU times, in seconds, from which `cpu_contention` is computed.

    Attributes:
        total_s: all CPUs together.
        busy_s: time that was not idle, for any process or another virtual machine.
        own_s: time used by this process and its finished children.
    """

    total_s: float
    busy_s: float
    own_s: float

    @classmethod
    def now(cls) -> CpuTimes | None:
        """The current times; None if psutil is not installed or cannot read them."""
        try:
            import psutil

            times = psutil.cpu_times()._asdict()
        except (ImportError, OSError, RuntimeError):
            return None
        # Linux includes guest times in user and nice as well.
        total = sum(times.values()) - times.get("guest", 0.0) - times.get("guest_nice", 0.0)
        idle = times["idle"] + times.get("iowait", 0.0)
        return cls(total, total - idle, sum(os.times()[:4]))


def cpu_contention(start: CpuTimes | None) -> float | None:
    """Fraction of all CPU time since `start` that other processes used, from 0 to 1.

    None if CPU times cannot be read or too little time has passed.
    """
    end = CpuTimes.now()
    if start is None or end is None or end.total_s <= start.total_s:
        return None
    others_s = (end.busy_s - start.busy_s) - (end.own_s - start.own_s)
    return round(min(1.0, max(0.0, others_s / (end.total_s - start.total_s))), 4)


def memory_usage() -> int:
    """Resident memory of this process in bytes; the peak if psutil is not installed."""
    try:
        import psutil
    except ImportError:
        return peak_memory_usage()
    return int(psutil.Process().memory_info().rss)


def peak_memory_usage() -> int:
    """Peak resident memory of this process in bytes since its start or `reset_peak_memory`."""
    import resource

    with suppress(OSError):  # on Linux, ru_maxrss includes the process that started this one
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def reset_peak_memory() -> None:
    """Resets the peak to the current usage, on Linux."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _matters(name: str, value: str) -> bool:
    """Whether an environment variable affects speed; paths are left out."""
    return name.startswith(_ENVIRONMENT) and os.sep not in value


def _git(folder: Path, *arguments: str) -> str | None:
    return _output("git", "-C", str(folder), *arguments)


def _output(*command: str) -> str | None:
    """Output of a command; None if it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _cpu() -> tuple[str, list[str]]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    info: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        info.setdefault(key.strip().lower(), value.strip())
    flags = (info.get("flags") or info.get("features") or "").split()
    name = info.get("model name") or platform.processor() or platform.machine()
    return name, [feature for feature in _ISA if feature in flags]


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None
