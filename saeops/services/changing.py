"""What is done when the model changes: audits, retraining, watching, alerts."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING

from saeops.params import ModelParams, Params, load_params
from saeops.ports import LanguageModel
from saeops.services.clients import utc_now
from saeops.services.registering import Registering

if TYPE_CHECKING:
    from saeops.drift.policy.config import RetrainConfig
    from saeops.drift.policy.decide import Action, RollBackNow
    from saeops.drift.policy.lease import Taking, Wanted
    from saeops.drift.policy.machine import Situation
    from saeops.drift.policy.records import Incident, Retraining
    from saeops.promotion.verdict import Verdict
    from saeops.stages.alerts import Alerted, Channel
    from saeops.stages.audit import Audited
    from saeops.stages.gauges import Sample
    from saeops.stages.retraining import Beating
    from saeops.stages.walk import Moved
    from saeops.stages.watch import Emit, Watched


class Changing(Registering):
    """Verbs of the policy on models that change."""

    def situation(self, name: str) -> "Situation":
        """State of a name, by this checkout's policy; by the default one where its params cannot be read."""
        from saeops.stages import state

        return state.where(self.store, name, self._policy(), utc_now())

    def next_action(self, params: Params, *, holder: str | None = None) -> "Action":
        """What the policy wants done about the dictionary, on behalf of a holder of retrains."""
        from saeops.stages import state

        return state.next_action(self.store, params.name, params.retrain, utc_now(), holder=holder)

    def roll_back(self, params: Params, action: "RollBackNow") -> "Moved | None":
        """The rollback that the policy wants; None where the champion is another one by now."""
        from saeops.stages import state
        from saeops.stages.walk import Registry, Untold

        alone = Registry(store=self.store, projection=Untold())
        return state.roll_back(alone, params.name, action, self.author())

    def take_retraining(self, params: Params, wanted: "Wanted") -> "Taking":
        """Ask for the lease that a retrain holds."""
        from saeops.stages import retraining

        return retraining.acquire(self.store, wanted, params.retrain, utc_now())

    def retraining_kept_alive(self, params: Params, run: "Retraining") -> "AbstractContextManager[Beating]":
        """Show signs of life of a retrain while a block works."""
        from saeops.stages import retraining

        # A third of the lease: it outlives one beat that is lost, and one more.
        every_s = params.retrain.lease_minutes * 60 / 3
        return retraining.kept_alive(self.store, run, every_s=every_s, clock=utc_now)

    def finish_retraining(
        self, run: "Retraining", *, candidate: str, verdict: "Verdict | None" = None
    ) -> "Retraining":
        """End a retrain that made a candidate."""
        from saeops.stages import retraining

        return retraining.finish(self.store, run, utc_now(), candidate=candidate, verdict=verdict)

    def fail_retraining(self, run: "Retraining", *, note: str) -> "Retraining":
        """End a retrain that cannot be made."""
        from saeops.stages import retraining

        return retraining.fail(self.store, run, utc_now(), note=note)

    def note_verdict(self, params: Params, candidate: str, verdict: "Verdict") -> None:
        """Keep what the judge said of a retrained candidate, once people had decided on it."""
        from saeops.stages import retraining

        retraining.note_verdict(self.store, params.name, candidate, verdict, utc_now())

    def watch(self, params: Params, *, emit: "Emit | None" = None) -> "tuple[Watched, ...]":
        """Look once at every model source; one that does not answer is told of after the others were looked at.

        Args:
            emit: told of each new version before it is recorded; None: nobody is.
        """
        from saeops.adapters.model_versions import open_source
        from saeops.errors import SaeopsError
        from saeops.stages import watch

        found: list[Watched] = []
        failed: list[SaeopsError] = []
        for described in params.retrain.sources:
            try:
                source = open_source(
                    described,
                    root=self.settings.root,
                    cache=self.settings.cache,
                    tracking=self.settings.tracking,
                    artifacts=self._mlflow_artifacts,
                )
                found.append(
                    watch.run(
                        params.name,
                        source,
                        store=self.store,
                        memory=self.settings.var / "watch",
                        author=self.author(),
                        emit=emit or (lambda _: None),
                    )
                )
            except SaeopsError as error:
                failed.append(error)
        if failed:
            raise failed[0]
        return tuple(found)

    def alert(self, params: Params, *, channels: "Mapping[str, Channel] | None" = None) -> "Alerted":
        """Bring incidents up to date, and tell these channels, and the webhook of the settings, of new ones."""
        from saeops.adapters.webhook import Webhook
        from saeops.stages import alerts

        told = dict(channels or {})
        if self.settings.alerts_webhook is not None:
            told["webhook"] = Webhook(self.settings.alerts_webhook)
        return alerts.run(
            params.name, store=self.store, policy=params.retrain, author=self.author(), channels=told
        )

    def incidents(self, name: str) -> "tuple[Incident, ...]":
        """All incidents of a name, the newest first."""
        from saeops.stages import alerts

        return alerts.incidents(self.store, name)

    def gauges(self, names: Sequence[str] | None = None) -> "tuple[Sample, ...]":
        """Every gauge of these names, or of all."""
        from saeops.stages import gauges, registry

        chosen = list(names) if names else registry.names(self.store)
        return gauges.gather(self.store, chosen, self._policy(), utc_now(), backlog=self._backlog())

    def _backlog(self) -> dict[str, int]:
        if not self.space.bundle.is_dir():
            return {}
        from saeops.dictionary.bundle import open_bundle
        from saeops.errors import SaeopsError
        from saeops.stages import review

        try:
            name = open_bundle(self.space.bundle).provenance.name
            return {name: len(review.outcome(self.space.bundle, self.ledger).pending)}
        except SaeopsError:
            # Where nothing was built here, or people decide elsewhere, nobody can tell.
            return {}

    def _policy(self) -> "RetrainConfig":
        from saeops.drift.policy.config import RetrainConfig
        from saeops.errors import ParamsInvalid

        try:
            return load_params(self.settings.root).retrain
        except ParamsInvalid:
            return RetrainConfig()

    def audit(self, params: Params, name: str, model: str) -> "Audited":
        """The champion of a name on another model, beside its own; recorded in the store."""
        from saeops.adapters.models import load_random_model
        from saeops.stages import audit

        def random_model(chosen: ModelParams, seed: int) -> LanguageModel:
            return load_random_model(self._here(chosen), self.settings.cache, self._say, seed=seed)

        # What params expect of their own model's bytes is not expected of another's.
        asked = {} if model == params.model.ref else {"ref": model, "sha256": None}
        clients = audit.Clients(
            store=self.store,
            cache=self.settings.cache,
            model=self.model,
            random_model=random_model,
            corpus=self.corpus,
            llm=partial(self.llm, params),
        )
        with self._watching("audit", params) as watch:
            self._ready_kernels(watch)
            return audit.run(
                name,
                params,
                self.space,
                new=params.model.model_copy(update=asked),
                clients=clients,
                author=self.author(),
                watch=watch,
            )
