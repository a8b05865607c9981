"""The documentation that ships with the installed packages, as a corpus: real English on every machine.

Docstrings are parsed, never imported. Packages take turns, a file each, so that the first thousand
documents already come from all of them; within a package a hash of the file's name orders files.
Reading stops as soon as the harvest has enough.
"""

import ast
import csv
import email
import hashlib
import inspect
import pydoc_data.topics
import sys
import sysconfig
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from saeops.digests import digest_json
from saeops.ports import Document

# Their versions follow the Python that made the environment, not the lock; saeops would read itself.
LEFT_OUT = frozenset({"pip", "setuptools", "wheel", "saeops"})


@dataclass(frozen=True)
class Page:
    """One thing to read documents from: a Python file, a package's description or a language topic."""

    source: str
    path: Path | None
    """None for a language topic, whose text is already in memory."""


def site_packages() -> Path:
    """Where pip installs packages."""
    return Path(sysconfig.get_paths()["purelib"])


def installed(folder: Path) -> dict[str, Path]:
    """`name==version` → its RECORD, for each package that pip installed into the folder."""
    found = {}
    for record in sorted(folder.glob("*.dist-info/RECORD")):
        name, _, version = record.parent.name.removesuffix(".dist-info").rpartition("-")
        if name.lower() not in LEFT_OUT:
            found[f"{name}=={version}"] = record
    return found


def docs_identity(folder: Path) -> dict[str, Any]:
    """Which documents there are: the names and versions of the packages and of Python."""
    python = ".".join(str(part) for part in sys.version_info[:3])
    packages = [*installed(folder), f"python=={python}"]
    return {"kind": "installed-docs", "packages": len(packages), "versions_sha256": digest_json(packages)}


def read_docs(folder: Path) -> Iterator[Document]:
    """All documents, packages taking turns."""
    topics = [Page(f"pydoc_data/topics::{name}", None) for name in pydoc_data.topics.topics]
    shelves = [topics, *(_pages(record, folder) for record in installed(folder).values())]
    turns = [
        (turn, _hash(page.source), page)
        for shelf in shelves
        for turn, page in enumerate(sorted(shelf, key=lambda page: _hash(page.source)))
    ]
    turns.sort(key=lambda entry: entry[:2])
    return chain.from_iterable(_documents(page) for _, _, page in turns)


def _hash(source: str) -> bytes:
    return hashlib.sha256(source.encode()).digest()


def _pages(record: Path, folder: Path) -> list[Page]:
    # Rows that point outside the folder (scripts in ../../bin) are no documentation.
    names = [row[0] for row in csv.reader(record.read_text().splitlines()) if row]
    metadata = f"{record.parent.name}/METADATA"
    return [
        Page(name, folder / name)
        for name in names
        if name == metadata or (name.endswith(".py") and not name.startswith(("..", "/")))
    ]


def _documents(page: Page) -> Iterator[Document]:
    if page.path is None:
        yield Document(pydoc_data.topics.topics[page.source.partition("::")[2]].strip(), page.source)
    elif page.path.name == "METADATA":
        yield from _description(page.path, page.source)
    else:
        yield from _docstrings(page.path, page.source)


def _description(path: Path, source: str) -> Iterator[Document]:
    try:
        message = email.message_from_string(path.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return
    text = message["Description"] or message.get_payload()
    if isinstance(text, str) and text.strip():
        yield Document(inspect.cleandoc(text), source)


def _docstrings(path: Path, source: str) -> Iterator[Document]:
    try:
        with warnings.catch_warnings():
            # Other people's invalid escapes are not ours to report.
            warnings.simplefilter("ignore")
            tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError):
        return
    text = ast.get_docstring(tree)
    if text:
        yield Document(text, source)
    yield from _inner_docstrings(tree, source, "")


def _inner_docstrings(node: ast.AST, source: str, outer: str) -> Iterator[Document]:
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        name = f"{outer}.{child.name}" if outer else child.name
        text = ast.get_docstring(child)
        if text:
            yield Document(text, f"{source}::{name}")
        yield from _inner_docstrings(child, source, name)
