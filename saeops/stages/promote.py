"""Promotion: judge a bundle, then make it champion."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from saeops.diagnostics.metrics import METRICS as DIAGNOSTICS
from saeops.dictionary.bundle import Bundle, open_bundle
from saeops.drift.matching.metrics import CARRY_OVER
from saeops.errors import GateRefused, LostRace, UsageError
from saeops.interventions.metrics import METRICS as EFFECTS
from saeops.labelling.metrics import METRICS as LABELS
from saeops.metrics import Better, Metric, registry
from saeops.ports import ObjectStore
from saeops.promotion import keys
from saeops.promotion.evidence import Evidence, gather
from saeops.promotion.judge import judge
from saeops.promotion.plan import plan_promotion
from saeops.promotion.policy import PromotePolicy
from saeops.promotion.protocol import Author, intent
from saeops.promotion.state import SHORT, State
from saeops.promotion.verdict import Verdict
from saeops.stages.beside import on_the_same_model
from saeops.stages.projecting import refuse
from saeops.stages.records import read_state
from saeops.stages.removals import being_removed, read_mark
from saeops.stages.transfer import fetch, upload
from saeops.stages.verdicts import read_verdict
from saeops.stages.walk import Moved, Registry, move, settle

METRICS: Mapping[str, Metric] = {**DIAGNOSTICS, **LABELS, **EFFECTS, **registry(CARRY_OVER)}


def judge_bundle(
    bundle: Path, *, store: ObjectStore, cache: Path, policy: PromotePolicy, beside: Path | None = None
) -> Verdict:
    """The verdict on a bundle folder beside the champion of its name.

    The champion itself is not judged beside itself: it keeps the verdict it was promoted on.

    Args:
        beside: where `saeops beside` left the champion's figures on this bundle's model, if it did.

    Raises:
        StageMissing, FolderDamaged, FormatUnknown: the bundle, or the champion's copy, is not whole.
        JournalBroken: the registry cannot be trusted.
    """
    candidate = open_bundle(bundle)
    state = read_state(store, candidate.provenance.name)
    champion = state.champion
    if champion == candidate.digest:
        return recorded_verdict(store, state, champion)
    ours = _evidence(candidate)
    theirs = gather(open_bundle(fetch(store, champion, cache))) if champion else None
    if theirs is not None and beside is not None:
        theirs = on_the_same_model(beside, theirs, ours, candidate.provenance.upstream["activations"])
    directions: dict[str, Better] = {name: metric.better for name, metric in METRICS.items()}
    return judge(ours, theirs, policy, directions)


def _evidence(candidate: Bundle) -> Evidence:
    """What the judge sees of a candidate; one that succeeds no other dictionary has carried nothing over."""
    seen = gather(candidate)
    if candidate.carried() is not None:
        return seen
    why = "no dictionary's labels were carried over to it"
    return replace(seen, inapplicable={metric.name: why for metric in CARRY_OVER})


def other_champion(bundle: Path, *, store: ObjectStore, cache: Path) -> Path | None:
    """The bundle of the champion that a bundle is judged beside; None where there is none, or this is it.

    Raises:
        StageMissing, FolderDamaged, FormatUnknown: the bundle, or the champion's copy, is not whole.
        JournalBroken: the registry cannot be trusted.
    """
    candidate = open_bundle(bundle)
    champion = read_state(store, candidate.provenance.name).champion
    return fetch(store, champion, cache) if champion and champion != candidate.digest else None


def recorded_verdict(store: ObjectStore, state: State, digest: str) -> Verdict:
    """The verdict a version was last promoted on.

    Raises:
        JournalBroken: it is missing, or was changed.
    """
    entry = state.promotion_of(digest).entry
    assert entry.verdict is not None, "every promotion names its verdict"
    return read_verdict(store, state.name, entry.verdict)


def run(
    bundle: Path,
    verdict: Verdict,
    *,
    registry: Registry,
    author: Author,
    reason: str = "",
    force: bool = False,
    git_commit: str | None = None,
    dry_run: bool = False,
) -> Moved:
    """Make a judged bundle champion of its name; safe to repeat.

    Args:
        force: promote whatever the verdict; needs a reason, and shows in status and history for ever.

    Raises:
        GateRefused: the verdict is not a pass; the message goes gate by gate.
        VersionPinned: somebody pinned this bundle, or a rollback left it.
        LostRace: the champion is no longer the one it was judged beside, or somebody else was first.
        IntegrityError: the bundle, here or in the store, is not whole; the champion is not touched.
        UsageError: force without a reason.
    """
    if force and not reason.strip():
        raise UsageError("a forced promotion needs a reason", hint='add --reason "…": it shows for ever')
    candidate = open_bundle(bundle)
    name = candidate.provenance.name
    state = read_state(registry.store, name) if dry_run else settle(registry, name, author)
    plan = plan_promotion(state, candidate.digest)
    if plan.unchanged:
        return Moved(plan, None)
    _check_beside(verdict, candidate, state)
    if not dry_run:
        # Before anything is refused: `saeops explain` tells of refusals as well.
        registry.store.put(keys.verdict_key(name, verdict.digest), verdict.to_bytes())
        if verdict.outcome == "fail" and not force:
            refuse(registry.projection, name, candidate.digest, verdict=verdict.digest)
    _check_outcome(verdict, force=force)
    if dry_run:
        return Moved(plan, None)
    seen = read_mark(registry.store, candidate.digest)
    if seen is not None and seen.removal.phase == "marked":
        raise being_removed(seen, name)
    upload(registry.store, bundle, candidate.digest, again=seen is not None)
    entry = intent(
        state,
        author,
        action="promote",
        to_digest=candidate.digest,
        reason=reason.strip(),
        verdict=verdict.digest,
        forced=verdict.outcome != "pass",
        git_commit=git_commit,
    )
    return move(registry, state, plan, entry, author, seen=seen, bundle=bundle)


def _check_beside(verdict: Verdict, candidate: Bundle, state: State) -> None:
    assert verdict.bundle == candidate.digest, "a verdict is given on the bundle that it is used for"
    if verdict.champion != state.champion:
        beside = verdict.champion[:SHORT] if verdict.champion else "no champion"
        raise LostRace(
            f"{candidate.digest[:SHORT]} was judged beside {beside}, and the champion of {state.name} has changed",
            hint="run the same command again: it judges beside the new champion",
        )


def _check_outcome(verdict: Verdict, *, force: bool) -> None:
    if verdict.outcome == "pass" or force:
        return
    hint = (
        "answer what is open (`saeops review queue` where a review waits) and promote again"
        if verdict.outcome == "inconclusive"
        else "mend what fails and build again; or, if you answer for it, --force --reason …"
    )
    short = verdict.bundle[:SHORT]
    raise GateRefused(
        f"the verdict on {short} is {verdict.outcome}:\n{verdict.explain()}",
        hint=f"{hint}; `saeops explain {short}` says more",
    )
