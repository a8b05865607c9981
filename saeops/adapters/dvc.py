"""DVC by its command line: versions of what stages leave behind, tied to git by dvc.lock.

The command line is DVC's contract; its Python classes are not. `NoDataVersions` is the fake.
"""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from saeops.errors import DataVersionsFailed, ToolMissing, UsageError


class DvcCli:
    """DVC in one checkout, which takes one DVC command at a time.

    Args:
        root: the checkout; holds dvc.yaml and .dvc/.
        timeout_s: how long one command may take; pushing gigabytes takes its time.
    """

    def __init__(self, root: Path, *, timeout_s: float = 3600) -> None:
        self._root = root
        self._timeout_s = timeout_s

    def commit(self) -> None:
        """Record every finished stage in dvc.lock and the cache; unfinished ones are left alone.

        Raises:
            ToolMissing: dvc is not installed.
            DataVersionsFailed: DVC refuses; its own words are in the message.
        """
        finished = [stage for stage, outs in self._outputs().items() if all(out.exists() for out in outs)]
        if finished:
            self._run("commit", "--force", *finished)

    def push(self) -> None:
        """Copy what dvc.lock names to the default remote."""
        self._run("push")

    def is_clean(self) -> bool:
        """Whether dvc.lock agrees with the checkout, and the remote has all of it."""
        return not self._changes() and not self._changes("--cloud")

    def _changes(self, *options: str) -> Any:
        return json.loads(self._run("status", "--json", *options) or "{}")

    def _outputs(self) -> dict[str, list[Path]]:
        pipeline = self._root / "dvc.yaml"
        if not pipeline.exists():
            raise UsageError(f"no dvc.yaml in {self._root}", hint="run from the checkout, or pass --root")
        stages = yaml.safe_load(pipeline.read_text())["stages"]
        return {
            name: [self._root / (out if isinstance(out, str) else next(iter(out))) for out in stage["outs"]]
            for name, stage in stages.items()
        }

    def _run(self, *arguments: str) -> str:
        if importlib.util.find_spec("dvc") is None:
            raise ToolMissing("dvc is not installed", hint="pip install 'saeops[dvc]'")
        if not (self._root / ".dvc").is_dir():
            raise UsageError(
                f"{self._root} is no DVC checkout: it has no .dvc folder",
                hint="run from a clone of the repository, or run `git init && dvc init` there",
            )
        shown = " ".join(("dvc", *arguments))
        try:
            done = subprocess.run(
                [sys.executable, "-m", "dvc", *arguments],
                cwd=self._root,
                env={**os.environ, "DVC_NO_ANALYTICS": "1"},
                capture_output=True,
                text=True,
                timeout=self._timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise DataVersionsFailed(
                f"`{shown}` did not end within {self._timeout_s:.0f} s",
                hint="see whether its remote answers: `dvc remote list`; then run the same command again",
            ) from error
        if done.returncode != 0:
            raise _refusal(shown, done.stderr)
        return done.stdout


def _reason(stderr: str) -> str:
    errors = [line.removeprefix("ERROR: ") for line in stderr.splitlines() if line.startswith("ERROR: ")]
    return "; ".join(errors) or stderr.strip()[-500:] or "it said nothing"


def _refusal(shown: str, stderr: str) -> UsageError | DataVersionsFailed:
    """What went wrong, sorted by who can mend it: a person, or time."""
    message, text = f"`{shown}` failed: {_reason(stderr)}", stderr.lower()
    if "not a git repository" in text:
        return UsageError(message, hint="DVC ties data to git: run `git init` in this folder, or work in a clone")
    if "are missing from" in text:
        return UsageError(message, hint="DVC reads the file itself: write that key there (see `saeops params`)")
    if "no remote" in text or "config file error" in text:
        return UsageError(message, hint="add a remote: `dvc remote add --default local var/dvc-remote`")
    hint = "run that command yourself with --verbose to see more; nothing that stages made is lost"
    if "unable to acquire lock" in text or "is busy" in text:
        hint = "another dvc command is at work in this checkout: wait for it, then run the same command again"
    return DataVersionsFailed(message, hint=hint)


class NoDataVersions:
    """The fake: remembers what it was asked for, and keeps nothing."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def commit(self) -> None:
        self.asked.append("commit")

    def push(self) -> None:
        self.asked.append("push")

    def is_clean(self) -> bool:
        return self.asked[-2:] == ["commit", "push"]
