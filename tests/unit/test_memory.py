"""Memory is known before training starts: what is needed, what there is, and a refusal where they do not fit."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from saeops.errors import MemoryShort
from saeops.sae.variants import TopK
from saeops.training.machine import MachineMemory, host_memory, machine_memory
from saeops.training.memory import Memory, check_memory
from tests.planted import CPU, short_config

GB = 10**9
NEEDED = Memory(held=3 * GB, passing=7 * GB, codes=2 * GB, tokens=GB)


def test_what_cannot_fit_is_refused_with_both_sizes_and_what_to_lower() -> None:
    message = (
        r"13\.00 GB of memory on cpu, which has 12\.00 GB(.|\n)*expansion_factor \(10.00 GB\), train\.batch_size"
    )
    with pytest.raises(MemoryShort, match=message):
        check_memory(NEEDED, MachineMemory(12 * GB, 12 * GB), device=CPU)


def test_what_may_not_fit_now_is_a_warning() -> None:
    warning = check_memory(NEEDED, MachineMemory(16 * GB, 5 * GB), device=CPU)
    assert warning is not None
    assert "5.00 GB are free" in warning
    assert check_memory(NEEDED, MachineMemory(16 * GB, 13 * GB), device=CPU) is None


def test_on_cuda_the_buffer_does_not_count() -> None:
    machine = MachineMemory(12 * GB, 12 * GB)
    assert check_memory(NEEDED, machine, device=torch.device("cuda")) is None


def test_runs_that_share_a_pass_hold_their_weights_and_take_turns_with_the_rest() -> None:
    together = Memory.together([NEEDED, Memory(held=GB, passing=2 * GB, codes=5 * GB, tokens=GB)])
    assert together == Memory(held=4 * GB, passing=7 * GB, codes=5 * GB, tokens=GB)


def machine(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


MEMINFO = "MemTotal:       16000 kB\nMemFree:  1000 kB\nMemAvailable:    9000 kB\n"


def test_without_a_limit_the_machine_is_what_there_is(tmp_path: Path) -> None:
    root = machine(tmp_path, {"proc/meminfo": MEMINFO, "proc/self/cgroup": "0::/\n"})
    assert host_memory(root=root) == MachineMemory(16000 * 1024, 9000 * 1024)


@pytest.mark.parametrize("limited", ["sys/fs/cgroup/a", "sys/fs/cgroup/a/b", "sys/fs/cgroup"])
def test_the_limit_of_any_group_above_counts_and_cached_files_are_free(tmp_path: Path, limited: str) -> None:
    files = {
        "proc/meminfo": MEMINFO,
        "proc/self/cgroup": "0::/a/b\n",
        "sys/fs/cgroup/a/b/memory.max": "max\n",
        f"{limited}/memory.max": "4000000\n",
        f"{limited}/memory.current": "3000000\n",
        f"{limited}/memory.stat": "anon 1\ninactive_file 500000\n",
    }
    assert host_memory(root=machine(tmp_path, files)) == MachineMemory(4_000_000, 1_500_000)


def test_the_older_kind_of_group_counts_too(tmp_path: Path) -> None:
    files = {
        "proc/meminfo": MEMINFO,
        "proc/self/cgroup": "4:cpu,memory:/c\n0::/\n",
        "sys/fs/cgroup/memory/c/memory.limit_in_bytes": "4000000",
        "sys/fs/cgroup/memory/c/memory.usage_in_bytes": "1000000",
    }
    assert host_memory(root=machine(tmp_path, files)) == MachineMemory(4_000_000, 3_000_000)


def test_a_system_without_proc_still_says_how_much_there_is(tmp_path: Path) -> None:
    assert host_memory(root=tmp_path).total > 2**28


def test_this_machine_has_some() -> None:
    found = machine_memory(CPU)
    assert 0 < found.free <= found.total


PEAK = """
import json, resource, sys, tempfile, pathlib
import torch
torch.set_num_threads(1)
from saeops.sae.canonical import SaeMeta
from saeops.sae.folding import fold
from saeops.sae.variants import TopK
from saeops.training.checkpoint import CheckpointFolder
from saeops.training.loop import train
from saeops.training.memory import bytes_needed
from tests.planted import fresh, plant, short_config

def peak():
    # Not getrusage: its maximum begins with that of the process this one was started from.
    status = pathlib.Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))

def run(width, d_sae, batch):
    data = plant(n_features=64, d_model=width, tokens=4 * batch, active=4)
    config = short_config(tokens=3 * batch, batch_size=batch, buffer_tokens=len(data.x))
    variant = TopK(k=32, aux_coefficient=0)
    with tempfile.TemporaryDirectory() as name:
        state = fresh(variant, data, d_sae=d_sae)
        checkpoints = CheckpointFolder(pathlib.Path(name), 1)
        for _ in train(state, data.batches(batch), config=config, checkpoints=checkpoints):
            pass
    meta = SaeMeta(variant="topk", site="blocks.0.resid_post", d_model=width, d_sae=d_sae, k=32)
    with tempfile.TemporaryDirectory() as name:
        fold(state.sae.weights(), meta, input=state.reading, target=state.normalisation.target).save(
            pathlib.Path(name))
    return bytes_needed(config, variant, d_model=width, d_sae=d_sae)

run(16, 32, 64)
before = int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
needed = run(384, 12288, 1024)
print(json.dumps({"needed": needed, "taken": peak() - before}))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has other units elsewhere")
def test_the_estimate_lies_above_the_real_peak_and_within_twice_of_it() -> None:
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", PEAK], cwd=root, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["taken"] <= found["needed"] <= 2 * found["taken"], found


def test_memory_needed_is_for_the_batches_loaded_ahead_as_well() -> None:
    from saeops.training.memory import memory_needed

    small, large = (
        memory_needed(short_config(batch_size=size), TopK(k=3), d_model=64, d_sae=512).tokens for size in (64, 128)
    )
    assert large - small >= 64 * 64 * 4 * 9
