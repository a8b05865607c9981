"""L0, densities, dead and dense latents."""

import numpy as np
import pytest
import torch

from saeops.diagnostics.metrics import DENSITIES
from saeops.diagnostics.sparsity import BIN_EDGES, Densities, Firing, SparsityMeter, dead_fraction
from saeops.metrics import measure_all
from saeops.sae.codes import Codes
from saeops.stats import Bootstrap, Interval

U, F = 20, 30


def dense_codes(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """(document of each token, f_TF): latents 0–4 silent, latent 5 nearly always on."""
    generator = torch.Generator().manual_seed(seed)
    document_T = torch.arange(U).repeat_interleave(torch.randint(3, 15, (U,), generator=generator))
    f_TF = torch.rand(len(document_T), F, generator=generator)
    f_TF = torch.where(torch.rand(f_TF.shape, generator=generator) < 0.1, f_TF + 0.01, 0.0)
    f_TF[:, :5] = 0
    f_TF[:, 5] = 1
    return document_T, f_TF


def firing_of(document_T: torch.Tensor, f_TF: torch.Tensor, batch: int = 17) -> Firing:
    meter = SparsityMeter(U, f_TF.shape[1])
    for start in range(0, len(f_TF), batch):
        part = slice(start, start + batch)
        meter.add(document_T[part], Codes.from_dense(f_TF[part]))
    return meter.firing()


def metrics_of(firing: Firing, dense_above: float) -> dict[str, Interval]:
    return measure_all(DENSITIES, Densities(firing, dense_above), Bootstrap(200, 0))


def test_streamed_counts_are_the_dense_ones() -> None:
    document_T, f_TF = dense_codes()
    firing = firing_of(document_T, f_TF)
    assert firing.tokens == len(f_TF)
    assert firing.n_active_F.tolist() == (f_TF > 0).sum(0).tolist()
    np.testing.assert_allclose(firing.max_F, f_TF.max(0).values.numpy())
    assert firing.histogram_FB.sum(1).tolist() == firing.n_active_F.tolist()
    third = firing.active_UF[[3]].toarray()[0]
    assert third.tolist() == (f_TF[document_T == 3] > 0).sum(0).tolist()


def test_activations_fall_between_their_bins_edges() -> None:
    f_TF = torch.tensor([[1.0, 0.5, 1e-9, 1e9]])
    histogram = firing_of(torch.zeros(1, dtype=torch.long), f_TF).histogram_FB
    bins = histogram.argmax(1)
    assert BIN_EDGES[bins[0]] == 1.0
    assert BIN_EDGES[bins[1]] == 0.5
    assert bins[2] == 0
    assert bins[3] == len(BIN_EDGES) - 2, "what is out of range counts in the outermost bin"


def test_l0_and_its_quantiles_are_those_of_the_tokens() -> None:
    document_T, f_TF = dense_codes()
    metrics = metrics_of(firing_of(document_T, f_TF), 0.5)
    l0 = (f_TF > 0).sum(1).numpy()
    for q in (5, 50, 95, 99):
        assert metrics[f"l0_p{q:02d}"].point == np.quantile(l0, q / 100, method="inverted_cdf")


def test_dense_latents_are_those_above_the_limit() -> None:
    document_T, f_TF = dense_codes()
    metrics = metrics_of(firing_of(document_T, f_TF), 0.5)
    assert metrics["dense_fraction"].point == pytest.approx(1 / F)
    assert metrics["dense_fraction"].low == pytest.approx(1 / F), "it is dense in every resample"


def test_a_latent_near_the_limit_widens_the_dense_interval() -> None:
    document_T, f_TF = dense_codes()
    f_TF[document_T % 2 == 0, 6] = 1
    f_TF[document_T % 2 == 1, 6] = 0
    share = float((f_TF[:, 6] > 0).float().mean())
    metrics = metrics_of(firing_of(document_T, f_TF), share)
    assert metrics["dense_fraction"].low < metrics["dense_fraction"].high  # type: ignore[operator]


def test_dead_latents_come_with_the_bound_of_what_was_not_seen() -> None:
    document_T, f_TF = dense_codes()
    firing = firing_of(document_T, f_TF)
    interval = dead_fraction(firing)
    assert interval.point == pytest.approx(5 / F)
    bound = 1 - 0.05 ** (1 / firing.tokens)
    assert f"up to {bound:.2g} of tokens" in interval.note


def test_latents_seen_in_one_document_only_widen_the_dead_interval() -> None:
    document_T, f_TF = dense_codes()
    sure = dead_fraction(firing_of(document_T, f_TF))
    f_TF[document_T == 7, 0] = 1
    f_TF[document_T == 7, 1] = 1
    unsure = dead_fraction(firing_of(document_T, f_TF))
    assert sure.low == sure.point == sure.high
    assert unsure.low is not None
    assert unsure.high is not None
    assert unsure.low < unsure.point < unsure.high
    assert unsure.low <= unsure.point, "a plain bootstrap could only ever count more dead latents"


def test_the_dead_interval_covers_what_other_samples_of_documents_show() -> None:
    """Rare latents fire in whole documents; the interval must span the spread between samples."""
    generator = np.random.default_rng(0)
    rates = generator.uniform(0.0, 0.1, 400)
    samples = [
        firing_of(torch.arange(U), torch.from_numpy((generator.random((U, 400)) < rates).astype(np.float32)))
        for _ in range(150)
    ]
    expected = float(((1 - rates) ** U).mean())
    intervals = [dead_fraction(sample) for sample in samples]
    hits = np.mean([i.low <= expected <= i.high for i in intervals])  # type: ignore[operator]
    assert hits >= 0.9


def test_too_few_documents_give_no_bounds() -> None:
    f_TF = torch.eye(4)
    meter = SparsityMeter(4, 4)
    meter.add(torch.arange(4), Codes.from_dense(f_TF))
    metrics = metrics_of(meter.firing(), 0.1)
    for name, interval in metrics.items():
        assert interval.low is None, name
        assert "fewer than" in interval.note, name


def test_nothing_firing_anywhere_is_all_dead_and_no_crash() -> None:
    document_T = torch.arange(U)
    metrics = metrics_of(firing_of(document_T, torch.zeros(U, F)), 0.1)
    assert metrics["dead_fraction"].point == 1
    assert metrics["l0_p99"].point == 0
