"""What is logged while training: one point every few steps, each from that step's batch alone."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import pandas as pd
import pandera.pandas as pa
from pandera.typing import Series

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Point:
    """The state of training after a step. Activations are normalised, so mse is about 1 − EV."""

    step: int
    """Steps done."""
    tokens: int
    """Tokens seen."""
    loss: float
    mse: float
    """Mean squared error an element."""
    explained_variance: float
    """Of this batch: 1 − Σ‖x − x̂‖² / Σ‖x − μ‖², μ the batch's mean."""
    l0: float
    dead: int
    """Latents silent for longer than dead_after_tokens."""
    dead_fraction: float
    lr: float
    aux_loss: float
    """The variant's own term before its coefficient (AuxK's error, the L1 penalty)."""
    grad_norm: float
    """Before clipping."""
    encoder_recall: float
    """Share of the exact top k that the encoder finds, measured on some tokens; 1 where it is exact."""

    def metrics(self) -> dict[str, float]:
        """As the tracker shows them."""
        values = asdict(self)
        values["dead_latents"] = values.pop("dead")
        del values["step"]
        return {name: float(value) for name, value in values.items()}

    def facts(self) -> dict[str, str]:
        """As the progress bar shows them."""
        return {
            "loss": f"{self.loss:.4f}",
            "EV": f"{self.explained_variance:.3f}",
            "L0": f"{self.l0:.1f}",
            "dead": f"{self.dead_fraction:.1%}",
        }


class CurveTable(pa.DataFrameModel):
    """training.parquet: the points of a run in order."""

    step: Series[int] = pa.Field(ge=1, unique=True)
    tokens: Series[int] = pa.Field(ge=1)
    loss: Series[float]
    mse: Series[float] = pa.Field(ge=0)
    explained_variance: Series[float] = pa.Field(le=1)
    l0: Series[float] = pa.Field(ge=0)
    dead: Series[int] = pa.Field(ge=0)
    dead_fraction: Series[float] = pa.Field(ge=0, le=1)
    lr: Series[float] = pa.Field(gt=0)
    aux_loss: Series[float] = pa.Field(ge=0)
    grad_norm: Series[float] = pa.Field(ge=0)
    encoder_recall: Series[float] = pa.Field(ge=0, le=1)

    class Config:
        strict = True


def curve_frame(curve: Sequence[Point]) -> pd.DataFrame:
    """The points as a table that fits CurveTable."""
    return pd.DataFrame([asdict(point) for point in curve])


def loss_curve(curve: Sequence[Point]) -> "Figure":
    """Loss, explained variance, L0 and dead latents over tokens."""
    from matplotlib.figure import Figure

    frame = curve_frame(curve)
    panels = {
        "loss": "loss",
        "explained_variance": "explained variance (of the batch)",
        "l0": "L0",
        "dead_fraction": "dead latents (fraction)",
    }
    figure = Figure(figsize=(9, 5.5), layout="constrained")
    axes = figure.subplots(2, 2, sharex=True).flatten()
    for ax, (column, title) in zip(axes, panels.items(), strict=True):
        ax.plot(frame["tokens"] / 1e6, frame[column], color="#2a5d9f", linewidth=1.4)
        ax.set_title(title, fontsize=10, loc="left")
        ax.grid(alpha=0.25)
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].set_yscale("log")
    for ax in axes[2:]:
        ax.set_ylim(bottom=0)
        ax.set_xlabel("million tokens")
    return figure
