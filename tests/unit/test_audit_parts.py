"""The arithmetic of an audit, against the plain way."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from saeops.drift.audit.bounds import correlation, ratio
from saeops.drift.audit.config import AuditConfig, LatentPolicy
from saeops.drift.audit.contexts import Strongest, overlap
from saeops.drift.audit.histograms import distance_octaves, histogram
from saeops.drift.audit.latents import judge_latents
from saeops.drift.audit.outcome import judge_dictionary, width_changed
from saeops.drift.audit.part import Part, Read, Side, relabelled, side_documents
from saeops.drift.audit.record import AuditRecord, LatentCounts, parse_audit
from saeops.drift.audit.sums import SUMS, Exposed, PairSums
from saeops.errors import JournalBroken
from saeops.sae.codes import Codes
from saeops.stats import Interval

TOKENS, LATENTS, DOCUMENTS = 60, 5, 12


def sparse(generator: np.random.Generator, tokens: int = TOKENS, latents: int = LATENTS) -> torch.Tensor:
    fires = generator.random((tokens, latents)) < 0.4
    return torch.tensor(np.where(fires, generator.exponential(size=fires.shape), 0.0))


def documents_of(tokens: int, documents: int = DOCUMENTS) -> torch.Tensor:
    return torch.arange(tokens) * documents // tokens


def exposed(a: torch.Tensor, b: torch.Tensor, documents: int = DOCUMENTS) -> Exposed:
    document = documents_of(len(a), documents)
    seen = np.bincount(document.numpy(), minlength=documents).astype(float)
    sums = PairSums.of(document, Codes.from_dense(a), Codes.from_dense(b))
    return Exposed(sums, seen, seen, a.shape[1])


@given(st.integers(0, 10_000))
def test_sums_by_latent_and_document_are_those_of_the_dense_activations(seed: int) -> None:
    generator = np.random.default_rng(seed)
    a, b = sparse(generator), sparse(generator)
    sums = exposed(a, b).sums
    dense = torch.stack([a > 0, b > 0, a, b, a * a, b * b, a * b], dim=-1).double().numpy()
    expected = np.zeros((DOCUMENTS, LATENTS, len(SUMS)))
    np.add.at(expected, documents_of(TOKENS).numpy(), dense)
    found = np.zeros_like(expected)
    found[sums.document, sums.latent] = sums.value_PS
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)


@given(st.integers(0, 10_000))
def test_groups_summed_apart_and_merged_are_the_whole(seed: int) -> None:
    generator = np.random.default_rng(seed)
    a, b, document, half = sparse(generator), sparse(generator), documents_of(TOKENS), TOKENS // 3
    parts = [
        PairSums.of(document[part], Codes.from_dense(a[part]), Codes.from_dense(b[part]))
        for part in (slice(0, half), slice(half, None))
    ]
    merged, whole = PairSums.merged(parts), exposed(a, b).sums
    for name, column in vars(whole).items():
        np.testing.assert_allclose(getattr(merged, name), column, rtol=1e-12)


@given(st.integers(0, 10_000))
def test_correlation_and_ratio_are_those_of_the_tokens(seed: int) -> None:
    generator = np.random.default_rng(seed)
    a, b = sparse(generator), sparse(generator)
    both = exposed(a, b)
    expected = [np.corrcoef(a[:, f], b[:, f])[0, 1] for f in range(LATENTS)]
    np.testing.assert_allclose(correlation(both).point_F, expected, atol=1e-6)
    np.testing.assert_allclose(ratio(both, "old", "new").point_F, (b.sum(0) / a.sum(0)).numpy(), rtol=1e-6)


def test_bounds_are_as_wide_as_the_jackknife_says() -> None:
    generator = np.random.default_rng(3)
    a = sparse(generator, 600, 3)
    b = torch.where(torch.rand(600, 3, generator=torch.Generator().manual_seed(0)) < 0.7, a, a * 0)
    both, document = exposed(a, b, 30), documents_of(600, 30)

    def without(left: int, measure: str) -> np.ndarray:
        kept = document != left
        if measure == "r":
            return np.arctanh([np.corrcoef(a[kept, f], b[kept, f])[0, 1] for f in range(3)])
        return np.log((b[kept].sum(0) / a[kept].sum(0)).numpy())

    for measure, bounded in (("r", correlation(both)), ("ratio", ratio(both, "old", "new"))):
        left_out = np.stack([without(document, measure) for document in range(30)])
        jackknife = np.sqrt(29 / 30 * ((left_out - left_out.mean(0)) ** 2).sum(0))
        np.testing.assert_allclose(bounded.error_F, jackknife, rtol=0.15)


def test_a_latent_that_is_the_same_has_correlation_and_ratio_of_one_without_error() -> None:
    a = sparse(np.random.default_rng(0))
    both = exposed(a, a)
    for bounded in (correlation(both), ratio(both, "n_old", "n_new")):
        np.testing.assert_allclose(bounded.low_F(0.001), 1.0)
        np.testing.assert_allclose(bounded.high_F(0.001), 1.0)


def test_a_latent_never_seen_again_is_bounded_by_the_documents_it_was_in() -> None:
    a = torch.zeros(TOKENS, 1, dtype=torch.float64)
    a[::5] = 1.0
    gone = ratio(exposed(a, torch.zeros_like(a)), "n_old", "n_new")
    assert gone.point_F[0] == 0.0
    assert gone.high_F(0.05)[0] == pytest.approx(1 - 0.05 ** (1 / DOCUMENTS))


def test_twice_as_strong_is_one_octave_away() -> None:
    a = sparse(np.random.default_rng(1), 400).float()
    first, second = histogram(Codes.from_dense(a)), histogram(Codes.from_dense(2 * a))
    np.testing.assert_allclose(distance_octaves(first, second), 1.0, atol=1e-6)
    np.testing.assert_allclose(distance_octaves(first, first), 0.0)


def test_a_latent_without_firings_has_no_distance() -> None:
    nothing = np.zeros((1, 104), dtype=np.int64)
    assert np.isnan(distance_octaves(nothing, nothing)[0])


@given(st.integers(0, 10_000), st.integers(1, 4))
def test_the_strongest_windows_merged_are_those_of_all_tokens(seed: int, top: int) -> None:
    generator = np.random.default_rng(seed)
    n = 80
    latent, row = generator.integers(3, size=n), np.arange(n)
    window, value = row // 8, generator.integers(1, 6, size=n).astype(float)
    whole = Strongest.of(latent, window, row, value, top=top)
    halves = [Strongest.of(latent[p], window[p], row[p], value[p], top=top) for p in (slice(0, 40), slice(40, n))]
    merged = Strongest.merged(halves, top=top)
    for name, column in vars(whole).items():
        np.testing.assert_array_equal(getattr(merged, name), column)
    for number in range(3):
        best: dict[int, float] = {}
        for w, v in zip(window[latent == number], value[latent == number], strict=True):
            best[int(w)] = max(best.get(int(w), 0.0), float(v))
        expected = sorted(best, key=lambda w: (-best[w], w))[:top]
        assert whole.window[whole.latent == number].tolist() == expected


def test_overlap_is_the_share_of_old_windows_that_stay() -> None:
    def strongest(windows: list[int]) -> Strongest:
        rows = np.array(windows)
        return Strongest.of(np.zeros(len(rows), dtype=int), rows, rows, np.ones(len(rows)), top=4)

    assert overlap(strongest([1, 2, 3, 4]), strongest([3, 4, 5, 6]), 2)[0] == 0.5
    assert np.isnan(overlap(strongest([1]), strongest([1]), 2)[1])


def read_of(dense: torch.Tensor) -> Read:
    document = documents_of(len(dense), 3)
    y = torch.randn(len(dense), 4, generator=torch.Generator().manual_seed(0))
    return Read(document, torch.arange(len(dense)), document, y, y * 0.5, Codes.from_dense(dense))


def test_a_part_comes_back_from_its_bytes_as_it_was() -> None:
    read = read_of(sparse(np.random.default_rng(0)))
    side = Side.of(read, first=0, documents=3, top=2, labelled=np.array([1, 3]))
    pairs = PairSums.of(read.document_T, read.codes, read.codes)
    part = Part(pairs, pairs, side, side)
    again = Part.from_bytes(part.to_bytes())
    for name, held in vars(part).items():
        for field in dataclasses.fields(held):
            np.testing.assert_array_equal(getattr(getattr(again, name), field.name), getattr(held, field.name))
    assert set(side.fired_latent.tolist()) == {1, 3}


def test_spread_follows_from_sums_although_the_mean_is_known_only_at_the_end() -> None:
    read = read_of(sparse(np.random.default_rng(0)))
    side = Side.of(read, first=0, documents=3, top=2, labelled=np.array([]))
    sums_US, _ = side_documents([side])
    y = read.y_TE.double()
    expected = ((y - y.mean(0)) ** 2).sum().item()
    assert sums_US[:, 3].sum() == pytest.approx(expected)


def test_relabelled_codes_fire_under_the_other_names() -> None:
    dense, name = sparse(np.random.default_rng(2)), np.array([3, 0, 4, 1, 2])
    found = relabelled(Codes.from_dense(dense), name).dense()
    np.testing.assert_allclose(found[:, name], dense)


# ── verdicts ────────────────────────────────────────────────────────────────


def verdicts(a: torch.Tensor, b: torch.Tensor, **policy: float) -> list[str]:
    return list(judge_latents(exposed(a, b, 30), LatentPolicy(**policy), pairing="tokens").verdict_F)


def test_each_change_has_its_name() -> None:
    generator = np.random.default_rng(0)
    a = sparse(generator, 1500, 6)
    b = a.clone()
    b[:, 1] *= 0.4
    b[:, 2] = a[torch.randperm(1500, generator=torch.Generator().manual_seed(0)), 2]
    b[:, 3] = 0.0
    b[:, 4] *= 5
    b[:, 5] *= 1.1
    assert verdicts(a, b) == ["kept", "weakened", "changed", "lost", "changed", "kept"]


def test_too_few_firings_are_never_kept() -> None:
    a = torch.zeros(1500, 2, dtype=torch.float64)
    a[:5, 0] = 1.0
    a[:200, 1] = 1.0
    assert verdicts(a, a) == ["too_few", "too_few"], "five firings; many, all in a few documents"


def test_a_bound_across_the_limit_is_too_few_to_tell() -> None:
    generator = np.random.default_rng(0)
    a = torch.zeros(1500, 1, dtype=torch.float64)
    a[::50] = 1.0
    b = a * torch.tensor(generator.random((1500, 1)) < 0.65)
    assert verdicts(a, b, min_documents=4) == ["too_few"]


def figures(**changed: Interval) -> dict[str, Interval]:
    still = {
        "latents_gone": Interval(0.0, 0.0, 0.02, 100, "latents"),
        "explained_variance_change": Interval(0.0, -0.01, 0.01, 40, "documents"),
        "delta_ce_change_nats": Interval(0.0, -0.01, 0.01, 40, "documents"),
        "l0_change": Interval(0.0, -0.1, 0.1, 40, "documents"),
    }
    return still | changed


@pytest.mark.parametrize(
    ("changed", "outcome"),
    [
        ({}, "ok"),
        ({"latents_gone": Interval(0.1, 0.05, 0.2, 100, "latents")}, "warn"),
        ({"latents_gone": Interval(0.4, 0.3, 0.5, 100, "latents")}, "drift"),
        ({"latents_gone": Interval(0.0, 0.0, 1.0, 0, "latents")}, "warn"),
        ({"explained_variance_change": Interval(-0.2, -0.3, -0.15, 40, "documents")}, "drift"),
        ({"explained_variance_change": Interval(-0.2, -0.5, 0.1, 40, "documents")}, "ok"),
        ({"explained_variance_change": Interval(0.2, 0.1, 0.3, 40, "documents")}, "ok"),
        ({"delta_ce_change_nats": Interval(0.1, 0.06, 0.2, 40, "documents")}, "warn"),
        ({"l0_change": Interval(-5.0, -6.0, -4.0, 40, "documents")}, "warn"),
        ({"l0_change": Interval(12.0, None, None, 4, "documents")}, "ok"),
    ],
)
def test_only_what_surely_lies_beyond_a_limit_counts(changed: dict[str, Interval], outcome: str) -> None:
    verdict = judge_dictionary(figures(**changed), AuditConfig(), l0=10.0)
    assert verdict.outcome == outcome
    assert bool(verdict.reasons) == (outcome != "ok")


def test_so_much_gone_asks_for_a_fresh_start() -> None:
    gone = Interval(0.8, 0.7, 0.9, 100, "latents")
    assert judge_dictionary(figures(latents_gone=gone), AuditConfig(), l0=10.0).fresh_start
    assert width_changed("blocks.1.resid_post", 8, 16).fresh_start


def test_another_tokenizer_is_a_warning_at_least() -> None:
    verdict = judge_dictionary(figures(), AuditConfig(), l0=10.0, tokenizer_changed=True)
    assert verdict.outcome == "warn"
    assert "tokenizer" in verdict.reasons[0]


def test_a_record_is_refused_once_a_byte_changed() -> None:
    record = AuditRecord(
        name="a/b",
        bundle="b" * 64,
        model="m" * 64,
        model_ref="v2",
        same_model=False,
        outcome="warn",
        fresh_start=False,
        at="2026-03-01T12:00:00+00:00",
        author="ada",
        documents=40,
        tokens=4000,
        latents=LatentCounts(kept=3, lost=1),
        reasons=("because",),
        report="f" * 64,
    )
    assert parse_audit(record.to_bytes(), "here") == record
    with pytest.raises(JournalBroken):
        parse_audit(record.to_bytes().replace(b"4000", b"4001"), "here")
