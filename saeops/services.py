"""The one place where adapters meet stages: builds clients from settings, lends them to a stage.

Every verb and every task goes through here. Heavy modules are imported where
they are first used, so that `saeops status` never waits for torch.
"""

import contextlib
import datetime
import fcntl
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

from saeops.files import explained
from saeops.params import CorpusParams, ModelParams, Params, load_params
from saeops.ports import (
    Corpus,
    DataVersions,
    LanguageModel,
    Llm,
    ObjectStore,
    RegistryProjection,
    ReviewLedger,
    Sources,
    Watch,
)
from saeops.refs import Ref, Workspace
from saeops.settings import Settings

if TYPE_CHECKING:
    from rich.console import RenderableType

    from saeops.activations.reader import ActivationSet
    from saeops.adapters.finetune import Finetuned
    from saeops.adapters.mlflow import MlflowTracker, NullTracker
    from saeops.dictionary.compare import Comparison
    from saeops.dictionary.inspect import Inspected
    from saeops.drift.policy.config import RetrainConfig
    from saeops.drift.policy.decide import Action, RollBackNow
    from saeops.drift.policy.lease import Taking, Wanted
    from saeops.drift.policy.machine import Situation
    from saeops.drift.policy.records import Incident, Retraining
    from saeops.promotion.protocol import Author
    from saeops.promotion.verdict import Verdict
    from saeops.review.ledger import LedgerEntry
    from saeops.sae.formats.names import Format
    from saeops.stages.alerts import Alerted, Channel
    from saeops.stages.audit import Audited
    from saeops.stages.checkout import CheckedOut
    from saeops.stages.diagnose import Diagnosed
    from saeops.stages.foreign import Exported
    from saeops.stages.gauges import Sample
    from saeops.stages.matchable import Shown
    from saeops.stages.reconcile import Reconciled
    from saeops.stages.retraining import Beating
    from saeops.stages.review import Review
    from saeops.stages.walk import Moved, Registry
    from saeops.stages.watch import Emit, Watched

EXPERIMENT = "saeops"


