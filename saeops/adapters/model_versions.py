"""Places where new versions of a model appear: a folder, a registered model of MLflow, a hub repository."""

import json
import re
import shutil
import tempfile
from pathlib import Path
from typing import assert_never

from saeops.adapters.mlflow import Connection
from saeops.adapters.model_source import digest_of_folder, resolve_model
from saeops.digests import digest_json
from saeops.drift.policy.config import FolderSource, HubSource, MlflowSource, Source
from saeops.drift.policy.sources import Glimpse, ModelSource, ModelVersion, NotWhole
from saeops.errors import ModelUnavailable, UsageError
from saeops.files import explained
from saeops.params import ModelParams

INDEX = "model.safetensors.index.json"
HUB_TIMEOUT_S = 30.0


def open_source(source: Source, *, root: Path, cache: Path, tracking: str, artifacts: Path) -> ModelSource:
    """The source that params describe.

    Args:
        root: the checkout, for relative folders.
        cache: where fetched versions are kept.
        tracking: MLflow's address, or `none`.
        artifacts: where an embedded MLflow keeps files.

    Raises:
        UsageError: a registered model, and no MLflow.
    """
    match source:
        case FolderSource():
            return FolderVersions(root / source.path)
        case MlflowSource():
            if tracking == "none":
                raise UsageError(
                    f"retrain.sources names MLflow's {source.model}@{source.alias}, and SAEOPS_TRACKING is none",
                    hint="set SAEOPS_TRACKING to MLflow's address, or take that source out",
                )
            return MlflowVersions(source, Connection(tracking, "saeops", artifacts=artifacts), cache)
        case HubSource():
            return HubVersions(source, cache)
        case _:
            assert_never(source)


class FolderVersions:
    """A model folder, or a folder of them, of which the one written to last counts."""

    def __init__(self, folder: Path) -> None:
        self.address = f"folder:{folder}"
        self._folder = folder

    def look(self) -> Glimpse | NotWhole:
        folder = _newest_model(self._folder)
        if folder is None:
            return NotWhole(f"{self._folder} holds no model folder")
        missing = lacking(folder)
        if missing:
            return NotWhole(f"{folder} is not whole yet: {missing}")
        return Glimpse(_stat_digest(folder), final=False)

    def take(self, glimpse: Glimpse) -> ModelVersion | NotWhole:
        folder = _newest_model(self._folder)
        if folder is None:
            return NotWhole(f"{self._folder} is gone")
        digest = digest_of_folder(folder, str(folder))
        if lacking(folder) or _stat_digest(folder) != glimpse.fingerprint:
            return NotWhole(f"{folder} changed while it was read")
        return ModelVersion(str(folder), digest)


