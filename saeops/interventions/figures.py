"""The bench's one figure: how the effect grows with the strength, beside random directions."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from saeops.interventions.effects import LatentEffects


def dose_figure(effects: Sequence[LatentEffects]) -> Figure:
    """Mean change of the latents' own tokens' log-prob, a line a latent; the band is its random directions'."""
    strengths = [0.0, *(s.strength for s in effects[0].steered)]
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    controls = np.array([[0.0, *(float(np.mean(s.target.control)) for s in e.steered)] for e in effects])
    axes.fill_between(
        strengths, controls.min(0), controls.max(0), color="0.8", label="equal-norm random directions, range"
    )
    for measured in effects:
        means = [0.0, *(float(np.mean(s.target.effect)) for s in measured.steered)]
        style = "-" if measured.drawn == "confidence" else "--"
        axes.plot(strengths, means, style, marker="o", markersize=3, label=f"latent {measured.latent}")
    axes.axhline(0, color="0.5", linewidth=0.5)
    axes.set_xlabel("strength (× the latent's maximum activation)")
    axes.set_ylabel("change in log-prob of its own tokens (nats)")
    axes.set_title("Dose and response (dashed: latents drawn at random)")
    axes.legend(fontsize=7, ncols=2)
    return figure
