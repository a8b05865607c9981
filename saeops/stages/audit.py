"""Audit: a name's champion on a new model, beside the model it was made from."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from saeops.activations.split import SplitFractions
from saeops.dictionary.bundle import Bundle
from saeops.digests import digest_bytes, digest_json
from saeops.drift.audit import schema
from saeops.drift.audit.documents import HeldOutDocuments, Wanted, choose
from saeops.drift.audit.outcome import width_changed
from saeops.drift.audit.record import AuditRecord, LatentCounts
from saeops.errors import ModelMismatch
from saeops.files import publish_folder
from saeops.params import CorpusParams, ModelParams, Params
from saeops.ports import Corpus, LanguageModel, Llm, ObjectStore, Watch
from saeops.promotion import keys
from saeops.promotion.protocol import Author
from saeops.refs import Ref, Workspace
from saeops.sae.canonical import Sae
from saeops.sealed import Sealed, kept, open_sealed, seal
from saeops.stages.audit_findings import Findings, write, write_width
from saeops.stages.audit_work import Reader, Subject
from saeops.stages.load import find
from saeops.training.documents import read_trained


@dataclass(frozen=True)
class Clients:
    """What an audit asks of the world."""

    store: ObjectStore
    cache: Path
    model: Callable[[ModelParams], LanguageModel]
    random_model: Callable[[ModelParams, int], LanguageModel]
    """A copy of a model with weights drawn by a seed."""
    corpus: Callable[[CorpusParams], Corpus]
    llm: Callable[[], Llm | None]
    """Judges the labels that a language model wrote, where `audit.llm_latents` wants it."""


@dataclass(frozen=True)
class Audited:
    """The record as the registry keeps it, and the sealed folder it speaks of."""

    record: AuditRecord
    folder: Ref
    key: str
    """Of the record, in the object store."""


def run(
    name: str,
    params: Params,
    space: Workspace,
    *,
    new: ModelParams,
    clients: Clients,
    author: Author,
    watch: Watch,
) -> Audited:
    """Read held-out documents through the champion's model and the new one, judge, seal and record.

    Killed at any point, the same call goes on after the last finished group of documents.

    Raises:
        NameUnknown: the name has no champion.
        ModelUnavailable: a model cannot be loaded.
        ModelMismatch: the reference of the champion's model means another model now.
        SiteUnknown: the new model has no such site.
        CorpusTooSmall: too few held-out documents.
        NonFinite: a model gives NaN or infinity.
    """
    bundle = find(f"{name}@champion", store=clients.store, cache=clients.cache)
    made_with = dict(bundle.provenance.params)
    old_params = ModelParams.model_validate(made_with["model"])
    old, fresh = _own_model(bundle, old_params, clients), clients.model(new)
    sae = Sae.load(bundle.path / "sae")
    width, wanted = fresh.width(sae.meta.site), sae.meta.d_model
    subject = Subject(params.audit, params.seed, bundle, sae, old, fresh)
    if width != wanted or fresh.width(sae.meta.sites.target) != sae.meta.width_out:
        watch.say(f"audit: {width} wide where the dictionary reads {wanted}: it cannot be applied")
        verdict = width_changed(sae.meta.site, wanted, width)
        sealed = _sealed(subject, space, {}, lambda folder: write_width(folder, verdict))
        return _recorded(subject, sealed, new.ref, clients, author)
    corpus = clients.corpus(CorpusParams.model_validate(made_with["corpus"]))
    if dict(corpus.identity) != bundle.provenance.corpus:
        watch.say("audit: the corpus is not the one that the bundle was built from; the same rule splits it")
    chosen = _documents(subject, corpus, watch)
    inputs = {"documents": digest_json([document.sha256 for document in chosen.audited])}
    work = space.work("audit", digest_json(_inputs(subject, inputs)))
    reader = Reader(subject, chosen, work / "parts", partial(clients.random_model, old_params, params.seed), watch)
    stage = Findings(reader, params, space.root, clients.llm)
    sealed = _sealed(subject, space, inputs, lambda folder: write(stage, folder))
    return _recorded(subject, sealed, new.ref, clients, author)


def _own_model(bundle: Bundle, params: ModelParams, clients: Clients) -> LanguageModel:
    model, wanted = clients.model(params), str(bundle.provenance.model["digest"])
    if model.identity.digest != wanted:
        raise ModelMismatch(
            f"{bundle.provenance.name} was made from model {wanted[:12]}; {params.ref} is"
            f" {model.identity.digest[:12]} now",
            hint="put the model it was made from back in its place: an audit compares with it",
        )
    return model


def _documents(subject: Subject, corpus: Corpus, watch: Watch) -> HeldOutDocuments:
    made_with, config = subject.bundle.provenance.params, subject.config
    trained = read_trained(subject.bundle.path / "sae")
    if trained is None:
        watch.say("audit: the SAE does not record its documents: held-out ones may have trained it")
    wanted = Wanted(
        documents=config.documents,
        neutral=config.effect_documents,
        min_chars=int(made_with["corpus"]["min_chars"]),
        max_chars=int(made_with["corpus"]["max_chars"]),
        splits=SplitFractions.model_validate(made_with["harvest"]["splits"]),
        split_seed=int(made_with["seed"]),
        seed=subject.seed,
    )
    return choose(corpus.documents(), None if trained is None else set(trained["sha256"]), wanted)


# ── what is left behind ─────────────────────────────────────────────────────


def _inputs(subject: Subject, more: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "bundle": subject.bundle.digest,
        "old_model": subject.old.identity.digest,
        "new_model": subject.new.identity.digest,
        "audit": subject.config.model_dump(mode="json"),
        "seed": subject.seed,
        **more,
    }


def _sealed(
    subject: Subject, space: Workspace, more: Mapping[str, Any], make: Callable[[Path], Mapping[str, Any]]
) -> Sealed:
    inputs = _inputs(subject, more)
    done = kept(space.audit, kind=schema.KIND, inputs=inputs)
    if done is not None:
        return done
    folder = space.work("audit", digest_json(inputs)) / "audit"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    summary = {
        "name": subject.bundle.provenance.name,
        "old_model": subject.old.identity.to_json(),
        "new_model": subject.new.identity.to_json(),
        "same_model": subject.same_model,
        **make(folder),
    }
    seal(folder, kind=schema.KIND, version=schema.VERSION, inputs=inputs, summary=summary)
    publish_folder(folder, space.audit)
    shutil.rmtree(folder.parent, ignore_errors=True)
    return open_sealed(space.audit, kind=schema.KIND)


def _recorded(subject: Subject, sealed: Sealed, model_ref: str, clients: Clients, author: Author) -> Audited:
    """The record in the store, written once under a key that nobody else has."""
    summary, name = sealed.summary, subject.bundle.provenance.name
    at = author.now.isoformat(timespec="seconds")
    record = AuditRecord(
        name=name,
        bundle=subject.bundle.digest,
        model=subject.new.identity.digest,
        model_ref=model_ref,
        same_model=subject.same_model,
        outcome=summary["outcome"],
        fresh_start=summary["fresh_start"],
        at=at,
        author=author.who,
        documents=summary["documents"],
        tokens=summary["tokens"],
        latents=LatentCounts.model_validate(summary["latents"]),
        reasons=tuple(summary["reasons"]),
        report=sealed.digest,
    )
    data = record.to_bytes()
    key = keys.audit_key(name, at, digest_bytes(data))
    # The key holds the digest of the bytes: where it is taken, the very same record is there.
    clients.store.put(key, data, if_absent=True)
    return Audited(record, Ref.of(sealed), key)
