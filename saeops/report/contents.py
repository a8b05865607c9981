"""A bundle's files as the report reads them: every byte checked first, no model needed."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from saeops.dictionary.bundle import open_bundle
from saeops.dictionary.provenance import Provenance
from saeops.metrics import read_nulls
from saeops.promotion.evidence import gather, queue_of
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
    diagnosed: pd.DataFrame
    """What diagnostics measured of each latent on held-out documents, indexed by number."""
    nulls: Mapping[str, Mapping[str, Interval]]
    """The same figures where there is nothing to find: null, then metric."""
    slices: pd.DataFrame
    """Figures by slices of the tokens; empty where none were taken."""
    concepts: pd.DataFrame
    """Probes of the built-in concepts; empty where none were made."""
    letters: pd.DataFrame
    """Absorption by first letter; empty where it was not measured."""
    queued: frozenset[int]
    """Latents whose labels people were asked about."""
    pictures: Mapping[str, bytes]
    """Figures that diagnostics left as PNG, by name."""

    @property
    def d_sae(self) -> int:
        return len(self.latents)


@dataclass(frozen=True)
class Champion:
    """What the bundle is compared with."""

    digest: str
    metrics: Mapping[str, Interval]


def read_contents(folder: Path) -> Contents:
    """Read a bundle.

    Raises:
        StageMissing: there is no finished bundle.
        FolderDamaged: a byte changed since it was sealed.
    """
    bundle = open_bundle(folder)
    evidence = gather(bundle)
    nulls = folder / "diagnostics" / "nulls.json"
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
        diagnosed=pd.read_parquet(folder / "diagnostics" / "latents.parquet").set_index("latent"),
        nulls=read_nulls(nulls) if nulls.exists() else {},
        slices=_table(folder / "diagnostics" / "slices.parquet"),
        concepts=_table(folder / "diagnostics" / "concepts.parquet"),
        letters=_table(folder / "diagnostics" / "letters.parquet"),
        queued=frozenset(item.latent for item in queue_of(bundle)),
        pictures={path.stem: path.read_bytes() for path in sorted((folder / "diagnostics").glob("figures/*.png"))},
    )


def read_champion(folder: Path) -> Champion:
    """The figures of the bundle that a candidate is compared with.

    Raises:
        StageMissing, FolderDamaged: as `read_contents`.
    """
    evidence = gather(open_bundle(folder))
    return Champion(evidence.bundle, {**evidence.metrics, "review_acceptance": evidence.review.acceptance})


def _table(path: Path) -> pd.DataFrame:
    return pd.read_parquet(path) if path.exists() else pd.DataFrame()
