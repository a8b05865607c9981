"""Where a name stands, and what follows: facts read from the store, decided by drift/policy."""

import datetime
import json
from collections.abc import Iterable

from saeops.dictionary.format import PROVENANCE
from saeops.drift.policy.config import RetrainConfig
from saeops.drift.policy.decide import Action, RollBackNow, decide
from saeops.drift.policy.facts import Change, Facts, moment
from saeops.drift.policy.machine import Situation, situation
from saeops.ports import ObjectStore
from saeops.promotion import keys
from saeops.promotion.protocol import Author
from saeops.promotion.state import State, no_champion
from saeops.stages import rollback
from saeops.stages.drift_records import read_audits, read_models, read_retraining
from saeops.stages.records import read_state
from saeops.stages.walk import Moved, Registry

ORIGINS_READ = 3
"""The newest champions whose model is looked up: older ones decide nothing."""


def facts(store: ObjectStore, name: str, *, state: State | None = None) -> Facts:
    """All that the policy decides on.

    Args:
        state: the name's journal, pointer and pins, where they were just read.

    Raises:
        NameUnknown: there is no champion.
        JournalBroken, FormatUnknown: some record cannot be trusted.
    """
    state = read_state(store, name) if state is None else state
    if state.champion is None:
        raise no_champion(name)
    changes = _changes(state)
    retraining, _ = read_retraining(store, name)
    newest = dict.fromkeys(change.digest for change in reversed(changes))
    return Facts(
        name=name,
        changes=changes,
        audits=read_audits(store, name),
        models=read_models(store, name),
        retraining=retraining,
        pinned={digest: moment(pin.at) for digest, pin in state.pinned.items()},
        built_on=_origins(store, list(newest)[:ORIGINS_READ]),
    )


def where(
    store: ObjectStore, name: str, policy: RetrainConfig, now: datetime.datetime, *, state: State | None = None
) -> Situation:
    """The state of a name with its reason and history; raises as `facts`."""
    return situation(facts(store, name, state=state), policy, now)


def next_action(
    store: ObjectStore, name: str, policy: RetrainConfig, now: datetime.datetime, *, holder: str | None = None
) -> Action:
    """What the policy wants done about a name, on behalf of a holder of retrains; raises as `facts`."""
    return decide(facts(store, name), policy, now, holder=holder)


def roll_back(registry: Registry, name: str, action: RollBackNow, author: Author) -> Moved | None:
    """Carry out a rollback that the policy wants; None where the champion is another one by now.

    Raises:
        as `stages.rollback.run`.
    """
    champion = read_state(registry.store, name).champion
    if champion not in (action.leave, action.to):
        return None
    return rollback.run(name, to=action.to, registry=registry, author=author, reason=f"by policy: {action.why}")


def _changes(state: State) -> tuple[Change, ...]:
    changes: list[Change] = []
    for step in state.settled:
        entry, at = step.entry, moment(step.entry.at)
        # Order is the sequence's matter: a clock that lags behind must not turn it round.
        at = max(at, changes[-1].at) if changes else at
        changes.append(Change(entry.to_digest, at, entry.action, entry.sequence, entry.from_digest))
    return tuple(changes)


def _origins(store: ObjectStore, bundles: Iterable[str]) -> dict[str, str]:
    """Bundle digest → digest of the model it was built on, where the store still has that on record."""
    found = {}
    for bundle in bundles:
        provenance = store.get(keys.bundle_key(bundle, PROVENANCE))
        model = json.loads(provenance.data).get("model") if provenance else None
        if model:
            found[bundle] = str(model["digest"])
    return found
