"""How much memory the machine has for this process, and how much of it is free."""

import os
from dataclasses import dataclass
from pathlib import Path

import torch

ROOT = Path("/")


@dataclass(frozen=True)
class MachineMemory:
    """In bytes."""

    total: int
    """What there is: of the machine or of the container, whichever is less; of the GPU."""
    free: int
    """What could be had now."""


def machine_memory(device: torch.device, *, root: Path = ROOT) -> MachineMemory:
    """Of the GPU on CUDA, else of the host.

    Args:
        root: where /proc and /sys are mounted.
    """
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return MachineMemory(total, free)
    return host_memory(root=root)


def host_memory(*, root: Path = ROOT) -> MachineMemory:
    """The machine's memory, within the limits of the control groups that hold this process."""
    found = _physical(root)
    for limit in _limits(root):
        found = MachineMemory(min(found.total, limit.total), min(found.free, limit.free))
    return found


def _physical(root: Path) -> MachineMemory:
    kilobytes = _table(root / "proc/meminfo")
    total = kilobytes.get("MemTotal:", 0) * 1024 or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return MachineMemory(total, kilobytes.get("MemAvailable:", total // 1024) * 1024)


def _limits(root: Path) -> list[MachineMemory]:
    """Of the group of this process and of each above it; none where memory is not limited (cgroup v2, then v1)."""
    memberships = _text(root / "proc/self/cgroup").splitlines()
    found = []
    for line in memberships:
        _, controllers, group = line.split(":", 2)
        unified = controllers == ""
        if not unified and "memory" not in controllers.split(","):
            continue
        mount = root / "sys/fs/cgroup" / ("" if unified else "memory")
        names = ("memory.max", "memory.current") if unified else ("memory.limit_in_bytes", "memory.usage_in_bytes")
        here = mount / group.lstrip("/")
        # Inside a container the group's path is that of the host; its own files then lie at the mount.
        folders = [here, *here.parents[: max(0, len(here.parts) - len(mount.parts))]]
        found += [limit for folder in folders if (limit := _limit(folder, *names)) is not None]
    return found


def _limit(folder: Path, limit_name: str, used_name: str) -> MachineMemory | None:
    limit = _text(folder / limit_name).strip()
    if not limit.isdigit():
        return None
    # Cached files are given up when memory is asked for.
    cached = _table(folder / "memory.stat").get("inactive_file", 0)
    used = int(_text(folder / used_name).strip() or 0) - cached
    return MachineMemory(int(limit), max(0, int(limit) - used))


def _table(path: Path) -> dict[str, int]:
    rows = (line.split() for line in _text(path).splitlines())
    return {row[0]: int(row[1]) for row in rows if len(row) > 1 and row[1].isdigit()}


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
