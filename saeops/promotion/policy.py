"""Promotion policy: which figures must reach which bound."""

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from saeops.config import Frozen

Margin = Annotated[float, Field(ge=0)]


class Gate(Frozen):
    """Requirements on one figure, each judged by the bound that is hardest on the candidate."""

    metric: str
    """A metric's name in diagnostics, labels or effects, e.g. `explained_variance`."""
    slice: Literal["position", "token_frequency"] | None = None
    """Judge the metric on a slice of the tokens instead of on all of them."""
    bucket: str | None = None
    """A bucket of the slice, e.g. `under 0.01 %`; null: each bucket that was measured."""
    at_least: float | None = None
    """The interval's lower bound must reach this."""
    at_most: float | None = None
    """The interval's upper bound must stay at or below this."""
    not_worse_than_champion_by: Margin | None = None
    """Non-inferiority: candidate − champion, paired by document where it can be, may be worse by this much at its
    worst bound; not judged without a champion."""
    beats: Mapping[str, Margin] = Field(default_factory=dict)
    """Null → by how much the figure must be better than it at the difference's worst bound, e.g. `{pca: 0.1}`."""
    dry_run: bool = False
    """Judged and shown, but not counted: to try a gate before it bites."""

    @model_validator(mode="after")
    def _requires_something(self) -> Self:
        limits = (self.at_least, self.at_most, self.not_worse_than_champion_by)
        if limits == (None, None, None) and not self.beats:
            raise ValueError(
                f"the gate on {self.metric} requires nothing: give at_least, at_most, "
                "not_worse_than_champion_by or beats"
            )
        return self

    @model_validator(mode="after")
    def _can_be_measured(self) -> Self:
        if self.bucket is not None and self.slice is None:
            raise ValueError(f"the gate on {self.metric} names a bucket and no slice")
        if self.beats and self.slice is not None:
            raise ValueError(f"the gate on {self.metric}: nulls are not measured by slice; use two gates")
        return self


class PromotePolicy(Frozen):
    """What a candidate must show."""

    gates: tuple[Gate, ...] = ()
    """All must pass; a missing figure fails."""
    family_error: float = Field(default=0.05, gt=0, lt=1)
    """Chance that any difference from champion or nulls misses its interval: shared among those that count."""
    review: Literal["required", "optional"] = "required"
    """`required`: no promotion before every queued label was decided on."""
    min_review_acceptance: float = Field(default=0.5, ge=0, le=1)
    """Wilson lower bound that accepted or edited labels must reach among the reviewed random sample."""
    trusted_confidence: float = Field(default=0.3, ge=0, le=1)
    """Features at or above this confidence are trusted."""
