"""DVC by its command line: versions of what stages leave behind, tied to git by dvc.lock.

The command line is DVC's contract; its Python classes are not. `NoDataVersions` is the fake.
"""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from configparser import RawConfigParser
from pathlib import Path
from typing import Any

import yaml

from saeops.errors import DataDamaged, DataMissing, DataVersionsFailed, SaeopsError, ToolMissing, UsageError


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

    def restore(self, folder: Path) -> None:
        """Bring what the dvc.lock of another checkout names into it, from this one's default remote.

        DVC compares each file that it fetches with dvc.lock (`verify`). It does not
        compare the listings that say which files a folder has: whoever needs a
        folder whole compares its seal as well.

        Args:
            folder: a worktree with a dvc.lock; its remote becomes that of this checkout.

        Raises:
            UsageError: this checkout has no remote.
            DataMissing: the remote lacks a file; names it.
            DataDamaged: the remote holds other bytes; names the file.
            DataVersionsFailed: the remote does not answer, or refuses.
        """
        there = DvcCli(folder, timeout_s=self._timeout_s)
        remote, address = self._lend_remote(folder)
        # Forced: what a killed run left half done is replaced.
        pull = ("pull", "--force", "--remote", remote)
        done = there._call(*pull)
        if done.returncode != 0:
            refusal = _refusal(_shown(pull), done.stderr)
            raise _pull_refusal(refusal, done.stderr.lower(), address, there._absent())

    def _lend_remote(self, folder: Path) -> tuple[str, str]:
        """Let another checkout read this one's default remote, verifying; gives its name and address."""
        lines = (line.partition("=") for line in self._run("config", "--list").splitlines())
        config = {key: value for key, _, value in lines}
        remote = config.get("core.remote", "")
        address = config.get(f"remote.{remote}.url")
        if address is None:
            raise UsageError(f"DVC has no default remote in {self._root}", hint=ADD_REMOTE)
        lent = RawConfigParser(delimiters="=", comment_prefixes="#", strict=False)
        lent.read([self._root / ".dvc" / "config", self._root / ".dvc" / "config.local"])
        # DVC told the address of a folder in full; in its file it is relative to the checkout.
        lent.read_dict({f"'remote \"{remote}\"'": {"url": f'"{address}"', "verify": "true"}})
        written = folder / ".dvc" / "config.local"
        written.touch(mode=0o600)
        with written.open("w") as file:
            lent.write(file)
        return remote, address

    def _absent(self) -> list[str]:
        """What dvc.lock names and the cache does not hold: files, or folders whose listing is not there."""
        lock = yaml.safe_load((self._root / "dvc.lock").read_text())
        cache = Path(self._run("cache", "dir").strip()) / "files" / "md5"
        absent = []
        for out in (out for stage in lock["stages"].values() for out in stage.get("outs", [])):
            listing = cache / out["md5"][:2] / out["md5"][2:]
            if not listing.exists():
                absent.append(out["path"])
            elif out["md5"].endswith(".dir"):
                files = json.loads(listing.read_bytes())
                lacking = (f for f in files if not (cache / f["md5"][:2] / f["md5"][2:]).exists())
                absent += [f"{out['path']}/{file['relpath']}" for file in lacking]
        return absent

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
        done = self._call(*arguments)
        if done.returncode != 0:
            raise _refusal(_shown(arguments), done.stderr)
        return done.stdout

    def _call(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        if importlib.util.find_spec("dvc") is None:
            raise ToolMissing("dvc is not installed", hint="pip install 'saeops[dvc]'")
        if not (self._root / ".dvc").is_dir():
            raise UsageError(
                f"{self._root} is no DVC checkout: it has no .dvc folder",
                hint="run from a clone of the repository, or run `git init && dvc init` there",
            )
        try:
            return subprocess.run(
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
                f"`{_shown(arguments)}` did not end within {self._timeout_s:.0f} s",
                hint="see whether its remote answers: `dvc remote list`; then run the same command again",
            ) from error


ADD_REMOTE = "add a remote: `dvc remote add --default local var/dvc-remote`"
SILENT = ("failed to connect", "nosuchbucket", "forbidden", "accessdenied", "invalidaccesskeyid")
ABSENT = ("missing cache files", "no such file", "nosuchkey", "not found")
NAMED = 5
"""Files that an error names before it only counts."""


def _pull_refusal(refusal: SaeopsError, said: str, address: str, absent: list[str]) -> SaeopsError:
    """A failed pull, sorted into a remote that is away, one that lacks data, and one that holds other bytes."""
    if not absent or any(word in said for word in SILENT):
        return refusal
    named = ", ".join(absent[:NAMED]) + (f" and {len(absent) - NAMED} more" if len(absent) > NAMED else "")
    if any(word in said for word in ABSENT):
        return DataMissing(
            f"DVC's remote {address} does not have {named}",
            hint="run `dvc push` where the version was built; or name the right remote: `dvc remote default NAME`",
        )
    if "checkout failed" in said:
        return DataDamaged(
            f"DVC's remote {address} holds other bytes than dvc.lock names: {named}",
            hint="restore it from a backup, or remove it there and run `dvc push` where the version was built",
        )
    return refusal


def _shown(arguments: Sequence[str]) -> str:
    return " ".join(("dvc", *arguments))


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
        return UsageError(message, hint=ADD_REMOTE)
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

    def restore(self, folder: Path) -> None:
        self.asked.append(f"restore {folder.name}")
