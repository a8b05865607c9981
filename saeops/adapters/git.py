"""What git says of a checkout."""

import subprocess
from pathlib import Path


def head(root: Path) -> str | None:
    """The commit that is checked out, with `-dirty` behind it where tracked files differ; None without git."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        told = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return told.stdout.strip() or None
