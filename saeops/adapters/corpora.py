"""Corpora: installed documentation, folders, JSONL, parquet and hub data sets behind the port Corpus."""

import gzip
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from saeops.adapters.installed_docs import docs_identity, read_docs, site_packages
from saeops.digests import digest_file, digest_json
from saeops.errors import CorpusMissing, ToolMissing
from saeops.params import CorpusParams
from saeops.ports import Document

TEXT = (".txt", ".md")
JSONL = (".jsonl", ".jsonl.gz", ".jsonl.zst")
PARQUET = (".parquet",)


class TextCorpus:
    """Documents in a fixed order behind the port Corpus."""

    def __init__(self, identity: Mapping[str, Any], read: Callable[[], Iterator[Document]]) -> None:
        self.identity: Mapping[str, Any] = identity
        self._read = read

    def documents(self) -> Iterator[Document]:
        """Raw documents; dropping and splitting is the harvest's work."""
        return self._read()


def open_corpus(params: CorpusParams) -> TextCorpus:
    """The corpus that params name; its documents are read when they are asked for.

    Raises:
        CorpusMissing: nothing is there, or it holds no text.
        ToolMissing: it needs a package that is not installed.
    """
    match params.source:
        case "installed-docs":
            folder = site_packages()
            return TextCorpus(docs_identity(folder), lambda: read_docs(folder))
        case "folder":
            return _file_corpus(params, TEXT, _read_text)
        case "jsonl":
            return _file_corpus(params, JSONL, _read_jsonl)
        case "parquet":
            return _file_corpus(params, PARQUET, _read_parquet)
        case "hub":
            return _hub_corpus(params)


# ── files ───────────────────────────────────────────────────────────────────

Reader = Callable[[Path, str, str], Iterator[Document]]
"""Path, its name in sources, the text field → documents."""


def _file_corpus(params: CorpusParams, endings: Sequence[str], read: Reader) -> TextCorpus:
    root = Path(_path(params))
    files = _files(root, endings, params.source)
    base = root if root.is_dir() else root.parent
    names = {path.relative_to(base).as_posix(): path for path in files}
    listing = {name: digest_file(path) for name, path in names.items()}
    identity = {"kind": params.source, "files": len(files), "files_sha256": digest_json(listing)}

    def documents() -> Iterator[Document]:
        for name, path in names.items():
            yield from read(path, name, params.text_field)

    return TextCorpus(identity, documents)


def _path(params: CorpusParams) -> str:
    if not params.path:
        raise CorpusMissing(
            f"corpus.source {params.source} needs corpus.path, which is not set",
            hint="set corpus.path in params.yaml, or corpus.source to installed-docs",
        )
    return params.path


def _files(root: Path, endings: Sequence[str], source: str) -> list[Path]:
    wanted = ", ".join(f"*{ending}" for ending in endings)
    if not root.exists():
        raise CorpusMissing(f"corpus.path {root} does not exist", hint=f"it must hold {wanted}")
    if root.is_file() and source != "folder":
        return [root]
    if not root.is_dir():
        raise CorpusMissing(f"corpus.path {root} is not a folder", hint=f"name the folder that holds {wanted}")
    files = sorted(path for path in root.rglob("*") if path.is_file() and path.name.endswith(tuple(endings)))
    if not files:
        raise CorpusMissing(f"corpus.path {root} holds no {wanted}", hint="put the documents there")
    return files


def _read_text(path: Path, name: str, _field: str) -> Iterator[Document]:
    yield Document(path.read_text(encoding="utf-8", errors="replace"), name)


def _read_jsonl(path: Path, name: str, field: str) -> Iterator[Document]:
    with _opened(path) as stream:
        lines = io.TextIOWrapper(stream, encoding="utf-8", errors="replace")
        for number, line in enumerate(_decompressed(lines, path), start=1):
            if line.strip():
                yield Document(_text_of_line(line, field, f"{path}:{number}"), f"{name}:{number}")


def _opened(path: Path) -> IO[bytes]:
    if path.name.endswith(".gz"):
        return gzip.open(path, "rb")  # type: ignore[return-value]
    if path.name.endswith(".zst"):
        import zstandard

        return zstandard.ZstdDecompressor().stream_reader(path.open("rb"), closefd=True)
    return path.open("rb")


def _decompressed(lines: IO[str], path: Path) -> Iterator[str]:
    import zstandard

    try:
        yield from lines
    except (EOFError, gzip.BadGzipFile, zstandard.ZstdError) as error:
        raise CorpusMissing(f"{path} cannot be decompressed: {error}", hint="fetch the file again") from error


def _text_of_line(line: str, field: str, where: str) -> str:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise CorpusMissing(f"{where} is not JSON: {error}", hint="one JSON object a line") from error
    if not isinstance(row, dict) or not isinstance(row.get(field), str):
        keys = ", ".join(row) if isinstance(row, dict) else type(row).__name__
        raise CorpusMissing(f"{where} has no text under {field!r}, only: {keys}", hint="set corpus.text_field")
    return str(row[field])


def _read_parquet(path: Path, name: str, field: str) -> Iterator[Document]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except pa.ArrowInvalid as error:
        raise CorpusMissing(f"{path} is not a parquet file: {error}", hint="fetch the file again") from error
    with file:
        if field not in file.schema_arrow.names:
            columns = ", ".join(file.schema_arrow.names)
            raise CorpusMissing(f"{path} has no column {field!r}, only: {columns}", hint="set corpus.text_field")
        row = 0
        for batch in file.iter_batches(batch_size=256, columns=[field]):
            for text in batch.column(0).to_pylist():
                yield Document(str(text or ""), f"{name}:{row}")
                row += 1


# ── the hub ─────────────────────────────────────────────────────────────────


def _hub_corpus(params: CorpusParams) -> TextCorpus:
    try:
        import datasets
    except ImportError as error:
        raise ToolMissing("a hub corpus needs the package datasets", hint="pip install 'saeops[hub]'") from error
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    name, _, revision = _path(params).partition("@")
    try:
        # A branch moves; the commit it stands at now is what the activations are made from.
        commit = HfApi().dataset_info(name, revision=revision or None).sha
        rows = datasets.load_dataset(name, split=params.hub_split, revision=commit, streaming=True)
    except (HfHubHTTPError, HFValidationError, OfflineModeIsEnabled, OSError, ValueError) as error:
        raise CorpusMissing(
            f"hub data set {params.path!r} (split {params.hub_split!r}) is not to be had: {error}",
            hint="check corpus.path, corpus.hub_split and that the hub is reachable (HF_HUB_OFFLINE unset)",
        ) from error
    identity = {"kind": "hub", "id": name, "revision": commit, "split": params.hub_split}
    return TextCorpus(identity, lambda: _hub_rows(rows, name, params.text_field))


def _hub_rows(rows: Any, name: str, field: str) -> Iterator[Document]:
    for number, row in enumerate(rows):
        if not isinstance(row.get(field), str):
            raise CorpusMissing(
                f"{name} has no text under {field!r}, only: {', '.join(row)}", hint="set corpus.text_field"
            )
        yield Document(row[field], f"{name}:{number}")
