"""Labels of an older dictionary, tested on the latents of this one: which of them stand."""

from collections.abc import Collection, Mapping
from typing import Any

import pandas as pd

from saeops.drift.matching.carried import carried_frame
from saeops.drift.matching.carry import Carried, Dropped, Offer, Settled, carried_row, settle
from saeops.labelling.labels import Label, Labeller
from saeops.labelling.material import Material
from saeops.labelling.progress import Progress, Sanity
from saeops.labelling.schema import label_row
from saeops.labelling.scoring import Score, score
from saeops.params import Params
from saeops.ports import Watch
from saeops.stages.carry import Carrying


class CarriedLabels:
    """Every old label's fate. What a killed run has tested is not tested again.

    Args:
        judges: labeller → itself, and the times as many snippets as params say that it judges.
        fresh: labeller → latents that it would label anew, whose labels compete with those carried over.
    """

    def __init__(
        self,
        carrying: Carrying,
        material: Material,
        judges: Mapping[str, tuple[Labeller, int]],
        fresh: Mapping[str, Collection[int]],
        progress: Progress,
        params: Params,
        watch: Watch,
    ) -> None:
        self._carrying, self._material, self._judges, self._fresh = carrying, material, judges, fresh
        self._progress, self._params = progress, params
        self._scores: dict[int, Score] = {}
        self.settled: list[Settled] = list(carrying.dropped)
        with watch.bar("carry over", len(carrying.offers), "labels") as bar:
            for offer in carrying.offers:
                self.settled.append(self._settle(offer))
                bar.advance(1)
        self.standing: dict[int, Label] = {
            each.offer.latent: each.offer.old.label for each in self.settled if isinstance(each, Carried)
        }
        self.fallen: tuple[int, ...] = tuple(
            each.offer.latent for each in self.settled if isinstance(each, Dropped) and each.offer is not None
        )
        """Latents whose old label was dropped: they are labelled anew, so that a person has something to judge."""

    def _settle(self, offer: Offer) -> Settled:
        tested = self._tested(offer)
        if tested is not None:
            self._scores[offer.latent] = tested
        return settle(offer, None if tested is None else tested.confidence, self._params.match.carry)

    def _tested(self, offer: Offer) -> Score | None:
        """The label on the new latent's snippets, by a judge of its own kind; None: it cannot be tested."""
        label, latent, least = offer.old.label, offer.latent, self._params.label.min_positives
        if label.labeller not in self._judges:
            return None
        judge, factor = self._judges[label.labeller]
        test = self._material.test_set(latent, factor=factor)
        if sum(snippet.fires for snippet in test.snippets) < least:
            return None
        key = f"carried {label.labeller}", latent, offer.old.latent
        if key not in self._progress.verdicts:
            verdicts = judge.detect(label, test.snippets)
            Sanity(judge, self._progress).saw(verdicts)
            self._progress.add_verdicts(*key, verdicts)
        competing = 1 + sum(latent in latents for latents in self._fresh.values())
        return score(self._progress.verdicts[key], test, competing=competing, min_positives=least)

    def rows(self, fresh: Collection[tuple[int, str]]) -> list[dict[str, Any]]:
        """Rows of the label table for the labels that stand.

        Args:
            fresh: (latent, version) of labels made anew: what was found again, word for word, needs no second row.
        """
        rows = []
        for each in self.settled:
            if not isinstance(each, Carried) or (each.offer.latent, each.offer.old.label.version) in fresh:
                continue
            label, latent = each.offer.old.label, each.offer.latent
            row = label_row(latent, label.labeller, label, self._scores[latent])
            rows.append({**row, "confidence": each.confidence})
        return rows

    def table(self) -> pd.DataFrame:
        """What became of every old label (CarriedTable)."""
        bundle, trusted = self._carrying.bundle, self._params.promote.trusted_confidence
        return carried_frame([carried_row(each, bundle=bundle, trusted=trusted) for each in self.settled])

    def summary(self) -> dict[str, Any]:
        return {"from": self._carrying.bundle, "labels": len(self.settled), "kept": len(self.standing)}
