"""Runs the commands of docs/runbooks/rollback.md, so that what it shows is what they say.

A ```console block holds `$ saeops …` lines, each with its output. `<!-- world: … -->` above it says what
the registry is like from there on. Digests, times and sizes differ from machine to machine and are not compared.

python -m tests.runbook      writes the output of every command into the page again
"""

import contextlib
import io
import os
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

from saeops.adapters.projection import MemoryProjection
from saeops.adapters.stores import LocalStore
from saeops.promotion import keys
from saeops.promotion.protocol import intent
from saeops.services import Services
from saeops.settings import Settings
from saeops.stages import promote
from saeops.stages.records import append, read_state
from saeops.stages.walk import Registry
from tests.bundles import NAME, author, tiny_bundle, verdict_on

PAGE = Path(__file__).parents[1] / "docs" / "runbooks" / "rollback.md"
REASONS = {"a": "first of its kind", "b": "better label on 361", "c": ""}
_BLOCK = re.compile(r"(?:<!-- world: (?P<world>[^>]+) -->\n\n?)?```console\n(?P<body>.*?)```\n", re.DOTALL)


def three_versions(root: Path, bundles: dict[str, Path]) -> LocalStore:
    """a passed, b was forced, c passed and is champion; the readable copy knows."""
    store = LocalStore(root / "var" / "registry")
    house = Registry(store, Services(Settings.from_environment(root)).projection, patience_s=0)
    for minutes, (letter, path) in enumerate(bundles.items()):
        from saeops.dictionary.bundle import open_bundle

        outcome = "fail" if letter == "b" else "pass"
        verdict = verdict_on(open_bundle(path), read_state(store, NAME).champion, outcome)
        who = author(f"op-{letter}", minutes=minutes)
        promote.run(
            path, verdict, registry=house, author=who, force=letter == "b", reason=REASONS[letter], git_commit=None
        )
    return store


def damaged_target(root: Path, bundles: dict[str, Path]) -> None:
    store = three_versions(root, bundles)
    previous = read_state(store, NAME).previous
    assert previous is not None
    path = store.root / keys.bundle_key(previous, "labels/labels.parquet")
    path.write_bytes(path.read_bytes()[:-1] + b"?")


def edited_entry(root: Path, bundles: dict[str, Path]) -> None:
    path = three_versions(root, bundles).root / keys.entry_key(NAME, 2)
    path.write_bytes(path.read_bytes().replace(b"better", b"worse "))


def left_open(root: Path, bundles: dict[str, Path]) -> None:
    store = three_versions(root, bundles)
    state = read_state(store, NAME)
    target = state.resolve("1")
    left = author("op-x", who="bob", minutes=9)
    append(store, intent(state, left, action="rollback", to_digest=target, reason="cut off"))


WORLDS: dict[str, Callable[[Path, dict[str, Path]], object]] = {
    "three versions": three_versions,
    "a damaged target": damaged_target,
    "an edited entry": edited_entry,
    "an operation left open": left_open,
}


def replay(page: str, work: Path) -> str:
    """The page with every command's output as it is now."""
    bundles = {letter: tiny_bundle(work / letter, seed).path for seed, letter in enumerate("abc")}
    root = work / "checkout"

    def again(block: re.Match[str]) -> str:
        if block["world"]:
            shutil.rmtree(root, ignore_errors=True)
            root.mkdir()
            WORLDS[block["world"]](root, bundles)
        commands = [line for line in block["body"].splitlines() if line.startswith("$ ")]
        said = [f"{command}\n{said_by(command.removeprefix('$ '), root)}" for command in commands]
        head = block[0].partition("```console\n")[0]
        return f"{head}```console\n" + "\n".join(said) + "```\n"

    # MLflow takes half a minute for what the page is not about: the fake, which the same contract holds.
    with in_checkout(root), mock.patch.object(Services, "projection", MemoryProjection()):
        return _BLOCK.sub(again, page)


def said_by(command: str, root: Path) -> str:
    """What a verb prints, both streams, and the exit code where it is not 0."""
    from saeops.cli import main

    program, *arguments = shlex.split(command.replace("$NAME", NAME))
    assert program == "saeops"
    out = io.StringIO()
    argv = ["saeops", *arguments, "--root", str(root)]
    code: object = None
    with mock.patch.object(sys, "argv", argv), contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            main()
        except SystemExit as end:
            code = end.code
    text = "".join(f"{line.rstrip()}\n" for line in out.getvalue().replace(str(root), "").splitlines())
    return text if code in (0, None) else f"{text}exit code {code}\n"


@contextlib.contextmanager
def in_checkout(root: Path) -> Iterator[None]:
    chosen = {
        "SAEOPS_TRACKING": "none",
        "SAEOPS_USER": "ada",
        "SAEOPS_CACHE": str(root / "cache"),
        "COLUMNS": "200",
    }
    kept = {key: value for key, value in os.environ.items() if not key.startswith("SAEOPS_")}
    with mock.patch.dict(os.environ, kept | chosen, clear=True):
        yield


def comparable(page: str) -> str:
    """The page with digests numbered in their order, and without times, durations, sizes and column widths."""
    order: dict[str, str] = {}

    def number(match: re.Match[str]) -> str:
        return order.setdefault(match[0][:12], f"<digest {len(order) + 1}>")

    page = re.sub(r"\b(?:[0-9a-f]{64}|[0-9a-f]{12})\b", number, page)
    page = re.sub(r"\b\d+ (?:s|min|h|d)\b", "<size>", page)
    page = re.sub(r"\d{4}-\d\d-\d\d(T\d\d:\d\d:\d\d\+00:00)?", "<time>", page)
    return re.sub(r" {2,}", "  ", re.sub(r"\b\d{1,3}(,\d{3})+\b", "<size>", page))


def main() -> None:
    with tempfile.TemporaryDirectory() as work:
        PAGE.write_text(replay(PAGE.read_text(), Path(work)))


if __name__ == "__main__":
    main()
