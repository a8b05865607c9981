"""The report's figures, from the bundle's own tables."""

import numpy as np
import pandas as pd

from saeops.report.blocks import rounded
from saeops.report.contents import Contents
from saeops.report.effects import finite
from saeops.report.figures import Chart, curve, histogram, profile
from saeops.report.numbers import count, number, plural, share
from saeops.report.rows import title_of
from saeops.report.sampling import chosen_labels
from saeops.stats import Interval


def charts(contents: Contents) -> tuple[Chart, ...]:
    """Every figure of the latents and of training that there is something to draw for."""
    found = (density(contents), strength(contents), confidence(contents), *quality(contents), *training(contents))
    return tuple(chart for chart in found if chart)


def profiles(contents: Contents) -> tuple[Chart, ...]:
    """Figures by position in the window and by how frequent the token is."""
    if contents.slices.empty:
        return ()
    groups = contents.slices.groupby(["slice", "metric"], sort=False)
    made = (_profile(str(kind), str(metric), rows.sort_values("order")) for (kind, metric), rows in groups)
    return tuple(chart for chart in made if chart)


def _profile(kind: str, metric: str, rows: pd.DataFrame) -> Chart | None:
    buckets = [
        (
            str(row["bucket"]),
            Interval(row["point"], finite(row["low"]), finite(row["high"]), int(row["n"]), "documents"),
        )
        for row in rows.to_dict("records")
    ]
    first, last = buckets[0], buckets[-1]
    return profile(
        buckets,
        title=title_of(metric),
        says=f"{first[0]}: {number(first[1].point)}; {last[0]}: {number(last[1].point)}.",
        x_label=SLICES.get(kind, kind),
        y_label="95 % interval",
    )


SLICES = {"position": "position in the window", "token_frequency": "share of the training tokens"}


def density(contents: Contents) -> Chart | None:
    """How often latents fire, over powers of ten."""
    values = _rounded(contents.latents["density"])
    living = values[values > 0]
    middle = f"median {share(float(np.median(living)))} of tokens" if living.size else "none fires"
    silent = int((values == 0).sum())
    return histogram(
        values,
        title="Density",
        says=f"Share of explain tokens on which a latent fires: {middle}. Dead, so not drawn: {count(silent)}.",
        x_label="share of tokens",
        log10=True,
        column="density",
    )


def strength(contents: Contents) -> Chart | None:
    """Each latent's strongest activation."""
    values = _rounded(contents.latents["max_activation"])
    living = values[values > 0]
    return histogram(
        values,
        title="Strongest activation",
        says=f"The largest activation of each living latent; the median is {number(_median(living))}.",
        x_label="activation, in the model’s own units",
        log10=True,
        column="max_activation",
    )


def confidence(contents: Contents) -> Chart | None:
    """Confidence of the labels that count."""
    labels = chosen_labels(contents.labels)
    values = _rounded(labels[labels["text"].notna()]["confidence"])
    nothing = int((values == 0).sum())
    return histogram(
        values,
        title="Label confidence",
        says=f"Lower bounds, not means; {count(nothing)} of {plural(len(values), 'label')} no better than chance.",
        x_label="confidence",
        y_label="labels",
        bins=25,
        limits=(0.0, 1.0),
        column="confidence",
    )


def quality(contents: Contents) -> tuple[Chart | None, ...]:
    """What was measured of each latent on held-out documents."""
    return tuple(
        histogram(
            _rounded(contents.diagnosed[name].dropna()),
            title=title_of(name),
            says=f"{says}; the median of {count(int(contents.diagnosed[name].count()))} latents is "
            f"{number(_median(contents.diagnosed[name].dropna().to_numpy(dtype=float)))}.",
            x_label=x_label,
            column=name,
        )
        for name, says, x_label in QUALITY_SAYS
        if name in contents.diagnosed
    )


QUALITY_SAYS = (
    ("coherence", "How alike a latent’s contexts are", "similarity"),
    ("ablation_sparsity", "How few logits move when a latent is ablated", "sparsity"),
    ("logit_specificity", "How few tokens a latent’s direction raises", "specificity"),
    ("max_cosine", "How near the nearest other latent’s direction lies", "cosine"),
    ("seed_cosine", "How near the nearest direction of another seed lies", "cosine"),
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


def _rounded(values: "pd.Series[float]") -> np.ndarray:
    """As the page's index holds them, so that a bar and the list it picks agree."""
    return np.array([rounded(float(value)) for value in values], dtype=float)
