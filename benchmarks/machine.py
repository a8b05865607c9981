"""What the figures were measured on, and how much memory a contender takes."""

import os
import platform
import shlex
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
    # Not getrusage: its maximum begins with that of the process this one was started from.
    return next(int(line.split()[1]) * 1024 for line in _lines("/proc/self/status") if line.startswith("VmHWM"))


def _lines(path: str) -> list[str]:
    file = Path(path)
    return file.read_text().splitlines() if file.exists() else []
