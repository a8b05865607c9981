"""Probes on one latent against brute force: Newton against a general optimiser, the screen against all latents."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from scipy.optimize import minimize

from saeops.diagnostics.concepts.logistic import RIDGE, Cells, fit
from saeops.diagnostics.concepts.metrics import PROBES
from saeops.diagnostics.concepts.probing import ByLatent, Screen, choose, entropy, exact
from saeops.sae.codes import Codes
from saeops.stats import Bootstrap, resample_counts
from tests.draws import seeds

TOKENS, LATENTS = 300, 60


def least_loss(value: np.ndarray, label: np.ndarray) -> float:
    """Cross-entropy of the best probe, by a general optimiser on the plain formula."""
    scale = max(float(value.max()), 1e-30)

    def objective(point: np.ndarray) -> float:
        logit = point[0] * value / scale + point[1]
        return float((np.logaddexp(0, logit) - label * logit).sum() + RIDGE / 2 * point[0] ** 2)

    found = [minimize(objective, [start, -1.0], method="BFGS") for start in (0.0, 5.0, -5.0)]
    best = min(found, key=lambda each: float(each.fun))
    return (float(best.fun) - RIDGE / 2 * float(best.x[0]) ** 2) / len(value)


def world(seed: int) -> tuple[Codes, np.ndarray]:
    """Latents that fire on some tokens, and a label that one of them tells, more or less well."""
    generator = np.random.default_rng(seed)
    f_TF = generator.gamma(2.0, size=(TOKENS, LATENTS)) * (generator.random((TOKENS, LATENTS)) < 0.15)
    told = f_TF[:, generator.integers(LATENTS)] - generator.random() * f_TF[:, generator.integers(LATENTS)]
    label_T = told + generator.normal(scale=generator.random() * 2, size=TOKENS) > 0.8
    label_T[:2] = True, False
    return Codes.from_dense(torch.from_numpy(f_TF).float()), label_T


@given(seeds)
@settings(max_examples=25)
def test_newton_finds_what_a_general_optimiser_finds(seed: int) -> None:
    codes, label_T = world(seed)
    by_latent = ByLatent.of(codes)
    latents = np.flatnonzero(np.diff(by_latent.offset_F))[:5]
    probes = exact(by_latent, latents, label_T)
    for latent, loss in zip(latents.tolist(), probes.loss_P.tolist(), strict=True):
        assert loss == pytest.approx(least_loss(by_latent.column(latent), label_T.astype(float)), abs=1e-4)


@given(seeds)
@settings(max_examples=15)
def test_cells_of_equal_values_are_as_good_as_the_tokens_they_stand_for(seed: int) -> None:
    generator = np.random.default_rng(seed)
    value = generator.integers(0, 4, size=200).astype(float)
    label = generator.random(200) < 0.1 + 0.2 * value
    levels = np.unique(value)
    count = np.array([(value == level).sum() for level in levels], dtype=float)
    positive = np.array([label[value == level].sum() for level in levels], dtype=float)
    start = np.zeros(1, dtype=np.int64)
    merged = fit(Cells(levels, count, positive, start), steps=40)
    single = fit(Cells(value, np.ones(200), label.astype(float), start), steps=40)
    assert merged.loss_P == pytest.approx(single.loss_P, abs=1e-9)


@given(seeds)
@settings(max_examples=15)
def test_the_screen_loses_little_against_fitting_every_latent_exactly(seed: int) -> None:
    codes, label_T = world(seed)
    by_latent = ByLatent.of(codes)
    every = exact(by_latent, np.flatnonzero(np.diff(by_latent.offset_F)), label_T)
    chosen = choose(Screen.over(by_latent), label_T)
    assert chosen.loss <= every.loss_P.min() + 0.01 * entropy(label_T.sum(), TOKENS)
    assert chosen.loss >= every.loss_P.min() - 1e-4


@given(seeds)
@settings(max_examples=10)
def test_the_bootstrap_over_documents_is_that_of_drawing_whole_documents(seed: int) -> None:
    generator = np.random.default_rng(seed)
    tokens = generator.integers(5, 30, size=12)
    rows = []
    for _ in range(3):
        positives = generator.integers(1, tokens)
        rows.append({"measured": True, "document_tokens": tokens, "document_positives": positives})
        rows[-1]["document_loss"] = generator.random(12) * tokens * 0.5
    frame = pd.DataFrame([*rows, rows[0] | {"measured": False, "document_loss": ()}])
    loss, explained = (metric.measure(frame, Bootstrap(200, seed)) for metric in PROBES)
    losses = np.stack([row["document_loss"] for row in rows])
    assert loss.point == pytest.approx(float(np.mean(losses.sum(1) / tokens.sum())))
    rate = np.array([row["document_positives"].sum() / tokens.sum() for row in rows])
    assert explained.point == pytest.approx(float(np.mean(1 - losses.sum(1) / tokens.sum() / entropy(rate, 1.0))))
    assert loss.n == 12
    draws = [
        np.mean([np.repeat(each, drawn).sum() / np.repeat(tokens, drawn).sum() for each in losses])
        for drawn in resample_counts(12, resamples=200, seed=seed).astype(int)
    ]
    assert loss.low is not None
    assert loss.high is not None
    assert min(draws) <= loss.low <= np.quantile(draws, 0.025)
    assert np.quantile(draws, 0.975) <= loss.high <= max(draws)
