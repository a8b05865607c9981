"""What is installed, reachable and writable, and what to do about what is not."""

import importlib.metadata
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from saeops.errors import SaeopsError
from saeops.params import Params, load_params
from saeops.services import Services

State = Literal["ok", "missing", "broken"]


@dataclass(frozen=True)
class Check:
    """One thing looked at. `missing` is optional and absent; `broken` stops something that is needed."""

    what: str
    state: State
    found: str
    fix: str = ""


REQUIRED = ("torch", "transformers", "safetensors", "pandas", "pandera", "pydantic", "typer")
OPTIONAL = {
    "prefect": "flows: pip install 'saeops[flows]'",
    "mlflow": "tracking: pip install 'saeops[mlflow]'",
    "dvc": "data versions: pip install 'saeops[dvc]'",
    "gguf": "GGUF models, the default one among them: pip install 'saeops[gguf]'",
    "accelerate": "GGUF models: pip install 'saeops[gguf]'",
    "datasets": "hub data sets: pip install 'saeops[hub]'",
}
MIN_FREE_BYTES = 5 * 2**30


def examine(services: Services) -> list[Check]:
    """Every check, in the order in which a person would mend things."""
    checks = [_python(), *_packages(), _device(), _kernels(services), _program("git"), _disk(services)]
    settings = services.settings
    checks += [
        _writable("checkout (artifacts/)", settings.root / "artifacts"),
        _writable("model cache", settings.cache, "set SAEOPS_CACHE to a folder you may write"),
    ]
    checks.append(_store(services))
    checks.append(_answers("review ledger", settings.ledger, lambda: services.ledger.entries()))
    checks.append(_tracking(services))
    try:
        params = load_params(settings.root)
    except SaeopsError as error:
        return [*checks, Check("params", "broken", error.message, error.hint)]
    checks.append(Check("params", "ok", f"name {params.name}, digest {params.digest()[:12]}"))
    checks += list(_endpoint(params))
    return checks


def _python() -> Check:
    # An older Python cannot even read this file: the Makefile says so before anything is installed.
    return Check("Python", "ok", ".".join(map(str, sys.version_info[:3])))


def _packages() -> Iterator[Check]:
    for name in REQUIRED:
        version = _version(name)
        yield Check(name, "ok", version) if version else Check(name, "broken", "not installed", "make setup")
    for name, fix in OPTIONAL.items():
        version = _version(name)
        yield Check(name, "ok", version) if version else Check(name, "missing", "not installed", fix)


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _device() -> Check:
    import torch

    if torch.cuda.is_available():
        return Check("device", "ok", torch.cuda.get_device_name())
    return Check("device", "ok", f"cpu, {os.cpu_count()} cores (no CUDA device)")


def _kernels(services: Services) -> Check:
    from saeops.sae.native import library
    from saeops.sae.native.build import NotBuilt

    found = library.enable(services.settings.cache / "kernels")
    if isinstance(found, NotBuilt):
        return Check("kernels", "missing", found.reason, "install g++: training and encoding on a CPU get faster")
    how = "without the dense product" if found.has_search else "by the dense product (no AVX-512 BF16 and VNNI)"
    return Check("kernels", "ok", f"compiled for this processor; TopK encodes {how}")


def _program(name: str) -> Check:
    path = shutil.which(name)
    if path:
        return Check(name, "ok", path)
    return Check(name, "missing", "not on PATH", f"install {name}: DVC ties data to its commits")


def _disk(services: Services) -> Check:
    free = shutil.disk_usage(services.settings.root).free
    found = f"{free / 2**30:.0f} GiB free"
    if free >= MIN_FREE_BYTES:
        return Check("disk", "ok", found)
    return Check("disk", "broken", found, "free some: a default build needs about 5 GiB with DVC's copies")


def _writable(what: str, folder: Path, fix: str = "give this user write access there") -> Check:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder):
            return Check(what, "ok", f"{folder} is writable")
    except OSError as error:
        return Check(what, "broken", f"{folder}: {error.strerror}", fix)


def _answers(what: str, address: str, ask: Callable[[], object]) -> Check:
    try:
        ask()
    except SaeopsError as error:
        return Check(what, "broken", error.message, error.hint)
    return Check(what, "ok", address)


def _store(services: Services) -> Check:
    from saeops.adapters.conditions import prove

    def ask() -> None:
        services.store.list("names/")
        prove(services.store)

    check = _answers("registry store", services.settings.store, ask)
    return replace(check, found=f"{check.found}: conditional writes hold") if check.state == "ok" else check


def _tracking(services: Services) -> Check:
    address = services.settings.tracking
    if address == "none":
        return Check("tracking", "missing", "switched off", "unset SAEOPS_TRACKING to log to SQLite")
    if _version("mlflow") is None:
        return Check("tracking", "missing", "mlflow is not installed", OPTIONAL["mlflow"])
    return _answers("tracking", address, lambda: services.projection.aliases("doctor"))


def _endpoint(params: Params) -> Iterator[Check]:
    config = params.label.llm
    if config.backend != "openai" or params.label.llm_latents == 0:
        return
    import httpx

    try:
        answer = httpx.get(f"{config.base_url.rstrip('/')}/models", timeout=5)
    except httpx.HTTPError as error:
        fix = "start the endpoint, mend label.llm.base_url, or --set label.llm_latents=0"
        yield Check("LLM endpoint", "broken", f"{config.base_url}: {error}", fix)
        return
    yield Check("LLM endpoint", "ok", f"{config.base_url} answers ({answer.status_code})")
