"""Every kind of corpus gives its documents in a fixed order, or says what is wrong."""

import gzip
import itertools
import json
import sys
from pathlib import Path

import pandas as pd
import pytest
import zstandard

from saeops.adapters.corpora import open_corpus
from saeops.adapters.installed_docs import docs_identity, read_docs
from saeops.errors import CorpusMissing, ToolMissing
from saeops.params import CorpusParams
from saeops.ports import Document

ROWS = [{"text": f"text {n}", "url": f"u{n}"} for n in range(3)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


def read(source: str, path: Path | str | None, **more: str) -> list[Document]:
    params = CorpusParams.model_validate({"source": source, "path": None if path is None else str(path), **more})
    return list(open_corpus(params).documents())


def test_a_folder_gives_its_text_and_markdown_files_by_name(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "b.txt").write_text("second")
    (tmp_path / "a.md").write_text("first")
    (tmp_path / "sub" / "c.txt").write_bytes(b"third \xff")
    (tmp_path / "ignored.py").write_text("code")
    assert read("folder", tmp_path) == [
        Document("first", "a.md"),
        Document("second", "b.txt"),
        Document("third \ufffd", "sub/c.txt"),
    ]


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("rows.jsonl", LINES),
        ("rows.jsonl.gz", gzip.compress(LINES, mtime=0)),
        ("rows.jsonl.zst", zstandard.compress(LINES)),
    ],
)
def test_jsonl_is_read_plain_and_compressed(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    expected = [Document(f"text {n}", f"{name}:{n + 1}") for n in range(3)]
    assert read("jsonl", tmp_path / name) == expected
    assert read("jsonl", tmp_path) == expected


def test_parquet_is_read_row_by_row(tmp_path: Path) -> None:
    pd.DataFrame(ROWS).to_parquet(tmp_path / "rows.parquet")
    assert read("parquet", tmp_path / "rows.parquet")[2] == Document("text 2", "rows.parquet:2")
    assert read("parquet", tmp_path, text_field="url")[0].text == "u0"


def test_a_corpus_is_what_its_bytes_are_not_where_it_lies(tmp_path: Path) -> None:
    for name, text in (("one", "same"), ("two", "same"), ("three", "other")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.txt").write_text(text)
    one, two, three = (
        open_corpus(CorpusParams(source="folder", path=str(tmp_path / name))).identity
        for name in ("one", "two", "three")
    )
    assert one == two != three


@pytest.mark.parametrize("source", ["folder", "jsonl", "parquet"])
def test_a_path_that_is_missing_or_holds_nothing_is_named(tmp_path: Path, source: str) -> None:
    with pytest.raises(CorpusMissing, match="nowhere does not exist"):
        read(source, tmp_path / "nowhere")
    with pytest.raises(CorpusMissing, match=f"{tmp_path} holds no"):
        read(source, tmp_path)
    with pytest.raises(CorpusMissing, match=r"corpus\.path, which is not set"):
        read(source, None)


def test_a_file_where_a_folder_belongs_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(CorpusMissing, match="is not a folder"):
        read("folder", tmp_path / "a.txt")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{not json", r"rows\.jsonl:2 is not JSON"),
        ('{"body": "x"}', r"rows\.jsonl:2 has no text under 'text', only: body"),
        ('{"text": 3}', r"rows\.jsonl:2 has no text"),
        ("[1]", r"rows\.jsonl:2 has no text under 'text', only: list"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, said: str) -> None:
    (tmp_path / "rows.jsonl").write_text(f'{{"text": "fine"}}\n{line}\n')
    with pytest.raises(CorpusMissing, match=said):
        read("jsonl", tmp_path / "rows.jsonl")


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("rows.jsonl.gz", gzip.compress(LINES, mtime=0)[:-12]),
        ("rows.jsonl.gz", b"not gzip"),
        ("rows.jsonl.zst", b"not zstandard"),
    ],
)
def test_a_damaged_archive_is_named(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(CorpusMissing, match="cannot be decompressed"):
        read("jsonl", tmp_path / name)


def test_a_parquet_file_that_is_none_or_lacks_the_column_is_named(tmp_path: Path) -> None:
    pd.DataFrame(ROWS).to_parquet(tmp_path / "rows.parquet")
    with pytest.raises(CorpusMissing, match="no column 'body', only: text, url"):
        read("parquet", tmp_path / "rows.parquet", text_field="body")
    (tmp_path / "rows.parquet").write_bytes(b"not parquet")
    with pytest.raises(CorpusMissing, match="is not a parquet file"):
        read("parquet", tmp_path / "rows.parquet")


def test_a_hub_data_set_that_cannot_be_reached_is_named() -> None:
    pytest.importorskip("datasets")
    with pytest.raises(CorpusMissing, match="nobody/nothing"):
        read("hub", "nobody/nothing@main")


def test_a_hub_data_set_without_the_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ToolMissing, match="datasets") as caught:
        read("hub", "nobody/nothing")
    assert "saeops[hub]" in caught.value.hint


# ── installed documentation ─────────────────────────────────────────────────


def install(folder: Path, name: str, version: str, files: dict[str, str]) -> None:
    """A package as pip leaves it."""
    info = f"{name}-{version}.dist-info"
    files = files | {f"{info}/METADATA": f"Name: {name}\n\n{name} is a package.\n"}
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    (folder / info / "RECORD").write_text("".join(f"{path},,\n" for path in files) + "../../bin/tool.py,,\n")


MODULE = '''"""About the module."""
raise RuntimeError("nobody may import this")
class Thing:
    """About things."""
    def work(self):
        """About work:

            indented

        Back at the margin.
        """
def silent(): pass
'''


def packaged(tmp_path: Path) -> list[Document]:
    install(tmp_path, "alpha", "1.0", {"alpha/thing.py": MODULE})
    install(tmp_path, "delta", "1.0", {"delta/broken.py": "def (:"})
    install(tmp_path, "beta", "2.0", {f"beta/m{n}.py": f'"""Module {n}."""' for n in range(5)})
    install(tmp_path, "saeops", "0.1", {"saeops/x.py": '"""Ourselves."""'})
    (tmp_path / "stray.py").write_text('"""Belongs to no package."""')
    return [d for d in read_docs(tmp_path) if not d.source.startswith("pydoc_data/")]


def test_docstrings_and_descriptions_of_packages_are_read_without_importing(tmp_path: Path) -> None:
    found = {document.source: document.text for document in packaged(tmp_path)}
    assert found["alpha/thing.py"] == "About the module."
    assert found["alpha/thing.py::Thing"] == "About things."
    assert found["alpha/thing.py::Thing.work"] == "About work:\n\n    indented\n\nBack at the margin."
    assert found["alpha-1.0.dist-info/METADATA"] == "alpha is a package."
    assert not any(part in source for source in found for part in ("saeops", "stray", "broken", "bin"))


def test_packages_take_turns(tmp_path: Path) -> None:
    pages = list(dict.fromkeys(document.source.partition("::")[0] for document in packaged(tmp_path)))
    packages = [page[0] for page in pages if page[0] in "ab"]
    assert set(packages[:2]) == set(packages[2:4]) == {"a", "b"}
    assert packages[4:] == ["b"] * 4


def test_another_version_of_a_package_is_another_corpus(tmp_path: Path) -> None:
    packaged(tmp_path)
    before = docs_identity(tmp_path)
    assert docs_identity(tmp_path) == before
    install(tmp_path, "gamma", "3.0", {})
    assert docs_identity(tmp_path) != before


def test_the_documentation_of_this_environment_is_long_mixed_and_not_ours() -> None:
    documents = list(itertools.islice(open_corpus(CorpusParams()).documents(), 600))
    packages = {document.source.partition("/")[0] for document in documents}
    assert sum(len(document.text) for document in documents) > 100_000
    assert len(packages) > 50
    assert not any(document.source.startswith("saeops") for document in documents)
    again = itertools.islice(open_corpus(CorpusParams()).documents(), 50)
    assert list(again) == documents[:50]
