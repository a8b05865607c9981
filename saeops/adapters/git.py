"""What git says of a checkout, by its command line; and worktrees of earlier commits."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

from saeops.errors import CommitMissing, UsageError

SHORT = 12


def head(root: Path) -> str | None:
    """The commit that is checked out, with `-dirty` behind it where tracked files differ; None without git."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        told = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return told.stdout.strip() or None


class GitCli:
    """git in one checkout.

    Args:
        root: the checkout, the top of its git repository.
    """

    def __init__(self, root: Path, *, timeout_s: float = 600) -> None:
        self._root = root
        self._timeout_s = timeout_s

    def commit(self) -> str:
        """The commit that is checked out, in full.

        Raises:
            UsageError: no git, no repository whose top this is, or no commit yet.
        """
        prefix = self._run("rev-parse", "--show-prefix")
        if prefix is None or prefix.strip():
            what = "in no git repository" if prefix is None else "not the top of its git repository"
            raise UsageError(f"{self._root} is {what}", hint="work in a clone, or run `git init` there and commit")
        found = self._run("rev-parse", "--verify", "--quiet", "HEAD^{commit}")
        if found is None:
            raise UsageError(f"{self._root} has no git commit yet", hint="commit params, code and profiles")
        return found.strip()

    def uncommitted(self, paths: Sequence[str]) -> list[str]:
        """Files under the paths that differ from the commit: changed, new (unless git ignores them), or gone.

        Raises:
            UsageError: this is no git repository.
        """
        options = ("--porcelain=v1", "-z", "--no-renames", "--untracked-files=all")
        listed = self._run("status", *options, "--", *paths)
        if listed is None:
            raise UsageError(f"git status fails in {self._root}", hint="run it there to see why")
        return sorted(line[3:] for line in listed.split("\0") if line)

    def place(self, folder: Path, commit: str) -> None:
        """Make an empty or absent folder a worktree with nothing in it yet; `fill` goes on.

        Raises:
            CommitMissing: the repository does not have the commit.
            UsageError: git refuses.
        """
        if self._run("cat-file", "-e", f"{commit}^{{commit}}") is None:
            raise CommitMissing(
                f"{self._root} does not have the commit {commit[:SHORT]}",
                hint="`git fetch --all`, or run this in the clone that it was promoted from",
            )
        # Forced twice: a killed one leaves its registration behind, locked.
        added = ("worktree", "add", "--force", "--force", "--no-checkout", "--detach", str(folder), commit)
        if self._run(*added) is None:
            raise UsageError(f"git makes no worktree at {folder}", hint=f"see why: `git worktree add {folder}`")

    def fill(self, folder: Path, commit: str) -> None:
        """Lay every file of the commit into a worktree, over whatever a killed run left there.

        Raises:
            UsageError: git refuses.
        """
        lock = self._run("rev-parse", "--path-format=absolute", "--git-path", "index.lock", at=folder)
        if lock is not None:
            # A killed git leaves it, and nobody else works in a folder that is being restored.
            Path(lock.strip()).unlink(missing_ok=True)
        if self._run("checkout", "--quiet", "--force", "--detach", commit, at=folder) is None:
            raise UsageError(
                f"git does not check {commit[:SHORT]} out in {folder}",
                hint=f"`git worktree remove --force {folder}`, then run this again",
            )

    def is_placed(self, folder: Path) -> bool:
        """Whether the folder is a worktree of this repository."""
        ours = self._run("rev-parse", "--path-format=absolute", "--git-common-dir")
        top = self._run("rev-parse", "--show-toplevel", at=folder)
        theirs = self._run("rev-parse", "--path-format=absolute", "--git-common-dir", at=folder)
        return top is not None and ours == theirs and Path(top.strip()) == folder.resolve()

    def _run(self, *arguments: str, at: Path | None = None) -> str | None:
        """What git says; None where it fails."""
        command = ["git", *arguments]
        try:
            done = subprocess.run(
                command,
                cwd=at or self._root,
                capture_output=True,
                text=True,
                timeout=self._timeout_s,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout if done.returncode == 0 else None
