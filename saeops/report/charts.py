"""The report's figures, from the bundle's own tables."""

import numpy as np

from saeops.report.contents import Contents
from saeops.report.figures import Chart, curve, histogram
from saeops.report.numbers import count, number, plural, share
from saeops.report.sampling import chosen_labels


def charts(contents: Contents) -> tuple[Chart, ...]:
    """Every figure there is something to draw for."""
    found = (density(contents), strength(contents), confidence(contents), *training(contents))
    return tuple(chart for chart in found if chart)


def density(contents: Contents) -> Chart | None:
    """How often latents fire, over powers of ten."""
    values = contents.latents["density"].to_numpy(dtype=float)
    living = values[values > 0]
    middle = f"median {share(float(np.median(living)))} of tokens" if living.size else "none fires"
    silent = int((values == 0).sum())
    return histogram(
        values,
        title="Density",
        says=f"Share of explain tokens on which a latent fires: {middle}. Dead, so not drawn: {count(silent)}.",
        x_label="share of tokens",
        log10=True,
    )


def strength(contents: Contents) -> Chart | None:
    """Each latent's strongest activation."""
    values = contents.latents["max_activation"].to_numpy(dtype=float)
    living = values[values > 0]
    return histogram(
        values,
        title="Strongest activation",
        says=f"The largest activation of each living latent; the median is {number(_median(living))}.",
        x_label="activation, in the model’s own units",
        log10=True,
    )


def confidence(contents: Contents) -> Chart | None:
    """Confidence of the labels that count."""
    labels = chosen_labels(contents.labels)
    values = labels[labels["text"].notna()]["confidence"].to_numpy(dtype=float)
    nothing = int((values == 0).sum())
    return histogram(
        values,
        title="Label confidence",
        says=f"Lower bounds, not means; {count(nothing)} of {plural(len(values), 'label')} no better than chance.",
        x_label="confidence",
        y_label="labels",
        bins=25,
        limits=(0.0, 1.0),
    )


def training(contents: Contents) -> tuple[Chart | None, ...]:
    """What was logged while it trained."""
    log = contents.training
    tokens = [float(value) for value in log["tokens"]]
    asked = (
        ("loss", "Loss", "Training loss, auxiliary terms included"),
        ("explained_variance", "Explained variance", "On the training batches"),
        ("l0", "L0 in training", "Latents that fire on a token, mean of a batch"),
        ("dead", "Dead latents in training", "Latents that were silent for longer than train.dead_after_tokens"),
    )
    return tuple(
        curve(
            tokens,
            [float(value) for value in log[column]],
            title=title,
            says=f"{says}; {number(float(log[column].iloc[-1]))} at the end.",
            x_label="tokens",
            y_label="",
        )
        for column, title, says in asked
        # L0 of a top-k SAE is k at every step: a flat line says nothing.
        if column in log and len(log) and (column != "l0" or log[column].nunique() > 1)
    )


def _median(values: np.ndarray) -> float:
    return float(np.median(values)) if values.size else 0.0
