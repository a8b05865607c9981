"""What happens in the story, chapter by chapter: the commands, and what each of them shows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

NAME = "smollm2-135m-story/blocks.6.resid_post"
NEW_MODEL = "var/models/v2"
KIND = "scipy/"


@dataclass(frozen=True)
class Command:
    """One command line of a chapter."""

    words: tuple[str, ...]
    """Behind the interpreter, e.g. `-m saeops.cli status`."""
    keep: str | None = None
    """Under which name its JSON output is kept for the page."""

    @property
    def shown(self) -> str:
        """As a person would type it."""
        text = " ".join(f'"{word}"' if " " in word else word for word in self.words)
        return text.replace("-m saeops.cli", "saeops") if text.startswith("-m saeops.cli") else f"python {text}"


@dataclass(frozen=True)
class Chapter:
    """A step of the story."""

    key: str
    title: str
    commands: Sequence[Command]


def saeops(*words: str, keep: str | None = None) -> Command:
    return Command(("-m", "saeops.cli", *words, *(("--json",) if keep else ())), keep)


def flows(*words: str) -> Command:
    return Command(("-m", "flows", *words))


CHAPTERS = (
    Chapter(
        "build",
        "A dictionary of the first version becomes champion",
        (
            flows("build", "--profile", "story"),
            saeops("status", NAME, keep="champion_v1"),
        ),
    ),
    Chapter(
        "finetune",
        "The model changes",
        (
            saeops(
                "finetune-demo",
                "--to",
                NEW_MODEL,
                "--kind",
                KIND,
                keep="finetuned",
            ),
        ),
    ),
    Chapter(
        "audit",
        "An audit: does the champion still hold?",
        (saeops("audit", NAME, "--model", NEW_MODEL, keep="audit"),),
    ),
    Chapter(
        "retrain",
        "A retrain: from the champion and afresh, labels carried over, the same gates",
        (
            flows("retrain", "--model", NEW_MODEL, "--force"),
            saeops("status", NAME, keep="champion_v2"),
            saeops("explain", NAME, keep="verdict"),
        ),
    ),
    Chapter(
        "match",
        "What became of the latents",
        (saeops("match", f"{NAME}@previous", f"{NAME}@champion", keep="match"),),
    ),
    Chapter(
        "rollback",
        "Back to yesterday's, in one command",
        (
            saeops("rollback", NAME, "--reason", "the story ends where it began", keep="rollback"),
            saeops("history", NAME, "--verify", keep="history"),
            saeops("status", NAME, keep="champion_after"),
        ),
    ),
)
Tell = Callable[[str], None]
