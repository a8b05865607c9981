"""Carry-over: the labels of an old bundle, matched to the dictionary that a checkout is building."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from saeops.activations.reader import ActivationSet
from saeops.dictionary.bundle import Bundle
from saeops.drift.matching.carried import history_of, remarks_of
from saeops.drift.matching.carry import Dropped, Offer, OldLabel, Remark, offers
from saeops.drift.matching.schema import KIND, TABLE, MatchTable
from saeops.errors import ModelMismatch
from saeops.labelling.labels import Label
from saeops.params import Params
from saeops.ports import Watch
from saeops.refs import Ref, Workspace
from saeops.review.outcome import decisions_on
from saeops.sealed import open_sealed
from saeops.stages import match
from saeops.stages.matchable import Matchable
from saeops.tables import read_table


@dataclass(frozen=True)
class Carrying:
    """What labelling starts from."""

    bundle: str
    """Digest of the old dictionary."""
    match: str
    """Digest of the matching."""
    sae: str
    """Digest of the new SAE that the matching speaks of."""
    offers: tuple[Offer, ...]
    dropped: tuple[Dropped, ...]

    def inputs(self) -> dict[str, Any]:
        """What determines it."""
        return {"bundle": self.bundle, "match": self.match}


def run(
    old: Bundle, params: Params, space: Workspace, *, activations: Sequence[ActivationSet], watch: Watch
) -> Carrying:
    """Match an old bundle with the dictionary that stages have left so far (in `artifacts/match`), for its labels.

    Args:
        activations: sets at hand, as `match.run` takes them.

    Raises:
        StageMissing: nothing was trained, or not catalogued.
        NotComparable, FolderDamaged: as `match.run`.
    """
    sides = Matchable.of(old), Matchable.of_workspace(params, space)
    return prepare(old, match.run(*sides, params, space, activations=activations, watch=watch).ref)


def prepare(old: Bundle, matched: Ref) -> Carrying:
    """Labels of `old` with the latents that may take them.

    Args:
        matched: a matching (`match.run`) with `old` as A and the checkout's own dictionary as B.

    Raises:
        ModelMismatch: the matching is of another dictionary.
        FolderDamaged: a table does not hold what it should.
    """
    sealed = open_sealed(matched.path, kind=KIND, made_by="saeops match")
    if sealed.inputs["first"] != old.digest:
        raise ModelMismatch(
            f"{matched.path} matches {sealed.summary['first']}, not {old.digest[:12]}",
            hint="match the dictionary whose labels are to be carried over, as A",
        )
    found, dropped = offers(old_labels(old), read_table(matched.path / TABLE, MatchTable), bundle=old.digest)
    return Carrying(old.digest, matched.digest, str(sealed.inputs["second"]), found, dropped)


def old_labels(bundle: Bundle) -> list[OldLabel]:
    """A bundle's chosen labels, each with where it came from and what was said of it."""
    decisions = decisions_on(bundle.reviews(), bundle.candidate)
    before = _carried_before(bundle)
    labels = bundle.labels()
    chosen = labels[labels["chosen"] & labels["text"].notna()]
    found = []
    for row in chosen.to_dict("records"):
        key = int(row["latent"]), str(row["version"])
        decision, earlier = decisions.get(key), before.get(key)
        remarks = () if earlier is None else remarks_of(earlier)
        if decision is not None:
            said = {name: getattr(decision, name) for name in ("verdict", "text", "reason", "reviewer", "at")}
            remarks = (*remarks, Remark(bundle=bundle.digest, latent=key[0], **said))
        rule = row.get("rule")
        found.append(
            OldLabel(
                latent=key[0],
                label=Label(str(row["labeller"]), str(row["text"]), None if pd.isna(rule) else str(rule)),
                confidence=float(row["confidence"]),
                rejected=decision is not None and decision.verdict == "reject",
                history=() if earlier is None else history_of(earlier),
                remarks=remarks,
            )
        )
    return found


def _carried_before(bundle: Bundle) -> dict[tuple[int, str], Mapping[Any, Any]]:
    """(latent, version) → how that label came into the bundle, where it was carried over."""
    table = bundle.carried()
    if table is None:
        return {}
    rows = table[table["outcome"] == "carried"].to_dict("records")
    return {(int(row["latent"]), str(row["version"])): row for row in rows}
