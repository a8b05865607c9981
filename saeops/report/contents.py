"""A bundle's files as the report reads them: every byte checked first, no model needed."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from saeops.dictionary.bundle import open_bundle
from saeops.dictionary.provenance import Provenance
from saeops.promotion.evidence import gather
from saeops.review.outcome import ReviewOutcome
from saeops.sae.canonical import META, SaeMeta
from saeops.stats import Interval


@dataclass(frozen=True)
class Contents:
    """One bundle, read."""

    digest: str
    provenance: Provenance
    meta: SaeMeta
    metrics: Mapping[str, Interval]
    """Every figure of diagnostics, labels and effects, by name."""
    review: ReviewOutcome
    """By the decisions sealed into the bundle."""
    training: pd.DataFrame
    """The logged curve, a row a logged step."""
    latents: pd.DataFrame
    """The catalog's latents, all of them, indexed by number."""
    contexts: pd.DataFrame
    labels: pd.DataFrame
    effects: pd.DataFrame
    pictures: Mapping[str, bytes]
    """Figures that diagnostics left as PNG, by name."""

    @property
    def d_sae(self) -> int:
        return len(self.latents)


def read_contents(folder: Path) -> Contents:
    """Read a bundle.

    Raises:
        StageMissing: there is no finished bundle.
        FolderDamaged: a byte changed since it was sealed.
    """
    bundle = open_bundle(folder)
    evidence = gather(bundle)
    return Contents(
        digest=bundle.digest,
        provenance=bundle.provenance,
        meta=SaeMeta.model_validate_json((folder / "sae" / META).read_bytes()),
        metrics=evidence.metrics,
        review=evidence.review,
        training=pd.read_parquet(folder / "sae" / "training.parquet"),
        latents=bundle.latents().set_index("latent", drop=False),
        contexts=pd.read_parquet(folder / "catalog" / "contexts.parquet"),
        labels=bundle.labels(),
        effects=bundle.effects(),
        pictures={path.stem: path.read_bytes() for path in sorted((folder / "diagnostics").glob("figures/*.png"))},
    )