class MlflowVersions:
    """A registered model at an alias; each version's files are fetched once."""

    def __init__(self, source: MlflowSource, connection: Connection, cache: Path) -> None:
        self.address = f"mlflow:{source.model}@{source.alias}"
        self._source, self._connection, self._cache = source, connection, cache

    def look(self) -> Glimpse | NotWhole:
        from mlflow.exceptions import MlflowException

        with self._connection.answering():
            try:
                found = self._connection.client.get_model_version_by_alias(self._source.model, self._source.alias)
            except MlflowException as error:
                if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                    raise
                return NotWhole(f"MLflow has no {self._source.model}@{self._source.alias} yet")
        return Glimpse(str(found.version), final=True)

    def take(self, glimpse: Glimpse) -> ModelVersion | NotWhole:
        slug = re.sub(r"[^A-Za-z0-9.]+", "-", self._source.model)
        # The address is part of it: two servers may both have a first version.
        target = (
            self._cache / "models" / f"mlflow-{slug}-{glimpse.fingerprint}-{digest_json(self._connection.uri)[:8]}"
        )
        if not target.is_dir():
            self._fetch(glimpse.fingerprint, target)
        folder = _newest_model(target)
        if folder is None or (missing := lacking(folder)):
            what = "no model folder" if folder is None else missing
            raise ModelUnavailable(
                f"{self.address}, version {glimpse.fingerprint}: {what}",
                hint="log what model.save_pretrained and tokenizer.save_pretrained wrote, in one folder",
            )
        return ModelVersion(str(folder), digest_of_folder(folder, str(folder)))

    def _fetch(self, version: str, target: Path) -> None:
        from mlflow.artifacts import download_artifacts

        with explained(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            work = Path(tempfile.mkdtemp(dir=target.parent, prefix=".fetch-"))
            try:
                with self._connection.answering():
                    # A models:/ address would be looked up at MLflow's global one.
                    uri = self._connection.client.get_model_version_download_uri(self._source.model, version)
                    download_artifacts(uri, dst_path=str(work), tracking_uri=self._connection.uri)
                if not target.is_dir():
                    work.rename(target)
            finally:
                shutil.rmtree(work, ignore_errors=True)


class HubVersions:
    """A repository of the hub at a branch or tag; its commit is asked for, and fetched once it moved."""

    def __init__(self, source: HubSource, cache: Path, *, endpoint: str | None = None) -> None:
        self.address = f"hub:{source.id}@{source.revision}"
        self._source, self._cache, self._endpoint = source, cache, endpoint

    def look(self) -> Glimpse | NotWhole:
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

        try:
            found = HfApi(endpoint=self._endpoint).model_info(
                self._source.id, revision=self._source.revision, timeout=HUB_TIMEOUT_S
            )
        except (HfHubHTTPError, HFValidationError, OfflineModeIsEnabled, OSError) as error:
            raise self._unavailable(error) from error
        if found.sha is None:
            return NotWhole(f"{self.address} has no commit yet")
        return Glimpse(found.sha, final=True)

    def take(self, glimpse: Glimpse) -> ModelVersion | NotWhole:
        ref = f"{self._source.id}@{glimpse.fingerprint}"
        found = resolve_model(ModelParams(ref=ref, sha256=None), self._cache)
        return ModelVersion(ref, found.digest)

    def _unavailable(self, error: Exception) -> ModelUnavailable:
        return ModelUnavailable(
            f"{self.address} is not to be had from the hub ({type(error).__name__})",
            hint="check the name and revision and that the hub is reachable (HF_HUB_OFFLINE unset);"
            " a gated model needs `hf auth login`",
        )


def lacking(folder: Path) -> str:
    """What a model folder still lacks to be whole, in words; empty where nothing is.

    A safetensors file says in its header how long it is, and an index which
    files there are, so a copy that is under way shows.
    """
    if not (folder / "config.json").is_file():
        return "no config.json"
    weights = {path.name for path in folder.glob("*.safetensors")}
    if (folder / INDEX).is_file():
        try:
            named = set(json.loads((folder / INDEX).read_bytes())["weight_map"].values())
        except (ValueError, LookupError, AttributeError, TypeError):
            return f"{INDEX} is not readable"
        if named - weights:
            return f"{', '.join(sorted(named - weights))} of {INDEX}"
    if not weights:
        return "no *.safetensors file"
    short = [name for name in sorted(weights) if _is_cut(folder / name)]
    return f"{', '.join(short)} is shorter than its header says" if short else ""


def _is_cut(path: Path) -> bool:
    """Format: https://huggingface.co/docs/safetensors: u64 length of the header, JSON header, data."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 + length:
            return True
        try:
            header = json.loads(file.read(length))
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        except (ValueError, LookupError, AttributeError, TypeError):
            return True
    return size < 8 + length + max(ends, default=0)


def _newest_model(folder: Path) -> Path | None:
    """The folder itself if a model lies in it, else the subfolder with one that was written to last."""
    if not folder.is_dir():
        return None
    found = [each for each in (folder, *sorted(folder.rglob("*"))) if each.is_dir() and _looks_like_a_model(each)]
    return folder if folder in found else max(found, key=_written, default=None)


def _looks_like_a_model(folder: Path) -> bool:
    return (folder / "config.json").is_file() or any(folder.glob("*.safetensors"))


def _written(folder: Path) -> int:
    return max(path.stat().st_mtime_ns for path in folder.iterdir() if path.is_file())


def _stat_digest(folder: Path) -> str:
    """Names, sizes and times of the files: reads none of them."""
    stats = {path.name: path.stat() for path in sorted(folder.iterdir()) if path.is_file()}
    listing = {name: [stat.st_size, stat.st_mtime_ns] for name, stat in stats.items()}
    return digest_json([str(folder), listing])
