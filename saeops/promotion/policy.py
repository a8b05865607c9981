"""Promotion policy: which figures must reach which bound."""

from typing import Literal, Self

from pydantic import Field, model_validator

from saeops.config import Frozen


class Gate(Frozen):
    """Requirements on one metric, each judged by the bound that is hardest on the candidate."""

    metric: str
    """A metric's name in diagnostics, labels or effects, e.g. `explained_variance`."""
    at_least: float | None = None
    """The interval's lower bound must reach this."""
    at_most: float | None = None
    """The interval's upper bound must stay at or below this."""
    not_worse_than_champion_by: float | None = Field(default=None, ge=0)
    """The candidate's worst bound may trail the champion's point by this much; not judged without a champion."""

    @model_validator(mode="after")
    def _requires_something(self) -> Self:
        if (self.at_least, self.at_most, self.not_worse_than_champion_by) == (None, None, None):
            raise ValueError(
                f"the gate on {self.metric} requires nothing: give at_least, at_most or not_worse_than_champion_by"
            )
        return self


class PromotePolicy(Frozen):
    """What a candidate must show."""

    gates: tuple[Gate, ...] = ()
    """All must pass; a missing figure fails."""
    review: Literal["required", "optional"] = "required"
    """`required`: no promotion before every queued label was decided on."""
    min_review_acceptance: float = Field(default=0.5, ge=0, le=1)
    """Wilson lower bound that accepted or edited labels must reach among the reviewed random sample."""
    trusted_confidence: float = Field(default=0.3, ge=0, le=1)
    """Features at or above this confidence are trusted."""
