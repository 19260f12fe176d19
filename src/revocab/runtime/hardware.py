"""Facts about this machine and its software, for manifests and summaries."""

import functools
import math
import platform
import subprocess
import sys
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

MEMORY_FILES = (  # limit and use, of control groups version 2 and 1
    ("memory.max", "memory.current"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
)
OPTIONAL = ("liger-kernel", "triton", "bitsandbytes")  # named where they are installed
PACKAGES = ("torch", "transformers", "tokenizers", "pytorch-lightning", "peft", "hydra-core", "numpy", "scipy")


@functools.cache
def package_versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in ("revocab", *PACKAGES):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:  # run from a checkout that is not installed
            versions[name] = "unknown"
    for name in OPTIONAL:
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions


@functools.cache
def git_commit() -> str | None:
    """The commit of the checkout that this code runs from, with `+` where files differ from it; None outside git."""
    folder = Path(__file__).parent
    try:
        commit = _git(folder, "rev-parse", "--short=12", "HEAD")
        changed = _git(folder, "status", "--porcelain", "--untracked-files=no", ".")
    except (OSError, subprocess.SubprocessError):
        return None
    return commit + ("+" if changed else "")


def _git(folder: Path, *arguments: str) -> str:
    result = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=10, check=True)
    return result.stdout.strip()


def device_name(device: str) -> str:
    """Such as `NVIDIA H100 80GB HBM3` or `CPU x86_64, 2 cores`."""
    import torch

    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return f"CPU {platform.machine()}, {torch.get_num_threads()} threads"


def peak_memory_bytes(device: str) -> int:
    """Highest use so far: of the accelerator as torch allocated it, or resident memory of this process."""
    import torch

    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def free_memory_bytes(device: str) -> int:
    """Memory that this process could still get: of the accelerator, or of the machine within its control group."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.mem_get_info(device)[0]
    import psutil

    return int(min(psutil.virtual_memory().available, _free_in_group()))


def _free_in_group(folder: Path = Path("/sys/fs/cgroup")) -> float:
    """What the limit of the control group (version 2 or 1) leaves; infinite where there is none. Pages of files count
    as free, for the kernel gives them back."""
    for limit, used in MEMORY_FILES:
        try:
            most, now = (folder / limit).read_text().strip(), int((folder / used).read_text())
            lines = (folder / limit).with_name("memory.stat").read_text().splitlines()
        except (OSError, ValueError):
            continue
        files = sum(int(line.split()[1]) for line in lines if line.startswith(("inactive_file ", "active_file ")))
        return math.inf if most == "max" else max(0, int(most) - now + files)
    return math.inf
