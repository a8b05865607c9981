"""Clients: everything a stage needs from the world, built once and on demand."""

import contextlib
import datetime
import fcntl
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from saeops.files import explained
from saeops.params import CorpusParams, ModelParams, Params
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
from saeops.refs import Workspace
from saeops.settings import Settings

if TYPE_CHECKING:
    from saeops.activations.reader import ActivationSet
    from saeops.adapters.mlflow import MlflowTracker, NullTracker
    from saeops.promotion.protocol import Author

EXPERIMENT = "saeops"


class Clients:
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

    def author(self) -> "Author":
        """The person in settings, now, under a new operation id."""
        from saeops.promotion.protocol import Author

        return Author(who=self.settings.reviewer, now=utc_now(), operation=uuid.uuid4().hex)

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

    def _made(self) -> Mapping[str, str]:
        """kind → digest of what earlier stages left behind, for the tracker."""
        from saeops.errors import SaeopsError
        from saeops.sealed import open_sealed

        made = {}
        for kind in ("activations", "sae", "controls", "diagnostics", "catalog", "labels", "effects", "bundle"):
            with contextlib.suppress(SaeopsError):
                made[kind] = open_sealed(getattr(self.space, kind), kind=kind).digest
        return made

    def _say(self, text: str) -> None:
        if not self._quiet:
            from rich.console import Console

            Console(stderr=True).print(text, highlight=False)

    def _ready_kernels(self, watch: Watch) -> None:
        """Compiled kernels for this machine's CPU, or a word about why there are none."""
        from saeops.sae.native import library
        from saeops.sae.native.build import NotBuilt

        found = library.enable(self.settings.cache / "kernels")
        if isinstance(found, NotBuilt):
            watch.say(f"kernels: in plain torch, which is slower on a CPU ({found.reason}; see `saeops doctor`)")

    def _activation_sets(self, folders: Sequence[Path]) -> "list[ActivationSet]":
        """Those named, and the checkout's own where there is one."""
        from saeops.activations.reader import ActivationSet
        from saeops.sealed import MANIFEST

        own = self.space.activations
        return [ActivationSet.open(each) for each in (*folders, *([own] if (own / MANIFEST).exists() else []))]

    def _reviewed_bundle(self) -> Path:
        """The built bundle, or, where people decided on it, the bundle with their decisions sealed in."""
        from saeops.dictionary.bundle import seal_reviews
        from saeops.sealed import open_sealed

        candidate = open_sealed(self.space.bundle, kind="bundle", made_by="saeops bundle")
        entries = self.ledger.entries()
        if not any(entry.decision.bundle == candidate.digest for entry in entries):
            return self.space.bundle
        return seal_reviews(self.space.bundle, entries, self.space.reviewed).path

    @property
    def _mlflow_artifacts(self) -> Path:
        return self.settings.var / "mlartifacts"

    def _located(self, path: str) -> str:
        """A relative path that exists under the checkout, made absolute; anything else as it is."""
        inside = self.settings.root / path
        return str(inside) if inside.exists() else path


def utc_now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
