"""Telling the story: commands run one after the other, what they say is kept, and a rerun goes on."""

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from examples.story.chapters import CHAPTERS, Chapter, Command, Tell
from examples.story.checkout import REPOSITORY
from saeops.files import write_atomic

LAST_LINES = 40
"""Of a command's output that the page shows."""


@dataclass
class Told:
    """A chapter that was told."""

    key: str
    seconds: float = 0.0
    outputs: list[str] = field(default_factory=list)


@dataclass
class Story:
    """What was told so far, in a file that a rerun goes on from."""

    file: Path
    chapters: list[Told] = field(default_factory=list)
    kept: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def open(cls, file: Path) -> "Story":
        if not file.exists():
            return cls(file)
        data = json.loads(file.read_bytes())
        return cls(file, [Told(**each) for each in data["chapters"]], data["kept"])

    def save(self) -> None:
        data = {"chapters": [asdict(each) for each in self.chapters], "kept": self.kept}
        write_atomic(self.file, json.dumps(data, indent=1).encode())

    @property
    def seconds(self) -> float:
        return sum(each.seconds for each in self.chapters)


def tell(story: Story, checkout: Path, say: Tell) -> None:
    """Every chapter that was not told yet.

    Raises:
        subprocess.CalledProcessError: a command failed; it has said why on the terminal.
    """
    told = {each.key for each in story.chapters}
    for chapter in CHAPTERS:
        if chapter.key in told:
            continue
        say(f"\n── {chapter.title} " + "─" * max(0, 76 - len(chapter.title)))
        story.chapters.append(_tell(chapter, story, checkout, say))
        story.save()


def _tell(chapter: Chapter, story: Story, checkout: Path, say: Tell) -> Told:
    begun, told = time.monotonic(), Told(chapter.key)
    for command in chapter.commands:
        say(f"$ {command.shown}")
        output = _run(command, checkout)
        if command.keep is not None:
            story.kept[command.keep] = json.loads(output)
        else:
            say(output)
        told.outputs.append("\n".join(output.splitlines()[-LAST_LINES:]))
    told.seconds = time.monotonic() - begun
    say(f"({told.seconds / 60:.1f} minutes)")
    return told


def _run(command: Command, checkout: Path) -> str:
    environment = {
        **os.environ,
        "SAEOPS_ROOT": str(checkout),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    words = [sys.executable, *command.words]
    if "flows" in command.words:
        words += ["--root", str(checkout)]
    # Progress goes to the terminal as it comes; what a command answers is kept.
    done = subprocess.run(words, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.stdout.write(done.stdout)
        raise subprocess.CalledProcessError(done.returncode, command.shown)
    return done.stdout
