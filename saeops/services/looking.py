"""What people look at: reviews, the report, texts, two dictionaries side by side."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from saeops.params import Params
from saeops.services.clients import utc_now
from saeops.services.registering import Registering

if TYPE_CHECKING:
    from rich.console import RenderableType

    from saeops.adapters.finetune import Finetuned
    from saeops.dictionary.compare import Comparison
    from saeops.dictionary.inspect import Inspected
    from saeops.review.ledger import LedgerEntry
    from saeops.stages.matchable import Shown
    from saeops.stages.review import Review


class Looking(Registering):
    """Verbs that show, and take decisions."""

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
            now=utc_now(),
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
