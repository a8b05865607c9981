"""The story's own checkout: a clone, so that what it builds and promotes is nobody else's."""

import subprocess
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


def prepare(folder: Path) -> None:
    """Clone the repository into the folder, once."""
    if (folder / "params.yaml").is_file():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["git", "clone", "--quiet", str(REPOSITORY), str(folder)], check=True)
