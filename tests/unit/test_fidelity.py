"""Splicing into a real (tiny) model: identical masks, raw ΔCE, ratios of sums."""

import numpy as np
import pytest
import torch

from saeops.activations.policy import TokenPolicy
from saeops.activations.sites import Sites
from saeops.activations.windows import Window, norm_mask, position_mask
from saeops.adapters.models import TransformersModel
from saeops.diagnostics.fidelity import (
    FidelitySums,
    Mask,
    Splice,
    by_document,
    counted_positions,
    fidelity_columns,
    fidelity_sums,
    splice_at,
)
from saeops.diagnostics.metrics import FIDELITY
from saeops.diagnostics.splicing import window_batches
from saeops.metrics import measure_all
from saeops.stats import Bootstrap, Interval

SITE = "blocks.1.resid_post"


def zeros(_: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(y)


def windows_of(*lengths: int) -> list[Window]:
    generator = torch.Generator().manual_seed(0)
    return [
        Window(document, 0, (0, *torch.randint(2, 320, (length - 1,), generator=generator).tolist()))
        for document, length in enumerate(lengths)
    ]


def policy_mask(model: TransformersModel, limit: float | None = None) -> Mask:
    def mask(ids: torch.Tensor, lengths: torch.Tensor, x: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        return position_mask(ids, lengths, TokenPolicy(), model.special_ids, bos=model.bos_id) & norm_mask(
            x, limit
        )

    return mask


def sums_of(model: TransformersModel, windows: list[Window], mask: Mask, **splices: Splice) -> FidelitySums:
    parts = fidelity_sums(
        lambda ids: lambda edit: model.logits(ids, Sites.of(SITE, None).edits(edit)),
        window_batches(windows),
        mask,
        splices,
    )
    return by_document(list(parts))


def test_splicing_the_activations_themselves_costs_exactly_nothing(tiny_model: TransformersModel) -> None:
    """With the error term kept, x̂ + (x − x̂) = x: any cost would be the harness's own."""
    sums = sums_of(tiny_model, windows_of(20, 9, 31), policy_mask(tiny_model), itself=lambda _, y: y)
    assert (sums.spliced["itself"] == sums.clean).all()
    assert (sums.kl["itself"] == 0).all()


def test_clean_loss_is_the_models_own_next_token_loss(tiny_model: TransformersModel) -> None:
    windows = windows_of(20, 9)
    sums = sums_of(tiny_model, windows, policy_mask(tiny_model), zero=zeros)
    for row, window in enumerate(windows):
        ids = torch.tensor([window.ids])
        logits = tiny_model.logits(ids)[0]
        # Position 0 is the prepended token, which the policy leaves out.
        expected = torch.nn.functional.cross_entropy(logits[1:-1], ids[0, 2:], reduction="sum")
        assert sums.clean[row] == pytest.approx(float(expected), rel=1e-4)
        assert sums.tokens[row] == len(window.ids) - 2


def test_kl_is_that_of_the_full_distributions(tiny_model: TransformersModel) -> None:
    windows = windows_of(15)
    sums = sums_of(tiny_model, windows, policy_mask(tiny_model), zero=zeros)
    ids = torch.tensor([windows[0].ids])
    mask = torch.arange(15)[None] >= 1
    clean = tiny_model.logits(ids)[0, 1:-1].softmax(-1).double()
    edits = Sites.of(SITE, None).edits(splice_at(mask, zeros))
    spliced = tiny_model.logits(ids, edits)[0, 1:-1].softmax(-1).double()
    assert sums.kl["zero"][0] == pytest.approx(float((clean * (clean / spliced).log()).sum()), rel=1e-3)


def test_masked_out_positions_keep_their_activation() -> None:
    x = torch.arange(24.0).reshape(1, 6, 4)
    mask = torch.tensor([[False, True, True, False, True, False]])
    edited = splice_at(mask, zeros)(x, x)
    assert (edited[mask] == 0).all()
    assert (edited[~mask] == x[~mask]).all()
    assert x.sum() == 276, "the model's own tensor is left alone"


def test_the_splice_sees_and_changes_masked_in_positions_only(tiny_model: TransformersModel) -> None:
    seen = []

    def splice(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        seen.append(x)
        return y

    windows = windows_of(20, 9)
    ids = torch.tensor([(*window.ids, *[0] * (20 - len(window.ids))) for window in windows])
    norms = tiny_model.capture(ids, [SITE])[SITE].norm(dim=-1)
    limit = float(norms[0, 1:].median())
    sums = sums_of(tiny_model, windows, policy_mask(tiny_model, limit), itself=splice)
    assert len(seen[0]) < 8 + 19, "tokens above the norm limit are not spliced"
    assert (seen[0].norm(dim=-1) <= limit * 1.0001).all()
    assert sums.tokens.sum() <= len(seen[0]), "and their predictions are not counted"


def test_predictions_need_a_next_token_inside_the_window() -> None:
    mask = torch.tensor([[False, True, True, True], [False, True, True, True]])
    counted = counted_positions(mask, torch.tensor([4, 2]))
    assert counted.tolist() == [[False, True, True, False], [False, False, False, False]]


def test_padding_changes_nothing(tiny_model: TransformersModel) -> None:
    windows = windows_of(31, 9)
    together = sums_of(tiny_model, windows, policy_mask(tiny_model), zero=zeros)
    alone = sums_of(tiny_model, windows[1:], policy_mask(tiny_model), zero=zeros)
    assert together.clean[1] == pytest.approx(alone.clean[0], rel=1e-5)
    assert together.spliced["zero"][1] == pytest.approx(alone.spliced["zero"][0], rel=1e-5)


def test_a_document_without_a_counted_prediction_is_no_sample(tiny_model: TransformersModel) -> None:
    sums = sums_of(tiny_model, windows_of(12, 2, 12), policy_mask(tiny_model), zero=zeros)
    assert sums.document.tolist() == [0, 2]


def metrics_of(
    clean: list[float], sae: list[float], zero: list[float], tokens: list[float]
) -> dict[str, Interval]:
    splices = {"sae": np.array(sae), "zero": np.array(zero), "mean": np.array(zero) - 1.0, "kept": np.array(clean)}
    kl = {"sae": np.array(sae)}
    sums = FidelitySums(np.arange(len(clean)), np.array(tokens), np.array(clean), splices, kl, kl)
    return measure_all(FIDELITY, fidelity_columns(sums, "sae"), Bootstrap(100, 0))


def test_recovered_loss_is_a_ratio_of_sums_not_a_mean_of_ratios() -> None:
    metrics = metrics_of([10.0, 100.0], [12.0, 190.0], [20.0, 200.0], [5.0, 50.0])
    assert metrics["ce_recovered_zero"].point == pytest.approx((220 - 202) / (220 - 110))
    assert metrics["ce_recovered_mean"].point == pytest.approx((218 - 202) / (218 - 110))
    assert metrics["delta_ce_nats"].point == pytest.approx((202 - 110) / 55)
    assert metrics["delta_ce_with_error_nats"].point == 0


def test_recovered_loss_is_one_for_a_perfect_splice_and_zero_for_the_ablation_itself() -> None:
    perfect = metrics_of([10.0], [10.0], [20.0], [5.0])
    useless = metrics_of([10.0], [20.0], [20.0], [5.0])
    assert perfect["ce_recovered_zero"].point == 1
    assert useless["ce_recovered_zero"].point == 0
    assert perfect["delta_ce_nats"].point == 0


def test_the_most_likely_token_agrees_with_itself_and_less_with_an_ablated_models(
    tiny_model: TransformersModel,
) -> None:
    sums = sums_of(tiny_model, windows_of(31, 31), policy_mask(tiny_model), itself=lambda _, y: y, zero=zeros)
    assert (sums.agree["itself"] == sums.tokens).all()
    assert sums.agree["zero"].sum() < sums.tokens.sum()


def test_windows_are_batched_within_the_token_budget() -> None:
    batches = window_batches(windows_of(*[128] * 9))
    assert [len(batch.document) for batch in batches] == [4, 4, 1]
    assert [len(batch.document) for batch in window_batches(windows_of(2000, 2000))] == [1, 1]
