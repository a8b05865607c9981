"""Compile the kernels with the system's C++ compiler, once a machine and version of the source."""

import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from saeops.digests import digest_bytes, digest_file

HERE = Path(__file__).parent
SOURCES = (HERE / "kernels.cpp", HERE / "search.cpp", HERE / "strongest.cpp")
HEADER = HERE / "rows.h"
COMPILERS = ("g++", "c++", "clang++")
# Sums may be reordered, which vector instructions need; NaN and infinity keep their meaning.
MATHS = ("-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros", "-fassociative-math")
COMPILE = ("-O3", "-march=native", "-fopenmp", "-fPIC", "-std=c++17", *MATHS)
TIMEOUT_S = 300


@dataclass(frozen=True)
class NotBuilt:
    """Why there are no compiled kernels here."""

    reason: str


def build(folder: Path) -> Path | NotBuilt:
    """The compiled library in `folder`, made now unless it is there."""
    compiler = next((found for name in COMPILERS if (found := shutil.which(name))), None)
    if compiler is None:
        return NotBuilt(f"no C++ compiler is installed ({', '.join(COMPILERS)})")
    path = folder / f"kernels-{_digest(compiler)[:16]}.so"
    if path.exists():
        return path
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as work:
            made = _compile(compiler, Path(work))
            # Whole or not at all, also where two processes build at once.
            made.replace(path)
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip().splitlines() or ["no message"])[-1]
        return NotBuilt(f"{compiler} failed: {last}")
    except (OSError, subprocess.TimeoutExpired) as error:
        return NotBuilt(f"{compiler} could not build in {folder}: {error}")
    return path


def _compile(compiler: str, work: Path) -> Path:
    """Compile and link in a folder.

    Linked without OpenMP's library: the one that torch has loaded serves both,
    so that two pools of threads never wait for the same cores.
    """
    objects = [work / f"{source.stem}.o" for source in SOURCES]
    linked = work / "kernels.so"
    compiling = [
        [compiler, *COMPILE, "-c", str(source), "-o", str(made)]
        for source, made in zip(SOURCES, objects, strict=True)
    ]
    for command in (*compiling, [compiler, "-shared", *map(str, objects), "-o", str(linked)]):
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=TIMEOUT_S)
    return linked


def _digest(compiler: str) -> str:
    """What the machine code depends on: source, flags, compiler and processor."""
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False).stdout
    flags = next((line for line in _cpuinfo().splitlines() if line.startswith("flags")), "")
    return digest_bytes("\n".join([*map(digest_file, (*SOURCES, HEADER)), *COMPILE, version, flags]).encode())


def _cpuinfo() -> str:
    try:
        return Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""
