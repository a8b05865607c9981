"""A loaded dictionary: what consumers get from `saeops.load`."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from saeops.activations.sites import Sites
from saeops.dictionary.bundle import Bundle
from saeops.dictionary.provenance import Provenance
from saeops.metrics import read_metrics
from saeops.review.outcome import apply_decisions, decisions_on
from saeops.sae.canonical import Sae
from saeops.sae.codes import Codes
from saeops.stats import Interval


@dataclass(frozen=True)
class Feature:
    """A latent with a label that stands."""

    latent: int
    label: str
    """The labeller's text, or the reviewer's where it was edited."""
    confidence: float
    """Lower bound of Youden's J of the labeller's text, in [0, 1]."""
    density: float
    """Share of explain-split tokens on which it fires."""
    max_activation: float
    """On the explain split, in the units of the activations."""
    labeller: str
    """`pattern` or `llm:<name>`."""
    reviewed: Literal["accept", "edit"] | None
    """What a reviewer said; None where nobody looked."""


class Dictionary:
    """A verified bundle, ready to use.

    Args:
        refresh: looks whether the reference it was loaded by means another bundle now; None: it cannot.
    """

    def __init__(self, bundle: Bundle, *, refresh: "Callable[[], Dictionary | None] | None" = None) -> None:
        self._bundle = bundle
        self._refresh = refresh

    def __repr__(self) -> str:
        return f"Dictionary({self.name!r}, digest={self.digest[:12]!r}, latents={self.sae.meta.d_sae})"

    @property
    def name(self) -> str:
        return self.provenance.name

    @property
    def digest(self) -> str:
        return self._bundle.digest

    def refresh(self) -> "Dictionary | None":
        """The dictionary that its reference means since a promotion or rollback; None: nothing changed.

        Costs one get of the name's pointer, so it can be asked often. This one stays usable either way:
        `dictionary = dictionary.refresh() or dictionary`. A sequence number, a digest and a folder always mean
        the same.

        Raises:
            StoreUnreachable: the store is away.
        """
        return None if self._refresh is None else self._refresh()

    @property
    def provenance(self) -> Provenance:
        """What it was made from."""
        return self._bundle.provenance

    @cached_property
    def sae(self) -> Sae:
        """The weights."""
        return Sae.load(self._bundle.path / "sae")

    @cached_property
    def metrics(self) -> dict[str, Interval]:
        """Its diagnostics on held-out documents."""
        return read_metrics(self._bundle.path / "diagnostics" / "metrics.json")

    @property
    def sites(self) -> Sites:
        """Where it reads, and where what it decodes to belongs: one site, unless it is a transcoder."""
        return self.sae.meta.sites

    def encode(self, x_TD: Float[Tensor, "token d_model"]) -> Codes:
        """The latents that fire on each token's activation at `sites.input`."""
        return self.sae.encode(x_TD)

    def decode(self, codes: Codes) -> Float[Tensor, "token d_out"]:
        """The activations at `sites.target` that the codes stand for."""
        return self.sae.decode(codes)

    @property
    def trusted_confidence(self) -> float:
        """From which confidence on a feature is trusted, by the policy it was built under."""
        return float(self.provenance.params["promote"]["trusted_confidence"])

    def features(self, min_confidence: float | None = None) -> list[Feature]:
        """Labelled latents by falling confidence; rejected labels are left out.

        Args:
            min_confidence: None takes the `promote.trusted_confidence` it was built under.
        """
        least = self.trusted_confidence if min_confidence is None else min_confidence
        return [feature for feature in self._features if feature.confidence >= least]

    @cached_property
    def _features(self) -> list[Feature]:
        entries, candidate = self._bundle.reviews(), self._bundle.candidate
        decisions = decisions_on(entries, candidate)
        labels = self._bundle.labels()
        chosen = labels[labels["chosen"] & labels["text"].notna()]
        standing = apply_decisions(chosen, entries, bundle=candidate)
        rows = standing.merge(self._bundle.latents()[["latent", "density", "max_activation"]], on="latent")
        features = []
        for row in rows.to_dict("records"):
            decision = decisions.get((int(row["latent"]), str(row["version"])))
            features.append(
                Feature(
                    latent=int(row["latent"]),
                    label=str(row["text"]),
                    confidence=float(row["confidence"]),
                    density=float(row["density"]),
                    max_activation=float(row["max_activation"]),
                    labeller=str(row["labeller"]),
                    reviewed=decision.verdict if decision else None,  # type: ignore[arg-type]
                )
            )
        return sorted(features, key=lambda feature: (-feature.confidence, feature.latent))