class Services:
    """Everything a stage needs from the world, built once and on demand.

    Args:
        settings: addresses and secrets.
        parent_run: tracker run under which stages log, for flows.
        quiet: no bars and no lines (for `--json`).
    """

    def __init__(self, settings: Settings, *, parent_run: str | None = None, quiet: bool = False) -> None:
        self.settings = settings
        self.space = Workspace(root=settings.root)
        self.parent_run = parent_run
        self._quiet = quiet
        self._models: dict[tuple[ModelParams, int | None], LanguageModel] = {}

    # ── clients ─────────────────────────────────────────────────────────────

    def model(self, params: ModelParams) -> LanguageModel:
        """The language model, loaded once."""
        from saeops.adapters.models import load_model

        if (params, None) not in self._models:
            self._models[params, None] = load_model(self._here(params), self.settings.cache, self._say)
        return self._models[params, None]

    def random_model(self, params: Params) -> LanguageModel:
        """A copy of the language model with weights that the seed draws, made once."""
        from saeops.adapters.models import load_random_model

        key = params.model, params.seed
        if key not in self._models:
            model, cache = self._here(params.model), self.settings.cache
            self._models[key] = load_random_model(model, cache, self._say, seed=params.seed)
        return self._models[key]

    def _here(self, params: ModelParams) -> ModelParams:
        return params.model_copy(update={"ref": self._located(params.ref)})

    def corpus(self, params: CorpusParams) -> Corpus:
        from saeops.adapters.corpora import open_corpus

        path = None if params.path is None else self._located(params.path)
        return open_corpus(params.model_copy(update={"path": path}))

    def llm(self, params: Params) -> Llm | None:
        """The labelling LLM, or None where params want none."""
        if params.label.llm_latents == 0:
            return None
        from saeops.adapters.llm import InProcess, OpenAiCompatible

        config = params.label.llm
        if config.backend == "openai":
            return OpenAiCompatible(config, api_key=self.settings.llm_api_key)
        return InProcess(self.model(params.model if config.model == "same" else ModelParams(ref=config.model)))

    @cached_property
    def store(self) -> ObjectStore:
        """The registry's object store."""
        from saeops.adapters.stores import open_store

        return open_store(self.settings.store)

    @cached_property
    def ledger(self) -> ReviewLedger:
        from saeops.adapters.ledger import SqlLedger

        return SqlLedger(self.settings.ledger)

    @cached_property
    def tracker(self) -> "MlflowTracker | NullTracker":
        from saeops.adapters.mlflow import MlflowTracker, NullTracker

        if self.settings.tracking == "none":
            return NullTracker()
        return MlflowTracker(self.settings.tracking, EXPERIMENT, artifacts=self._mlflow_artifacts)

    @cached_property
    def projection(self) -> RegistryProjection:
        from saeops.adapters.projection import MlflowProjection, NoProjection

        if self.settings.tracking == "none":
            return NoProjection()
        return MlflowProjection(self.settings.tracking, EXPERIMENT, artifacts=self._mlflow_artifacts)

    @cached_property
    def data_versions(self) -> DataVersions:
        from saeops.adapters.dvc import DvcCli

        return DvcCli(self.settings.root)

    @cached_property
    def sources(self) -> Sources:
        from saeops.adapters.git import GitCli

        return GitCli(self.settings.root)

    @property
    def _mlflow_artifacts(self) -> Path:
        return self.settings.var / "mlartifacts"

    def _located(self, path: str) -> str:
        """A relative path that exists under the checkout, made absolute; anything else as it is."""
        inside = self.settings.root / path
        return str(inside) if inside.exists() else path

    # ── stages ──────────────────────────────────────────────────────────────

    def harvest(self, params: Params) -> Ref:
        from saeops.stages import harvest

        with self._watching("harvest", params) as watch:
            model, corpus = self.model(params.model), self.corpus(params.corpus)
            return harvest.run(params, self.space, model=model, corpus=corpus, watch=watch)

    def train(self, params: Params) -> Ref:
        from saeops.stages import train

        with self._watching("train", params) as watch:
            self._ready_kernels(watch)
            return train.run(params, self.space, watch=watch, find_sae=self._sae_folder)

    def _sae_folder(self, digest: str) -> Path:
        """The SAE of a bundle in the registry, verified, in the local cache."""
        from saeops.stages import load

        return load.find(digest, store=self.store, cache=self.settings.cache).path / "sae"

    def controls(self, params: Params) -> Ref:
        from saeops.stages import controls

        with self._watching("controls", params) as watch:
            self._ready_kernels(watch)
            model = partial(self.random_model, params)
            return controls.run(params, self.space, random_model=model, watch=watch)

    def sweep(self, params: Params) -> Ref:
        from saeops.stages import sweep

        with self._watching("sweep", params, section="train") as watch:
            self._ready_kernels(watch)
            return sweep.run(params, self.space, watch=watch)

    def _ready_kernels(self, watch: Watch) -> None:
        """Compiled kernels for this machine's CPU, or a word about why there are none."""
        from saeops.sae.native import library
        from saeops.sae.native.build import NotBuilt

        found = library.enable(self.settings.cache / "kernels")
        if isinstance(found, NotBuilt):
            watch.say(f"kernels: in plain torch, which is slower on a CPU ({found.reason}; see `saeops doctor`)")

    def diagnose(self, params: Params) -> "Diagnosed":
        from saeops.stages import diagnose

        with self._watching("diagnose", params) as watch:
            self._ready_kernels(watch)
            random_model = partial(self.random_model, params)
            return diagnose.run(
                params, self.space, model=self.model(params.model), random_model=random_model, watch=watch
            )

    def label(self, params: Params, *, carry_from: str | None = None, activations: Sequence[Path] = ()) -> Ref:
        """Labels; with `carry_from`, those of the dictionary it means come first, as far as they stand.

        Args:
            activations: folders of further activation sets, of the old dictionary's model.
        """
        from saeops.stages import carry, label, load

        old = None if carry_from is None else load.find(carry_from, store=self.store, cache=self.settings.cache)
        with self._watching("label", params) as watch:
            self._ready_kernels(watch)
            model, llm = self.model(params.model), self.llm(params)
            carrying = None
            if old is not None:
                sets = self._activation_sets(activations)
                carrying = carry.run(old, params, self.space, activations=sets, watch=watch)
            return label.run(params, self.space, model=model, llm=llm, watch=watch, carrying=carrying)

    def bench(self, params: Params) -> Ref:
        from saeops.stages import bench

        with self._watching("bench", params) as watch:
            self._ready_kernels(watch)
            return bench.run(params, self.space, model=self.model(params.model), watch=watch)

    def bundle(self, params: Params) -> Ref:
        from saeops.stages import bundle

        with self._watching("bundle", params) as watch:
            return bundle.run(params, self.space, watch=watch)

    def import_sae(
        self,
        params: Params,
        folder: Path,
        *,
        format: "Format | None",
        site: str | None = None,
        target_site: str | None = None,
        force: bool = False,
    ) -> Ref:
        """Another library's SAE in the place of a trained one."""
        from saeops.stages import foreign

        with self._watching("import", params) as watch:
            return foreign.import_sae(
                folder, self.space, format=format, site=site, target_site=target_site, force=force, watch=watch
            )

    def export_sae(self, format: "Format", *, to: Path | None, reference: str | None, force: bool) -> "Exported":
        """The local SAE, or that of a dictionary that `reference` means, as another library keeps it."""
        from saeops.sae.canonical import Sae
        from saeops.sealed import verify
        from saeops.stages import foreign, load

        if reference is None:
            verify(self.space.sae, kind="sae", made_by="saeops train")
            sae = Sae.load(self.space.sae)
        else:
            sae = load.run(reference, store=self.store, cache=self.settings.cache).sae
        folder = to or self.settings.root / "artifacts" / "export" / format
        return foreign.export_sae(sae, folder, format=format, force=force)

    def export_results(self, *, to: Path | None, reference: str | None, force: bool) -> "Exported":
        """The built bundle's diagnostics, or those of the one that `reference` means, as SAEBench keeps them."""
        from saeops.dictionary.bundle import open_bundle
        from saeops.stages import load, saebench

        if reference is None:
            bundle = open_bundle(self.space.bundle)
        else:
            bundle = load.find(reference, store=self.store, cache=self.settings.cache)
        folder = to or self.settings.root / "artifacts" / "export" / "saebench"
        return saebench.run(bundle, folder, force=force, epoch_millis=int(_now().timestamp() * 1000))

    @contextmanager
    def _watching(self, stage: str, params: Params, *, section: str | None = None) -> Iterator[Watch]:
        """One stage at a time in a checkout, watched on the terminal and in the tracker.

        Args:
            section: of params, where it is not called as the stage is.
        """
        from rich.console import Console

        from saeops.adapters.watch import TerminalWatch

        section = section or stage
        chosen = params.model_dump(mode="json").get(section, {})
        with (
            self._alone(stage),
            self.tracker.run(
                stage,
                parent=self.parent_run,
                params={"name": params.name, "seed": params.seed, section: chosen},
                inputs=self._made(),
                tags={"saeops.name": params.name, "saeops.params": params.digest()},
            ) as run,
        ):
            yield TerminalWatch(run, Console(stderr=True, quiet=self._quiet))

    def _made(self) -> Mapping[str, str]:
        """kind → digest of what earlier stages left behind, for the tracker."""
        from saeops.errors import SaeopsError
        from saeops.sealed import open_sealed

        made = {}
        for kind in ("activations", "sae", "controls", "diagnostics", "catalog", "labels", "effects", "bundle"):
            with contextlib.suppress(SaeopsError):
                made[kind] = open_sealed(getattr(self.space, kind), kind=kind).digest
        return made

    @contextmanager
    def _alone(self, stage: str) -> Iterator[None]:
        """Hold the checkout's lock; the kernel gives it back when the process dies."""
        path = self.settings.root / "artifacts" / ".lock"
        with explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("a+")
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._say(f"{stage}: another saeops process works in this checkout; waiting for it")
                fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _say(self, text: str) -> None:
        if not self._quiet:
            from rich.console import Console

            Console(stderr=True).print(text, highlight=False)

    # ── people ──────────────────────────────────────────────────────────────

    def review(self, params: Params) -> "Review":
        """The queue of the built bundle, with what was decided so far."""
        from saeops.stages import review

        model = self.model(params.model)
        return review.queue(self.space.bundle, self.ledger, texts=model.tokens)

    def decide(self, latent: int, verdict: str, *, reason: str = "", text: str | None = None) -> "LedgerEntry":
        """Record one decision by the person in settings."""
        from saeops.stages import review

        return review.decide(
            self.space.bundle,
            self.ledger,
            latent=latent,
            verdict=verdict,
            reviewer=self.settings.reviewer,
            now=_now(),
            reason=reason,
            text=text,
        )

    def report(self, params: Params) -> Path:
        """The page, with the verdict and the review as they stand."""
        from saeops.stages import promote, report, review

        beside = promote.other_champion(self._reviewed_bundle(), store=self.store, cache=self.settings.cache)
        with self._watching("report", params) as watch:
            return report.run(
                params,
                self.space,
                model_tokens=self.model(params.model).tokens,
                verdict=self.judge(params),
                review=review.outcome(self.space.bundle, self.ledger),
                watch=watch,
                champion=beside,
            )

    def summary(self, params: Params) -> "RenderableType":
        """One screenful: what was made, how good it is, the verdict, what to type next."""
        from saeops.stages import report, review

        outcome = review.outcome(self.space.bundle, self.ledger)
        return report.summary(params, self.space, verdict=self.judge(params), review=outcome)

    def inspect(
        self, params: Params, text: str, *, reference: str | None = None, min_confidence: float | None = None
    ) -> "Inspected":
        """A text through the champion, or through the dictionary that `reference` means, token by token."""
        from saeops.stages import inspect, load

        meant = reference or f"{params.name}@champion"
        dictionary = load.run(meant, store=self.store, cache=self.settings.cache)
        model = self.model(params.model)
        return inspect.run(text, dictionary=dictionary, model=model, min_confidence=min_confidence)

    def finetune_demo(self, params: Params, to: Path, *, kind: str, steps: int, lr: float) -> "Finetuned":
        """A new version of the model, fine-tuned on documents of one kind that were not harvested."""
        from saeops.activations.reader import ActivationSet
        from saeops.adapters.finetune import Recipe, finetune, of_one_kind
        from saeops.adapters.model_source import resolve_model

        seen = set(ActivationSet.open(self.space.activations).documents["sha256"])
        recipe = Recipe(steps=steps, lr=lr, seed=params.seed)
        documents = of_one_kind(
            self.corpus(params.corpus).documents(), kind, seen=seen, limit=recipe.batch_windows * steps
        )
        with self._watching("finetune-demo", params) as watch:
            folder = resolve_model(self._here(params.model), self.settings.cache, self._say)
            return finetune(folder, documents, self.settings.root / to, recipe, watch=watch)

    def compare(self, first: str, second: str) -> "Comparison":
        """Two dictionaries side by side; needs the store, or nothing where both are folders."""
        from saeops.stages import compare

        return compare.run(first, second, store=self.store, cache=self.settings.cache)

    def match(self, params: Params, first: str, second: str, *, activations: Sequence[Path] = ()) -> "Shown":
        """Two dictionaries latent by latent; needs the store, or nothing where both are folders.

        Args:
            activations: folders of activation sets; the checkout's own is looked at last.
        """
        from saeops.stages import match, matchable

        sides = matchable.open_sides(first, second, store=self.store, cache=self.settings.cache)
        sets = self._activation_sets(activations)
        with self._watching("match", params) as watch:
            self._ready_kernels(watch)
            done = match.run(*sides, params, self.space, activations=sets, watch=watch)
        return matchable.Shown.of(done.ref, *sides, seconds=done.seconds)

    def _activation_sets(self, folders: Sequence[Path]) -> "list[ActivationSet]":
        """Those named, and the checkout's own where there is one."""
        from saeops.activations.reader import ActivationSet
        from saeops.sealed import MANIFEST

        own = self.space.activations
        return [ActivationSet.open(each) for each in (*folders, *([own] if (own / MANIFEST).exists() else []))]

    # ── when the model changes ──────────────────────────────────────────────

    def situation(self, name: str) -> "Situation":
        """State of a name, by this checkout's policy; by the default one where its params cannot be read."""
        from saeops.stages import state

        return state.where(self.store, name, self._policy(), _now())

    def next_action(self, params: Params, *, holder: str | None = None) -> "Action":
        """What the policy wants done about the dictionary, on behalf of a holder of retrains."""
        from saeops.stages import state

        return state.next_action(self.store, params.name, params.retrain, _now(), holder=holder)

    def roll_back(self, params: Params, action: "RollBackNow") -> "Moved | None":
        """The rollback that the policy wants; None where the champion is another one by now."""
        from saeops.stages import state
        from saeops.stages.walk import Registry, Untold

        alone = Registry(store=self.store, projection=Untold())
        return state.roll_back(alone, params.name, action, self.author())

    def take_retraining(self, params: Params, wanted: "Wanted") -> "Taking":
        """Ask for the lease that a retrain holds."""
        from saeops.stages import retraining

        return retraining.acquire(self.store, wanted, params.retrain, _now())

    def retraining_kept_alive(self, params: Params, run: "Retraining") -> "AbstractContextManager[Beating]":
        """Show signs of life of a retrain while a block works."""
        from saeops.stages import retraining

        # A third of the lease: it outlives one beat that is lost, and one more.
        every_s = params.retrain.lease_minutes * 60 / 3
        return retraining.kept_alive(self.store, run, every_s=every_s, clock=_now)

    def finish_retraining(
        self, run: "Retraining", *, candidate: str, verdict: "Verdict | None" = None
    ) -> "Retraining":
        """End a retrain that made a candidate."""
        from saeops.stages import retraining

        return retraining.finish(self.store, run, _now(), candidate=candidate, verdict=verdict)

    def fail_retraining(self, run: "Retraining", *, note: str) -> "Retraining":
        """End a retrain that cannot be made."""
        from saeops.stages import retraining

        return retraining.fail(self.store, run, _now(), note=note)

    def note_verdict(self, params: Params, candidate: str, verdict: "Verdict") -> None:
        """Keep what the judge said of a retrained candidate, once people had decided on it."""
        from saeops.stages import retraining

        retraining.note_verdict(self.store, params.name, candidate, verdict, _now())

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
        return gauges.gather(self.store, chosen, self._policy(), _now(), backlog=self._backlog())

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

    # ── the registry ────────────────────────────────────────────────────────

    @cached_property
    def registry(self) -> "Registry":
        """Store and projection together, as promotions and rollbacks need them."""
        from saeops.stages.walk import Registry

        return Registry(store=self.store, projection=self.projection)

    def author(self) -> "Author":
        """The person in settings, now, under a new operation id."""
        from saeops.promotion.protocol import Author

        return Author(who=self.settings.reviewer, now=_now(), operation=uuid.uuid4().hex)

    def judge(self, params: Params) -> "Verdict":
        """The verdict on the built bundle with the decisions on it, beside the champion."""
        from saeops.stages import promote

        bundle, policy = self._reviewed_bundle(), params.promote
        return promote.judge_bundle(
            bundle, store=self.store, cache=self.settings.cache, policy=policy, beside=self.space.beside
        )

    def beside(self, params: Params) -> Ref | None:
        """The champion measured on the built dictionary's model; None where its own figures are of that model."""
        from saeops.dictionary.bundle import open_bundle
        from saeops.stages import beside, promote

        built = self._reviewed_bundle()
        folder = promote.other_champion(built, store=self.store, cache=self.settings.cache)
        if folder is None or not beside.wanted(open_bundle(built), champion := open_bundle(folder)):
            return None
        with self._watching("beside", params, section="diagnose") as watch:
            self._ready_kernels(watch)
            return beside.run(champion, params, self.space, model=self.model(params.model), watch=watch)

    def promote(self, params: Params, *, force: bool = False, reason: str = "", dry_run: bool = False) -> "Moved":
        """Judge the built bundle with the decisions on it, and make it champion."""
        from saeops.adapters.git import head
        from saeops.stages import promote

        verdict = self.judge(params)
        if not dry_run and (force or verdict.outcome == "pass"):
            self.keep_recipe()
        return promote.run(
            self._reviewed_bundle(),
            verdict,
            registry=self.registry,
            author=self.author(),
            reason=reason,
            force=force,
            git_commit=head(self.settings.root),
            dry_run=dry_run,
        )

    def keep_recipe(self) -> bool:
        """Keep what it takes to build the candidate again; says why where that cannot be done."""
        from saeops.dictionary.bundle import open_bundle
        from saeops.errors import SaeopsError
        from saeops.stages import recipes

        try:
            bundle = open_bundle(self._reviewed_bundle())
            recipes.keep(
                self.store, bundle, root=self.settings.root, sources=self.sources, data=self.data_versions
            )
        except SaeopsError as error:
            # A version that cannot be built again can still be promoted and rolled back.
            self._say(f"no recipe was kept, so `saeops checkout` will not restore this version: {error}")
            return False
        return True

    def checkout(self, reference: str, *, into: Path | None) -> "CheckedOut":
        """Params, lock and data of a promoted version in a worktree of their own."""
        from saeops.stages import checkout

        found = checkout.find(reference, store=self.store)
        folder = into or self.settings.var / "checkouts" / found.bundle[:12]
        return checkout.run(found, folder=folder.resolve(), sources=self.sources, data=self.data_versions)

    def rollback(self, name: str, *, to: str = "previous", reason: str = "", dry_run: bool = False) -> "Moved":
        """Go back; needs the store and nothing else. The tracker is told by `saeops reconcile`."""
        from saeops.stages import rollback
        from saeops.stages.walk import Registry, Untold

        alone = Registry(store=self.store, projection=Untold())
        return rollback.run(name, to=to, registry=alone, author=self.author(), reason=reason, dry_run=dry_run)

    def reconcile(self, name: str, *, dry_run: bool = False) -> "Reconciled":
        """Bring MLflow's versions, aliases and tags in line with the store; what was done."""
        from saeops.stages import reconcile

        cache, author = self.settings.cache, self.author()
        return reconcile.run(self.registry, name, cache=cache, author=author, dry_run=dry_run)

    def announce(self, params: Params, bundle: Ref) -> None:
        """Show a built bundle in MLflow under the alias `candidate`, for people to find."""
        from saeops.stages import projecting

        projecting.announce(
            self.store, self.projection, params.name, bundle.digest, bundle.path, params=params.digest()
        )

    def candidate(self) -> Ref:
        """What would be promoted now: the built bundle with the decisions on it."""
        from saeops.sealed import open_sealed

        return Ref.of(open_sealed(self._reviewed_bundle(), kind="bundle"))

    def _reviewed_bundle(self) -> Path:
        """The built bundle, or, where people decided on it, the bundle with their decisions sealed in."""
        from saeops.dictionary.bundle import seal_reviews
        from saeops.sealed import open_sealed

        candidate = open_sealed(self.space.bundle, kind="bundle", made_by="saeops bundle")
        entries = self.ledger.entries()
        if not any(entry.decision.bundle == candidate.digest for entry in entries):
            return self.space.bundle
        return seal_reviews(self.space.bundle, entries, self.space.reviewed).path


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
