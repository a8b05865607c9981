"""The peers' own environment: made once, completed where a version is missing, entered by running again inside.

Only the standard library is imported here: this runs before anything is installed.
"""

import json
import os
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

CHECKOUT = Path(__file__).resolve().parent.parent
DEFAULT = CHECKOUT / ".cache" / "benchmarks" / "environment"
RESOLVED = CHECKOUT / "benchmarks" / "requirements.txt"
ALONE = CHECKOUT / "benchmarks" / "peers-alone.txt"
INSTALLED = """
import importlib.metadata as m, json
print(json.dumps({d.name.lower().replace("_", "-").replace(".", "-"): d.version for d in m.distributions()}))
"""


def inside(folder: Path) -> bool:
    """Whether this interpreter is the environment's."""
    return Path(sys.prefix).resolve() == folder.resolve()


def enter(folder: Path, module: str, arguments: Sequence[str]) -> NoReturn:
    """Run a module of this checkout again inside the environment, in place of this process."""
    python = make(folder)
    paths = [str(CHECKOUT), *filter(None, [os.environ.get("PYTHONPATH")])]
    quiet = {"HF_HUB_OFFLINE": "1", "WANDB_MODE": "disabled", "TOKENIZERS_PARALLELISM": "false"}
    os.chdir(CHECKOUT)
    os.execve(
        python,
        [str(python), "-m", module, *arguments],
        {**os.environ, **quiet, "PYTHONPATH": os.pathsep.join(paths)},
    )


def make(folder: Path) -> Path:
    """The environment's interpreter, after every pinned version is there."""
    python = folder / "bin" / "python"
    if not python.exists():
        print(f"making the peers' environment in {folder} (several minutes, once)", file=sys.stderr)
        venv.create(folder, with_pip=True)
    for file, flags in ((RESOLVED, []), (ALONE, ["--no-deps"])):
        missing = absent(pins(file.read_text()), installed(python))
        if missing:
            print(f"installing {len(missing)} packages of {file.name}", file=sys.stderr)
            subprocess.run([python, "-m", "pip", "install", "--quiet", *flags, *missing], check=True)
    return python


def installed(python: Path) -> dict[str, str]:
    """Version by normalised name."""
    answer = subprocess.run([python, "-c", INSTALLED], check=True, capture_output=True, text=True).stdout
    return dict(json.loads(answer))


def pins(text: str) -> dict[str, str]:
    """Version by normalised name, of a requirements file of `name==version` lines."""
    lines = (line.split("#")[0].strip() for line in text.splitlines())
    pairs = (line.split("==") for line in lines if line)
    return {name.lower().replace("_", "-").replace(".", "-"): version for name, version in pairs}


def absent(wanted: dict[str, str], found: dict[str, str]) -> list[str]:
    """Requirements that are not met; a local version such as 2.13.0+cpu meets 2.13.0."""
    return [
        f"{name}=={version}" for name, version in wanted.items() if found.get(name, "").split("+")[0] != version
    ]
