"""Checkpoints: a pair of files a step, written whole or not at all, the newest few kept.

`step-<n>.safetensors` holds the tensors. `step-<n>.json`, written after it,
holds the facts, what the run is made from, the sha256 of the tensors and a digest
of itself: a pair without its JSON was never finished, and a pair that does not fit
together is damaged.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import load, save
from torch import Tensor

from saeops.digests import digest_bytes, digest_json
from saeops.errors import CheckpointDamaged, CheckpointMismatch, FormatUnknown
from saeops.files import write_atomic

CHECKPOINT_VERSION = 3


@dataclass(frozen=True)
class Checkpoint:
    """Everything a run needs to go on as if it had never stopped."""

    step: int
    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any]
    """JSON."""


@dataclass(frozen=True)
class Newest:
    """The newest checkpoint that can be trusted, and the newer ones that cannot."""

    checkpoint: Checkpoint | None
    damaged: tuple[str, ...]
    """What is wrong with each, newest first."""


@dataclass(frozen=True)
class CheckpointFolder:
    """The checkpoints of one run."""

    path: Path
    keep: int
    run: Mapping[str, Any] = field(default_factory=dict)
    """What the run is made from, as JSON: params, seed, data. Checkpoints of another run are refused."""

    def write(self, checkpoint: Checkpoint) -> None:
        """Write one, then remove the oldest beyond `keep`.

        Raises:
            DiskFull: no space is left; the checkpoints before it still stand.
        """
        tensors = {name: tensor.cpu().contiguous() for name, tensor in checkpoint.tensors.items()}
        data = save(tensors)
        body = {
            "version": CHECKPOINT_VERSION,
            "step": checkpoint.step,
            "sha256": digest_bytes(data),
            "run": dict(self.run),
            "facts": dict(checkpoint.facts),
        }
        target = self._json(checkpoint.step)
        write_atomic(target.with_suffix(".safetensors"), data)
        write_atomic(target, json.dumps({**body, "digest": digest_json(body)}).encode())
        self._prune()

    def newest(self) -> Newest:
        """The newest whole checkpoint; none where there is none at all.

        Raises:
            CheckpointDamaged: there are checkpoints, and none can be trusted.
            CheckpointMismatch: it is whole, and of a run with another variant, other params or other data.
            FormatUnknown: it is whole, and written by a saeops with another format of checkpoints.
        """
        damaged: list[str] = []
        for path in self._finished():
            try:
                return Newest(_read(path, self.run), tuple(damaged))
            except CheckpointDamaged as error:
                damaged.append(error.message)
        if damaged:
            raise CheckpointDamaged(
                f"no checkpoint in {self.path} can be trusted: {'; '.join(damaged)}",
                hint=f"remove {self.path} and run `saeops train` again: it starts from the first step",
            )
        return Newest(None, ())

    def _json(self, step: int) -> Path:
        return self.path / f"step-{step:09d}.json"

    def _finished(self) -> list[Path]:
        return sorted(self.path.glob("step-*.json"), reverse=True)

    def _prune(self) -> None:
        kept = {path.stem for path in self._finished()[: self.keep]}
        # JSON first: a kill in between leaves an unfinished pair, not a damaged one.
        for suffix in (".json", ".safetensors"):
            for path in self.path.glob(f"step-*{suffix}"):
                if path.stem not in kept:
                    path.unlink()
        # What a kill in the middle of a write left behind.
        for path in self.path.glob(".step-*"):
            path.unlink()


def _read(path: Path, run: Mapping[str, Any]) -> Checkpoint:
    body = _body(path)
    if body["version"] != CHECKPOINT_VERSION:
        raise FormatUnknown(
            f"{path} is a checkpoint in version {body['version']}, this saeops reads version {CHECKPOINT_VERSION}",
            hint=f"use the saeops release that wrote it, or remove {path.parent} and start from the first step",
        )
    _check_run(path, body["run"], json.loads(json.dumps(dict(run))))
    step, sha256, facts = body["step"], body["sha256"], body["facts"]
    tensors = path.with_suffix(".safetensors")
    if not tensors.exists():
        raise CheckpointDamaged(f"{tensors.name} is missing")
    data = tensors.read_bytes()
    if digest_bytes(data) != sha256:
        raise CheckpointDamaged(f"{tensors.name} changed since it was written")
    return Checkpoint(step, load(data), facts)


def _body(path: Path) -> dict[str, Any]:
    """The JSON, which agrees with its own digest."""
    try:
        body = json.loads(path.read_bytes())
        digest = body.pop("digest")
        intact = digest_json(body) == digest
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointDamaged(f"{path.name} is not a checkpoint's JSON") from error
    if not intact:
        raise CheckpointDamaged(f"{path.name} changed since it was written")
    return dict(body)


def _check_run(path: Path, found: Mapping[str, Any], run: Mapping[str, Any]) -> None:
    there, here = _flat(found), _flat(run)
    differing = sorted(name for name in there.keys() | here.keys() if there.get(name) != here.get(name))
    if differing:
        what = "; ".join(f"{name} is {there.get(name)!r} there and {here.get(name)!r} here" for name in differing)
        raise CheckpointMismatch(
            f"{path} belongs to another run: {what}",
            hint=f"set them back to go on with it, or remove {path.parent} and start from the first step",
        )


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return flat
