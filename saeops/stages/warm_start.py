"""Warm starts: an earlier SAE to go on from, and whether that was better than a fresh start."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from saeops.activations.reader import ActivationSet
from saeops.diagnostics.measure import Held, measure
from saeops.diagnostics.metrics import RECONSTRUCTION
from saeops.diagnostics.ratios import Ratio
from saeops.errors import ParamsInvalid
from saeops.sae.canonical import Sae, SaeMeta
from saeops.stats import Bootstrap, Interval, UnitSums, difference_interval
from saeops.training.documents import check_unseen, read_trained

if TYPE_CHECKING:
    from saeops.ports import Watch

FindSae = Callable[[str], Path]
"""The SAE folder of the bundle with this digest, every byte verified."""
Start = Literal["warm", "fresh"]
FIGURE = "explained_variance"


@dataclass(frozen=True)
class Earlier:
    """The SAE that a run starts from."""

    digest: str
    """Of its bundle."""
    sae: Sae
    trained: pd.DataFrame | None
    """TrainedDocumentTable; None: nobody knows what it was trained on."""

    @classmethod
    def open(cls, digest: str, find: FindSae, meta: SaeMeta, acts: ActivationSet, *, watch: "Watch") -> "Earlier":
        """Find it, and see that it fits.

        Args:
            meta: what the run is to make.

        Raises:
            ParamsInvalid: it is of another variant, site or shape.
            DocumentsShared: documents that are held out here trained it.
            VersionUnknown, FolderDamaged, StoreUnreachable: there is no such bundle at hand.
        """
        folder = find(digest)
        sae = Sae.load(folder)
        _check_fits(sae.meta, meta, digest)
        trained = read_trained(folder)
        if trained is None:
            watch.say("train: the SAE to start from does not say which documents trained it: held-out may be seen")
        else:
            check_unseen(trained, acts.documents, place=acts.sealed.path)
        return cls(digest, sae, trained)

    def and_also(self, trained: pd.DataFrame) -> pd.DataFrame:
        """TrainedDocumentTable of both trainings."""
        if self.trained is None:
            return trained
        return pd.DataFrame({"sha256": sorted({*self.trained["sha256"], *trained["sha256"]})})


@dataclass(frozen=True)
class Contest:
    """Explained variance of both starts after the same tokens, on held-out documents."""

    warm: Interval
    fresh: Interval
    difference: Interval
    """warm − fresh, paired by document."""

    @property
    def kept(self) -> Start:
        """A fresh start must show that it is better: a warm one keeps what latents mean."""
        return "fresh" if self.difference.high is not None and self.difference.high < 0 else "warm"

    def to_json(self, digest: str) -> dict[str, Any]:
        """What the manifest says of it."""
        figures = {name: getattr(self, name).to_json() for name in ("warm", "fresh", "difference")}
        return {"from": digest, "kept": self.kept, FIGURE: figures}

    def __str__(self) -> str:
        return (
            f"explained variance on held-out documents {self.warm} warm, {self.fresh} fresh,"
            f" difference {self.difference}: the {self.kept} start is kept"
        )


def contest(acts: ActivationSet, saes: Mapping[Start, Sae], draw: Bootstrap, *, watch: "Watch") -> Contest:
    """Measure both on the eval split."""
    held = Held.open(acts, saes["warm"].meta.sites)
    with watch.bar("warm and fresh start, held out", len(saes) * held.tokens, "tokens") as bar:
        sums = {name: measure(held, sae, advance=bar.advance).documents for name, sae in saes.items()}
    metric = next(metric for metric in RECONSTRUCTION if metric.name == FIGURE)
    assert isinstance(metric.measure, Ratio)
    warm, fresh = (UnitSums(*metric.measure.parts(sums[name])) for name in ("warm", "fresh"))
    return Contest(
        metric.within(metric.measure(sums["warm"], draw)),
        metric.within(metric.measure(sums["fresh"], draw)),
        difference_interval(warm, fresh, resamples=draw.resamples, seed=draw.seed),
    )


def _check_fits(earlier: SaeMeta, meta: SaeMeta, digest: str) -> None:
    fields = ("variant", "site", "target_site", "d_model", "width_out", "d_sae")
    faults = [
        f"{field} {getattr(earlier, field)} where this run has {getattr(meta, field)}"
        for field in fields
        if getattr(earlier, field) != getattr(meta, field)
    ]
    if faults:
        what = f"{digest[:12]} cannot be gone on from: {'; '.join(faults)}; null starts afresh"
        raise ParamsInvalid([("train.start_from", what)])
