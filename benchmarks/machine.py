"""What the figures were measured on, and how much memory a contender takes."""

import os
import platform
import resource
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch


def facts() -> dict[str, Any]:
    """Processor, threads, versions."""
    names = [line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    total = next((int(line.split()[1]) for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), 0)
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(total / 1e6, 1),
        "threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def command(program: str, arguments: Sequence[str]) -> str:
    """A command line for readers on other machines: of absolute paths the last two parts."""
    shown = ["/".join(Path(each).parts[-2:]) if Path(each).is_absolute() else each for each in arguments]
    return f"python {program} {shlex.join(shown)}"


def peak_bytes() -> int:
    """Largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def peak_of(module: str, *arguments: str) -> int | None:
    """Peak resident bytes that a module prints about itself as its last line; None where it failed."""
    done = subprocess.run([sys.executable, "-m", module, *arguments], capture_output=True, text=True, check=False)
    lines = done.stdout.strip().splitlines()
    return int(lines[-1]) if done.returncode == 0 and lines else None


def _lines(path: str) -> list[str]:
    file = Path(path)
    return file.read_text().splitlines() if file.exists() else []
