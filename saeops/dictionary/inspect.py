"""Inspecting a text: which trusted features fire on each token, and how much fires that nobody vouches for.

# B window, W position in a window
"""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Literal

from saeops.activations.policy import TokenPolicy
from saeops.activations.windows import Window
from saeops.dictionary.handle import Feature
from saeops.sae.codes import Codes

Masked = Literal["prepended", "position", "special", "norm"]
MASKED: Mapping[Masked, str] = {
    "prepended": "put before the window, no part of the text",
    "position": "among the first positions of its window",
    "special": "a special token",
    "norm": "its activation is an outlier",
}
"""Why the token policy leaves a position out, in words."""


@dataclass(frozen=True)
class Reading:
    """One window as the model read it."""

    window: Window
    texts: Sequence[str]
    """Of each id."""
    counts: Sequence[bool]
    """Which positions the token policy counts."""
    codes: Codes
    """Of the positions that count, in order."""


@dataclass(frozen=True)
class Active:
    """A trusted feature on one token."""

    feature: Feature
    activation: float

    @property
    def share(self) -> float | None:
        """Of the latent's maximum on the explain split; above 1 where this is stronger, None where it is 0."""
        most = self.feature.max_activation
        return self.activation / most if most > 0 else None

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self.feature), "activation": self.activation, "share": self.share}


@dataclass(frozen=True)
class InspectedToken:
    """One token of the text, or one that was prepended to a window."""

    text: str
    id: int
    window: int
    """Number of its window, from 0."""
    masked: Masked | None
    """Why the token policy leaves it out; None where it counts."""
    features: tuple[Active, ...]
    """Every trusted one that fires, the strongest first."""
    fired: int
    """Latents that fire, trusted or not."""

    def to_json(self, *, top: int) -> dict[str, Any]:
        """With the `top` strongest features."""
        plain = {name: getattr(self, name) for name in ("text", "id", "window", "masked", "fired")}
        shown = [active.to_json() for active in self.features[:top]]
        return {**plain, "trusted": len(self.features), "features": shown}


@dataclass(frozen=True)
class Inspected:
    """A text, token by token."""

    name: str
    """The dictionary's."""
    digest: str
    site: str
    min_confidence: float
    """A feature is trusted from here on."""
    tokens: tuple[InspectedToken, ...]
    latents_fired: int
    """Different latents that fire anywhere in the text."""
    latents_trusted: int
    """Those of them that are trusted."""

    @property
    def firings(self) -> int:
        """Latents that fire, summed over tokens."""
        return sum(token.fired for token in self.tokens)

    @property
    def firings_trusted(self) -> int:
        return sum(len(token.features) for token in self.tokens)

    def long_tail(self) -> str:
        """What is not shown, in one sentence."""
        latents, firings = self.latents_fired - self.latents_trusted, self.firings - self.firings_trusted
        return (
            f"{self.latents_trusted:,} of the {self.latents_fired:,} latents that fire on this text are trusted. "
            f"The other {latents:,}, with {firings:,} of {self.firings:,} firings, are not shown: "
            f"they have no label, or one whose confidence is below {self.min_confidence:g}."
        )

    def to_json(self, *, top: int) -> dict[str, Any]:
        """With the `top` strongest features of each token."""
        counts = ("latents_fired", "latents_trusted", "firings", "firings_trusted")
        return {
            **{name: getattr(self, name) for name in ("name", "digest", "site", "min_confidence", *counts)},
            "tokens": [token.to_json(top=top) for token in self.tokens],
        }


def inspected(
    readings: Sequence[Reading],
    features: Sequence[Feature],
    *,
    name: str,
    digest: str,
    site: str,
    min_confidence: float,
    policy: TokenPolicy,
    special_ids: AbstractSet[int],
    bos: int | None,
) -> Inspected:
    """Each token with its trusted features.

    Args:
        readings: windows of one text, in order.
        features: the trusted ones.
    """
    trusted = {feature.latent: feature for feature in features}
    fired = {int(latent) for reading in readings for latent in reading.codes.latent}
    tokens: list[InspectedToken] = []
    for number, reading in enumerate(readings):
        rows = iter(_rows(reading.codes))
        for at, (index, text) in enumerate(zip(reading.window.ids, reading.texts, strict=True)):
            masked = None if reading.counts[at] else _why_masked(at, index, policy, special_ids, bos=bos)
            row = next(rows) if masked is None else {}
            active = [Active(trusted[latent], value) for latent, value in row.items() if latent in trusted]
            active.sort(key=lambda one: (-one.activation, one.feature.latent))
            tokens.append(InspectedToken(text, index, number, masked, tuple(active), len(row)))
    return Inspected(name, digest, site, min_confidence, tuple(tokens), len(fired), len(fired & trusted.keys()))


def _rows(codes: Codes) -> list[dict[int, float]]:
    """latent → activation of each token."""
    offsets, latent, value = codes.offsets.tolist(), codes.latent.tolist(), codes.value.tolist()
    return [dict(zip(latent[start:stop], value[start:stop], strict=True)) for start, stop in pairwise(offsets)]


def _why_masked(
    at: int, index: int, policy: TokenPolicy, special_ids: AbstractSet[int], *, bos: int | None
) -> Masked:
    """Why a position that does not count does not; what is known before the forward pass comes first."""
    if bos is not None and at == 0:
        return "prepended"
    if at < policy.skip_positions:
        return "position"
    if policy.mask_special and index in special_ids:
        return "special"
    return "norm"
