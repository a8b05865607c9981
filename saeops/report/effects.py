"""What interventions on a latent did, beside random directions of equal norm."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from saeops.report.contents import Contents
from saeops.report.figures import Chart, Dose, dose_response
from saeops.report.rows import title_of
from saeops.report.sampling import chosen_labels
from saeops.stats import Interval


@dataclass(frozen=True)
class EffectView:
    """One intervention, and the same with random directions."""

    what: str
    metric: str
    effect: Interval
    control: Interval
    difference: Interval


@dataclass(frozen=True)
class Bench:
    """One tested latent."""

    latent: int
    drawn: str
    """Why it was tested."""
    label: str
    chart: Chart | None
    effects: tuple[EffectView, ...]


Y_LABEL = "Δ log-prob of its own tokens, nats"
DRAWN = {"confidence": "among the best labelled", "random": "drawn at random"}


def benches(contents: Contents) -> tuple[Bench, ...]:
    """Every tested latent: those drawn at random first."""
    labels = chosen_labels(contents.labels).set_index("latent")["text"].dropna().to_dict()
    tested = contents.effects[["latent", "drawn"]].drop_duplicates("latent")
    return tuple(
        Bench(
            latent,
            DRAWN[drawn],
            str(labels.get(latent, "not labelled")),
            dose_response(_doses(contents.effects, latent), title=f"#{latent}", y_label=Y_LABEL),
            effect_views(contents.effects, latent),
        )
        for drawn in ("random", "confidence")
        for latent in tested.loc[tested["drawn"] == drawn, "latent"].sort_values().astype(int)
    )


def steering(effects: pd.DataFrame) -> "pd.Series[float]":
    """By latent, how far the strongest steering moves its own tokens beyond what random directions do, in nats."""
    is_dose = (effects["kind"] == "steer") & (effects["metric"] == "target_logprob")
    strongest = effects[is_dose].sort_values("strength").groupby("latent").tail(1)
    return strongest.set_index("latent")["difference_point"]


def effect_views(effects: pd.DataFrame, latent: int) -> tuple[EffectView, ...]:
    """What was measured on one latent, in the table's order."""
    return tuple(_view(record) for record in effects[effects["latent"] == latent].to_dict("records"))


def finite(value: Any) -> float | None:
    """A bound as a table holds it: None where there is none."""
    return None if pd.isna(value) else float(value)


def _doses(effects: pd.DataFrame, latent: int) -> list[Dose]:
    is_dose = (effects["kind"] == "steer") & (effects["metric"] == "target_logprob") & (effects["strength"] > 0)
    rows = effects[is_dose & (effects["latent"] == latent)].sort_values("strength")
    return [
        Dose(float(row["strength"]), _bounds(row, ""), _bounds(row, "control_")) for row in rows.to_dict("records")
    ]


def _view(record: Mapping[Any, Any]) -> EffectView:
    strength = float(record["strength"])
    steered = f"steer ×{strength:g}" if strength else "steer"
    return EffectView(
        what="ablate" if record["kind"] == "ablate" else steered,
        metric=title_of(str(record["metric"])),
        effect=_bounds(record, ""),
        control=_bounds(record, "control_"),
        difference=_bounds(record, "difference_"),
    )


def _bounds(record: Mapping[Any, Any], prefix: str) -> Interval:
    low, high = finite(record[f"{prefix}low"]), finite(record[f"{prefix}high"])
    return Interval(float(record[f"{prefix}point"]), low, high, int(record["n"]), str(record["unit"]))
