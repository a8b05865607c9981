"""The bundle stage: everything that was made, as one immutable folder."""

import importlib.metadata
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from saeops.activations.policy import TokenPolicy
from saeops.dictionary.bundle import Bundle, assemble, bundle_inputs
from saeops.dictionary.format import KIND, PARTS
from saeops.dictionary.provenance import Provenance, code_digest, lock_digest
from saeops.digests import digest_json, dvc_directory_md5
from saeops.errors import ModelMismatch
from saeops.params import Params
from saeops.ports import Watch
from saeops.refs import Ref, Workspace
from saeops.sae.canonical import META, SaeMeta
from saeops.sealed import Sealed, kept, open_sealed, verify

MADE_BY = {
    "activations": "saeops harvest",
    "sae": "saeops train",
    "controls": "saeops controls",
    "diagnostics": "saeops diagnose",
    "catalog": "saeops diagnose",
    "labels": "saeops label",
    "effects": "saeops bench",
}

SECTIONS = ("seed", "harvest", "train", "controls", "diagnose", "label", "bench")
"""Params that a stage records in its inputs as they stand in params.yaml."""


def run(params: Params, space: Workspace, *, watch: Watch) -> Ref:
    """Seal all finished stages into `artifacts/bundle`. The same params, data and code give the same digest.

    Raises:
        StageMissing: a stage has not been run.
        FolderDamaged: a part's bytes changed since it was sealed.
        ModelMismatch: the parts do not belong together, or were made under other params; names the stage to rerun.
    """
    parts = {kind: _open(space, kind) for kind in MADE_BY}
    check_parts(parts, params)
    provenance = _provenance(params, space, parts)
    inputs = bundle_inputs(provenance)
    done = kept(space.bundle, kind=KIND, inputs=inputs)
    if done is None:
        work = space.work("bundle", digest_json(inputs))
        folders = {name: parts[name].path for name in PARTS}
        summary = _summary(params, parts)
        done = _sealed(assemble(folders, provenance, summary=summary, work=work, target=space.bundle))
        shutil.rmtree(work, ignore_errors=True)
    watch.say(f"bundle {done.digest[:12]}: {sum(int(e['bytes']) for e in done.files.values()) / 1e6:.1f} MB")
    return Ref.of(done)


def check_parts(parts: Mapping[str, Sealed], params: Params) -> None:
    """Refuse parts that were not made from one another, or not under these params.

    A stage's inputs name the folders it read by digest, and the params sections
    it depends on by value; both are compared with what is there now.

    Raises:
        ModelMismatch: names the part that is out of date and the stage to rerun.
    """
    sections = params.model_dump(mode="json")
    for part in parts.values():
        for key, value in part.inputs.items():
            # `controls` is a folder and a section: digests are text, and no section is.
            if isinstance(value, str) and key in parts and value != parts[key].digest:
                raise _out_of_date(part, f"was made from another {key} than the one in {parts[key].path}")
            if not isinstance(value, str) and key in SECTIONS and not _holds(value, sections[key]):
                raise _out_of_date(part, f"was made under other params ({key})")


def _holds(recorded: Any, chosen: Any) -> bool:
    """Whether recorded params are still chosen; a stage may depend on part of a section."""
    if isinstance(recorded, Mapping):
        return all(key in chosen and chosen[key] == value for key, value in recorded.items())
    return bool(recorded == chosen)


def _out_of_date(part: Sealed, what: str) -> ModelMismatch:
    made_by = "saeops import" if "foreign" in part.inputs else MADE_BY[part.kind]
    return ModelMismatch(
        f"{part.path} {what}", hint=f"run `{made_by}` again, then what follows it, then `saeops bundle`"
    )


def _open(space: Workspace, kind: str) -> Sealed:
    folder: Path = getattr(space, kind)
    # Activations stay outside the bundle: a digest vouches for them without reading gigabytes.
    check = open_sealed if kind in ("activations", "controls") else verify
    return check(folder, kind=kind, made_by=MADE_BY[kind])


def _provenance(params: Params, space: Workspace, parts: Mapping[str, Sealed]) -> Provenance:
    package = Path(__file__).parents[1]
    summary = parts["activations"].summary
    return Provenance(
        name=params.name,
        model=dict(summary["model"]),
        corpus=dict(summary["corpus"]),
        policy=TokenPolicy.model_validate(summary["policy"]),
        # When to look at it again says nothing about how it was made.
        params=params.model_dump(mode="json", exclude={"retrain", "serve"}),
        code=code_digest(package),
        version=importlib.metadata.version("saeops"),
        lock=lock_digest(space.root),
        activations_md5=dvc_directory_md5(space.activations),
        upstream={kind: part.digest for kind, part in parts.items()},
    )


def _summary(params: Params, parts: Mapping[str, Sealed]) -> dict[str, Any]:
    labels = pd.read_parquet(parts["labels"].path / "labels.parquet", columns=["chosen", "text", "confidence"])
    chosen = labels[labels["chosen"] & labels["text"].notna()]
    # An imported SAE is not the one that the train section describes.
    sae = SaeMeta.model_validate_json((parts["sae"].path / META).read_bytes())
    return {
        "name": params.name,
        "site": sae.site,
        "target_site": sae.target_site,
        "variant": sae.variant,
        "labelled": len(chosen),
        "trusted": int((chosen["confidence"] >= params.promote.trusted_confidence).sum()),
    }


def _sealed(bundle: Bundle) -> Sealed:
    return open_sealed(bundle.path, kind=KIND)
