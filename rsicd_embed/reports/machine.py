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
from typing import Any

from rsicd_embed.parallel import cpu_count

PACKAGES = (
    *("rsicd-embed", "numpy", "jax", "jaxlib", "flax", "pillow", "pyarrow", "lancedb", "pylance"),
    *("nmslib", "nmslib-metabrainz", "torch", "torchvision", "transformers", "onnx", "onnxscript"),
    *("onnxruntime", "openvino", "open-clip-torch", "scikit-learn"),
    *("hnswlib", "faiss-cpu", "usearch", "h5py"),
)
# Prefixes of environment variables that change how fast the libraries above are.
_ENVIRONMENT = (
    *("OMP_", "KMP_", "GOMP_", "MKL_", "OPENBLAS_", "ONEDNN_", "DNNL_", "XLA_", "JAX_", "ATEN_"),
    *("CUDA_VISIBLE_DEVICES", "NVIDIA_TF32_OVERRIDE", "MALLOC_", "LD_PRELOAD"),
)
# What decides how fast a matrix product can be.
_ISA = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "asimd", "bf16", "sve")


def describe(accelerators: Sequence[str] = ()) -> dict[str, Any]:
    """The machine, the versions and the state of the source, as JSON; no names of hosts or folders.

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
    """The versions of those that are installed."""
    found = {}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def git_state(file: Path) -> dict[str, Any] | None:
    """Commit of the checkout that tracks `file`, and whether tracked files differ from it.

    None where the file is not tracked (an installed package) or there is no git.
    """
    if _git(file.parent, "ls-files", "--error-unmatch", file.name) is None:
        return None
    commit = _git(file.parent, "rev-parse", "HEAD")
    changed = _git(file.parent, "status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "dirty": bool(changed)} if commit else None


def nvidia_gpus() -> list[str]:
    """Names of NVIDIA's GPUs, as their driver tells them; none without it."""
    if shutil.which("nvidia-smi") is None:
        return []
    told = _output("nvidia-smi", "--query-gpu=name", "--format=csv,noheader") or ""
    return [line.strip() for line in told.splitlines() if line.strip()]


@dataclass(frozen=True)
class CpuTimes:
    """CPU time up to a moment, from which `cpu_contention` is measured.

    Attributes:
        total_s: of all CPUs together.
        busy_s: of that, not idle: work of any process, or of another virtual machine.
        own_s: of that, this process and those children that have ended.
    """

    total_s: float
    busy_s: float
    own_s: float

    @classmethod
    def now(cls) -> CpuTimes | None:
        """None where psutil is not installed or cannot read them."""
        try:
            import psutil

            times = psutil.cpu_times()._asdict()
        except (ImportError, OSError, RuntimeError):
            return None
        # Linux counts the time of guests in user and nice too.
        total = sum(times.values()) - times.get("guest", 0.0) - times.get("guest_nice", 0.0)
        idle = times["idle"] + times.get("iowait", 0.0)
        return cls(total, total - idle, sum(os.times()[:4]))


def cpu_contention(start: CpuTimes | None) -> float | None:
    """Fraction of all CPU time since `start` that other processes used, from 0 to 1.

    None where CPU times cannot be read, or hardly any time has passed.
    """
    end = CpuTimes.now()
    if start is None or end is None or end.total_s <= start.total_s:
        return None
    others_s = (end.busy_s - start.busy_s) - (end.own_s - start.own_s)
    return round(min(1.0, max(0.0, others_s / (end.total_s - start.total_s))), 4)


def memory_usage() -> int:
    """Resident memory of this process in bytes; the peak where psutil is not installed."""
    try:
        import psutil
    except ImportError:
        return peak_memory_usage()
    return int(psutil.Process().memory_info().rss)


def peak_memory_usage() -> int:
    """Peak resident memory of this process in bytes, since it began or `reset_peak_memory`."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def reset_peak_memory() -> None:
    """Lets the peak start from the present usage, on Linux."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _matters(name: str, value: str) -> bool:
    """Whether a variable bears on speed; folders (of caches, say) are nobody's business."""
    return name.startswith(_ENVIRONMENT) and os.sep not in value


def _git(folder: Path, *arguments: str) -> str | None:
    return _output("git", "-C", str(folder), *arguments)


def _output(*command: str) -> str | None:
    """What a command prints; None where it fails."""
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
    found: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        found.setdefault(key.strip().lower(), value.strip())
    flags = (found.get("flags") or found.get("features") or "").split()
    name = found.get("model name") or platform.processor() or platform.machine()
    return name, [one for one in _ISA if one in flags]


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None
