"""Import and export: other libraries' SAEs in the place of a trained one, and ours as they keep them."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, assert_never

from saeops.activations.reader import ActivationSet
from saeops.digests import digest_file, digest_json
from saeops.errors import ModelMismatch, SaeopsError, StageMissing, UsageError
from saeops.files import publish_folder, write_atomic
from saeops.ports import Watch
from saeops.refs import Ref, Workspace, parse_site
from saeops.sae.canonical import Sae
from saeops.sae.formats import dictionary_learning, gemma_scope, saelens, sparsify
from saeops.sae.formats.folding import Imported
from saeops.sae.formats.names import FILES, Format, Results, looks_like
from saeops.sealed import Sealed, kept, open_sealed, seal
from saeops.stages.train import CURVE, KIND, VERSION
from saeops.tables import write_table
from saeops.training.curve import CurveTable


@dataclass(frozen=True)
class Exported:
    """Where an SAE, or its results, went."""

    format: Format | Results
    path: Path
    """The folder that the library loads."""
    files: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {"format": self.format.value, "path": str(self.path), "files": list(self.files)}


def import_sae(
    folder: Path,
    space: Workspace,
    *,
    format: Format | None,
    site: str | None = None,
    target_site: str | None = None,
    force: bool = False,
    watch: Watch,
) -> Ref:
    """Put another library's SAE in the place of a trained one: a sealed `artifacts/sae`.

    Where activations were harvested, it is bound to their model, token policy and norm limit, and its
    width is checked. The same files, site and activations give the same bytes.

    Args:
        folder: holds the foreign files.
        format: None ends in an error that says what the files look like.
        site: where the SAE reads; None takes what the foreign config says.
        target_site: where what a transcoder gives back belongs; None likewise.
        force: replace an SAE that stands in `artifacts/sae`.

    Raises:
        ForeignFormat: files that cannot be read, or an SAE that the canonical form cannot hold exactly.
        UsageError: no format or site, or an SAE that stands in the way.
        SiteUnknown: activations were harvested, and not at this site.
        ModelMismatch: activations of another width.
    """
    if format is None:
        raise _which_format(folder)
    imported = _read(format, folder)
    sites = _sites(imported, site, target_site, folder)
    acts = _harvested(space)
    sae = _bound(imported, format, sites, acts)
    files = {name: digest_file(folder / name) for name in FILES[format]}
    inputs: dict[str, Any] = {"foreign": {"format": format.value, "files": files}, "sites": list(sites)}
    if acts is not None:
        inputs["activations"] = acts.sealed.digest
    _tell(imported, sae, acts, watch)
    done = kept(space.sae, kind=KIND, inputs=inputs)
    if done is None:
        _make_room(space.sae, force=force, watch=watch)
        work = space.work("import", digest_json(inputs))
        done = _publish(sae, imported, work, space.sae, inputs)
    return Ref.of(done)


def _which_format(folder: Path) -> UsageError:
    known = ", ".join(Format)
    found = looks_like(folder)
    if found is not None:
        files = " and ".join(FILES[found])
        return UsageError(
            f"no --format; {folder} looks like {found} ({files})", hint=f"--format {found}, if it is"
        )
    there = ", ".join(sorted(path.name for path in folder.iterdir())[:8]) if folder.is_dir() else "no folder"
    return UsageError(f"no --format, and {folder} looks like none ({there})", hint=f"--format, one of {known}")


def _read(format: Format, folder: Path) -> Imported:
    match format:
        case Format.SAELENS:
            return saelens.read(folder)
        case Format.SPARSIFY:
            return sparsify.read(folder)
        case Format.DICTIONARY_LEARNING:
            return dictionary_learning.read(folder)
        case Format.GEMMA_SCOPE:
            return gemma_scope.read(folder)
        case _:
            assert_never(format)


def _sites(imported: Imported, site: str | None, target: str | None, folder: Path) -> tuple[str, str | None]:
    """Where it reads, and for a transcoder where what it gives back belongs."""
    reads = _checked_site(site or imported.site, imported.hook, folder, "site")
    if not imported.transcoder:
        if target is not None:
            raise UsageError(
                f"the SAE in {folder} is no transcoder: it has no target", hint="leave out --target-site"
            )
        return reads, None
    return reads, _checked_site(target or imported.target_site, "", folder, "target-site")


def _checked_site(site: str | None, hook: str, folder: Path, option: str) -> str:
    if site is None:
        said = f"reads at {hook!r}, which is no site of saeops" if hook else f"does not tell its {option}"
        raise UsageError(f"the SAE in {folder} {said}", hint=f"name it: --{option} blocks.<n>.resid_post")
    try:
        parse_site(site)
    except ValueError as error:
        raise UsageError(str(error), hint=f"--{option} blocks.10.resid_post") from error
    return site


def _harvested(space: Workspace) -> ActivationSet | None:
    try:
        return ActivationSet.open(space.activations)
    except StageMissing:
        return None


def _bound(imported: Imported, format: Format, sites: tuple[str, str | None], acts: ActivationSet | None) -> Sae:
    """The canonical SAE, as one of the harvested model."""
    site, target = sites
    if acts is None:
        model = {"ref": imported.model} if imported.model else {}
        return imported.canonical(format=format, site=site, target_site=target, model=model)
    weights = imported.weights
    for place, width in ((site, weights.W_enc.shape[0]), (target or site, weights.W_dec.shape[1])):
        if width != acts.width(place):
            raise ModelMismatch(
                f"the SAE has {width} dimensions, activations at {place} have {acts.width(place)}",
                hint="harvest the model it was trained on, or name its site with --site",
            )
    return imported.canonical(
        format=format,
        site=site,
        target_site=target,
        model=acts.model,
        policy=acts.policy,
        norm_limit=acts.norm_limit(site),
        target_norm_limit=acts.norm_limit(target) if target else None,
    )


def _tell(imported: Imported, sae: Sae, acts: ActivationSet | None, watch: Watch) -> None:
    """What whoever imports it should know."""
    meta = sae.meta
    rule = f"k = {meta.k}" if meta.k is not None else "by threshold" if sae.threshold is not None else "ReLU"
    watch.say(
        f"import: {meta.variant}, {meta.d_sae:,} latents on {meta.d_model} dimensions, {rule}, at {meta.site}"
    )
    for note in imported.notes:
        watch.say(f"import: {note}")
    watch.say("import: its files do not tell which documents it was trained on, so none can be held out from it")
    if acts is None:
        watch.say(
            "import: nothing is harvested here, so it is bound to no model; it can be exported, and after "
            "`saeops harvest` it must be imported again before `saeops diagnose`"
        )
        return
    here = str(acts.model.get("ref", ""))
    if imported.model and imported.model.split("/")[-1].lower() != here.rstrip("/").split("/")[-1].lower():
        watch.say(f"import: its files name the model {imported.model}; the activations here are those of {here}")
    if imported.prepend_bos is not None and imported.prepend_bos != acts.policy.prepend_bos:
        watch.say(
            f"import: it was trained with prepend_bos = {imported.prepend_bos}, the activations here were "
            f"harvested with {acts.policy.prepend_bos}"
        )


def _make_room(target: Path, *, force: bool, watch: Watch) -> None:
    """Refuse to replace what stands there unless it was asked for, and say what it is."""
    if not target.exists():
        return
    try:
        sealed = open_sealed(target, kind=KIND)
        facts = sealed.summary
        what = f"{facts.get('variant')} at {facts.get('site')}, {facts.get('d_sae')} latents, {sealed.digest[:12]}"
    except SaeopsError as error:
        what = f"something that is no finished SAE ({error.message})"
    if not force:
        raise UsageError(f"{target} holds {what}", hint="--force puts the imported one in its place")
    watch.say(f"import: replaces {what}")


def _publish(sae: Sae, imported: Imported, work: Path, target: Path, inputs: dict[str, Any]) -> Sealed:
    shutil.rmtree(work, ignore_errors=True)
    sae.save(work)
    # No training was seen here: the curve is there, and empty.
    write_table(CurveTable.empty(), work / CURVE, CurveTable, rows=0)
    summary = {
        **sae.meta.model_dump(mode="json", exclude={"policy"}),
        "foreign_model": imported.model,
        "foreign_hook": imported.hook,
    }
    sealed = seal(work, kind=KIND, version=VERSION, inputs=inputs, summary=summary)
    publish_folder(work, target)
    return Sealed(**{**vars(sealed), "path": target})


def export_sae(sae: Sae, folder: Path, *, format: Format, force: bool) -> Exported:
    """Write an SAE as another library keeps it.

    Args:
        folder: made if it is not there; sparsify's files go into a folder of the hookpoint's name in it.
        force: replace files of the same names.

    Raises:
        ForeignFormat: the library has no SAE that computes the same.
        UsageError: files stand in the way.
    """
    files = _files(format, sae)
    there = [folder / name for name in files if (folder / name).exists()]
    if there and not force:
        names = ", ".join(map(str, there))
        raise UsageError(f"already there: {names}", hint="--force replaces them; or choose another --to")
    # Killed half-way, the folder must not pair new weights with an old config.
    for path in there:
        path.unlink()
    for name, data in files.items():
        write_atomic(folder / name, data)
    paths = [folder / name for name in files]
    return Exported(format, paths[0].parent, tuple(path.name for path in paths))


def _files(format: Format, sae: Sae) -> dict[str, bytes]:
    match format:
        case Format.SAELENS:
            return saelens.files_of(sae)
        case Format.SPARSIFY:
            return sparsify.files_of(sae)
        case Format.DICTIONARY_LEARNING:
            return dictionary_learning.files_of(sae)
        case Format.GEMMA_SCOPE:
            raise UsageError("gemma_scope is read, not written", hint="--format saelens holds the same")
        case _:
            assert_never(format)
