"""The registry: judge, promote, roll back, restore, repair."""

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from saeops.params import Params
from saeops.refs import Ref
from saeops.services.clients import Clients

if TYPE_CHECKING:
    from saeops.promotion.verdict import Verdict
    from saeops.stages.checkout import CheckedOut
    from saeops.stages.reconcile import Reconciled
    from saeops.stages.walk import Moved, Registry


class Registering(Clients):
    """Verbs on champions."""

    @cached_property
    def registry(self) -> "Registry":
        """Store and projection together, as promotions and rollbacks need them."""
        from saeops.stages.walk import Registry

        return Registry(store=self.store, projection=self.projection)

    def candidate(self) -> Ref:
        """What would be promoted now: the built bundle with the decisions on it."""
        from saeops.sealed import open_sealed

        return Ref.of(open_sealed(self._reviewed_bundle(), kind="bundle"))

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
