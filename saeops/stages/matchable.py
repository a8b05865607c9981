"""Dictionaries as matching sees them: bundles by reference, or what a checkout has made so far."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool

from saeops.activations.reader import ActivationSet
from saeops.catalog import schema as catalog_schema
from saeops.dictionary.bundle import Bundle
from saeops.drift.matching.kinds import KINDS, Kind
from saeops.drift.matching.schema import KIND, METRICS_FILE, TABLE, MatchTable
from saeops.errors import SaeopsError
from saeops.metrics import read_metrics
from saeops.params import Params
from saeops.ports import ObjectStore
from saeops.refs import Ref, Workspace
from saeops.sae.canonical import Sae
from saeops.sealed import open_sealed
from saeops.stages.controls import KIND as CONTROLS
from saeops.stages.load import find
from saeops.stats import Interval
from saeops.tables import read_table

Array = np.ndarray
EACH = 3
"""Latents of every kind that are shown."""


@dataclass(frozen=True)
class Matchable:
    """A dictionary as matching sees it."""

    called: str
    """`name digest`."""
    digest: str
    sae: Sae
    living_F: Bool[Array, " F"]
    """Fires on the documents that explain."""
    model: str
    """Digest of the language model."""
    controls: str
    """Digest of the controls it was built beside."""
    labels: Mapping[int, str]
    """Latent → the chosen label's text."""

    @classmethod
    def of(cls, bundle: Bundle) -> "Matchable":
        """A verified bundle."""
        latents, labels = bundle.latents(), bundle.labels()
        sae = Sae.load(bundle.path / "sae")
        named = labels[labels["chosen"] & labels["text"].notna()]
        provenance = bundle.provenance
        return cls(
            called=f"{provenance.name} {bundle.digest[:12]}",
            digest=bundle.digest,
            sae=sae,
            living_F=_living(latents, sae.meta.d_sae),
            model=str(provenance.model["digest"]),
            controls=provenance.upstream.get("controls", ""),
            labels=dict(zip(named["latent"].astype(int).tolist(), named["text"].tolist(), strict=True)),
        )

    @classmethod
    def of_workspace(cls, params: Params, space: Workspace) -> "Matchable":
        """What stages have left in a checkout so far, before there are labels or a bundle.

        Raises:
            StageMissing: nothing was trained, or not catalogued.
        """
        trained = open_sealed(space.sae, kind="sae", made_by="saeops train")
        open_sealed(space.catalog, kind=catalog_schema.KIND, made_by="saeops diagnose")
        sae = Sae.load(space.sae)
        latents = pd.read_parquet(space.catalog / catalog_schema.LATENTS, columns=["latent", "density"])
        model = ActivationSet.open(space.activations).model
        return cls(
            called=f"{params.name} {trained.digest[:12]}",
            digest=trained.digest,
            sae=sae,
            living_F=_living(latents, sae.meta.d_sae),
            model=str(model["digest"]),
            controls=controls_at(space),
            labels={},
        )


def open_sides(first: str, second: str, *, store: ObjectStore, cache: Path) -> tuple[Matchable, Matchable]:
    """Both dictionaries by reference: as `saeops.load` takes it, or a bundle's folder.

    Raises:
        NameUnknown, VersionUnknown: one of them means nothing.
        FolderDamaged, FormatUnknown: a bundle is not whole, or sealed by a newer saeops.
    """
    ours, theirs = (Matchable.of(find(reference, store=store, cache=cache)) for reference in (first, second))
    return ours, theirs


def controls_at(space: Workspace) -> str:
    """Digest of the checkout's controls; empty where there are none."""
    try:
        return open_sealed(space.controls, kind=CONTROLS).digest
    except SaeopsError:
        return ""


def _living(latents: pd.DataFrame, d_sae: int) -> Bool[Array, " F"]:
    living_F = np.zeros(d_sae, dtype=bool)
    living_F[latents.loc[latents["density"] > 0, "latent"].to_numpy()] = True
    return living_F


@dataclass(frozen=True)
class Example:
    """A latent drawn at random from its kind."""

    kind: Kind
    side: str
    latent: int
    others: tuple[int, ...]
    """Its partner, its parts, or the nearest of the other side."""
    score: float
    """With the partner, or the nearest."""
    label: str
    other_label: str
    """Of the first of the others."""


def examples(frame: pd.DataFrame, first: Matchable, second: Matchable, *, each: int, seed: int) -> list[Example]:
    """`each` latents of every kind, drawn at random; of merged ones, those that others were merged into."""
    generator, drawn = np.random.default_rng([seed, 1]), []
    for kind in KINDS:
        side = "B" if kind in ("merged", "new") else "A"
        rows = frame[(frame["side"] == side) & (frame["kind"] == kind)]
        if kind in ("split", "merged"):
            rows = rows[rows["parts"].map(len) > 0]
        chosen = np.sort(generator.permutation(len(rows))[:each])
        ours, theirs = (first, second) if side == "A" else (second, first)
        drawn += [_example(row, kind, ours, theirs) for row in rows.iloc[chosen].to_dict("records")]
    return drawn


def _example(row: Mapping[Any, Any], kind: Kind, ours: Matchable, theirs: Matchable) -> Example:
    matched = kind == "matched"
    others = tuple(int(part) for part in row["parts"]) or (int(row["partner"] if matched else row["nearest"]),)
    return Example(
        kind=kind,
        side=str(row["side"]),
        latent=int(row["latent"]),
        others=others,
        score=float(row["score"] if matched else row["nearest_score"]),
        label=ours.labels.get(int(row["latent"]), ""),
        other_label=theirs.labels.get(others[0], ""),
    )


@dataclass(frozen=True)
class Shown:
    """A matching as people read it."""

    path: Path
    summary: Mapping[str, Any]
    metrics: Mapping[str, Interval]
    examples: Sequence[Example]
    seconds: float | None
    """What matching alone took; None: it was done before, and kept."""

    @classmethod
    def of(cls, ref: Ref, first: Matchable, second: Matchable, *, seconds: float | None) -> "Shown":
        """What a finished `artifacts/match` holds; the same matching always shows the same examples."""
        frame = read_table(ref.path / TABLE, MatchTable)
        drawn = examples(frame, first, second, each=EACH, seed=int(ref.digest[:8], 16))
        summary = open_sealed(ref.path, kind=KIND).summary
        return cls(ref.path, summary, read_metrics(ref.path / METRICS_FILE), drawn, seconds)

    def to_json(self) -> dict[str, Any]:
        metrics = {name: interval.to_json() for name, interval in self.metrics.items()}
        examples = [asdict(example) for example in self.examples]
        shown = {"path": str(self.path), "metrics": metrics, "examples": examples, "seconds": self.seconds}
        return {**self.summary, **shown}
